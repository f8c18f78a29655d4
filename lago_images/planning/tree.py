"""Reads the specs and what their builds depend on, once."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from lago_images.errors import Problem, SpecError
from lago_images.planning.chains import in_order
from lago_images.planning.files import Files
from lago_images.planning.fingerprint import File, fingerprint, parts
from lago_images.planning.git import Git
from lago_images.planning.model import Tree
from lago_images.settings import Settings
from lago_images.spec.inputs import host_files
from lago_images.spec.model import BaseKind, Spec
from lago_images.spec.read import is_spec_name, read


def read_tree(root: Path, settings: Settings, git: Git | None = None) -> Tree:
    """The specs below ``root`` with the fingerprint of each.

    Args:
        root: The folder that paths in specs start at.
        settings: For the specs' folder and the sources of templates.
        git: The repository that ``root`` is in; without it every input is read and hashed.

    Raises:
        SpecError: With every problem of every spec.
    """
    specs = read(root, settings.specs)
    inputs = {name: host_files(spec) for name, spec in specs.items()}
    snapshot = git.snapshot(prefixes(settings.specs, inputs.values())) if git else None
    files = Files(root=root, git=snapshot)
    found = _digests(specs, inputs, files)
    changed = {spec.path for spec in specs.values() if git and not files.is_committed(spec.path)}
    gone = {path for path in (snapshot.dirty if snapshot else ()) if _is_spec(path, settings)}
    return Tree(
        specs=specs,
        fingerprints=_fingerprints(specs, found, settings),
        inputs=inputs,
        dirty=frozenset(changed | gone | files.dirty),
    )


def prefixes(folder: str, inputs: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Few paths that cover the specs' folder and all inputs, for git to look at."""
    tops = {PurePosixPath(path).parts[:1] for paths in inputs for path in paths}
    found = {folder, *("/".join(top) or "." for top in tops)}
    return (".",) if "." in found or len(found) > _MOST else tuple(sorted(found))


def _is_spec(path: str, settings: Settings) -> bool:
    folder, _, name = path.rpartition("/")
    return folder == settings.specs.rstrip("/") and is_spec_name(name)


# More than these make git slower than looking at everything.
_MOST = 100


def _digests(
    specs: Mapping[str, Spec], inputs: Mapping[str, tuple[str, ...]], files: Files
) -> Mapping[str, list[File]]:
    problems = []
    found: dict[str, list[File]] = {}
    for name, paths in inputs.items():
        found[name] = []
        for path in paths:
            try:
                found[name] += [(path, *digest) for digest in files.digests(path)]
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                problems.append(Problem(specs[name].path, None, f"cannot read {path}: {why}"))
    if problems:
        raise SpecError(problems)
    return found


def _fingerprints(
    specs: Mapping[str, Spec], files: Mapping[str, list[File]], settings: Settings
) -> Mapping[str, str]:
    every: dict[str, str] = {}
    for name in in_order(specs):
        spec = specs[name]
        layer = spec.base.kind is BaseKind.LAYER
        inputs = parts(
            spec,
            base=every[spec.base.name] if layer else None,
            files=files[name],
            sources=settings.template_sources,
        )
        every[name] = fingerprint(inputs)
    return every
