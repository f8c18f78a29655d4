"""Reads the specs and what their builds depend on, once."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePosixPath

from lago_images.errors import Problem, SpecError
from lago_images.planning.chains import in_order
from lago_images.planning.digests import Files
from lago_images.planning.fingerprint import File, fingerprint, parts
from lago_images.planning.git import Git
from lago_images.planning.model import Tree
from lago_images.settings import Settings
from lago_images.specs.host_files import host_files
from lago_images.specs.model import BaseKind, Spec
from lago_images.specs.read import is_spec_name, read


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
    files, ways = _files(root, settings, specs, inputs, git)
    found = _digests(specs, inputs, files)
    return Tree(
        specs=specs,
        fingerprints=_fingerprints(specs, found, settings),
        inputs=inputs,
        ways=ways,
        dirty=frozenset({*_uncommitted(specs, ways, files, settings), *files.dirty}),
    )


def _files(
    root: Path,
    settings: Settings,
    specs: Mapping[str, Spec],
    inputs: Mapping[str, tuple[str, ...]],
    git: Git | None,
) -> tuple[Files, Mapping[str, tuple[str, ...]]]:
    """The files as git knows them, also those that links lead to; and where the links lead."""
    if git is None:
        return Files(root=root), {}
    first = prefixes(settings.specs, inputs.values())
    files = Files(root=root, git=git.snapshot(first))
    ways = _ways([*inputs.values(), [spec.path for spec in specs.values()]], files)
    every = prefixes(settings.specs, [*inputs.values(), *ways.values()])
    if every != first:
        files = Files(root=root, git=git.snapshot(every))
    return files, ways


def _ways(paths: Iterable[Iterable[str]], files: Files) -> Mapping[str, tuple[str, ...]]:
    """By path, where links lead; those that cannot be read are told when they are hashed."""
    found = {}
    for path in chain.from_iterable(paths):
        with suppress(OSError, ValueError):
            way = files.way(path)
            if way != (path,):
                found[path] = way
    return found


def _uncommitted(
    specs: Mapping[str, Spec],
    ways: Mapping[str, tuple[str, ...]],
    files: Files,
    settings: Settings,
) -> Iterator[str]:
    """The specs, there and removed, and the links on any way that are not as in git's head."""
    if files.git is None:
        return
    links = (path for way in ways.values() for path in way[:-1])
    read_at_last = (ways.get(spec.path, (spec.path,))[-1] for spec in specs.values())
    yield from (path for path in chain(links, read_at_last) if not files.is_committed(path))
    folder = files.way(settings.specs)[-1]
    yield from (path for path in files.git.dirty if _is_spec(path, folder))


def prefixes(folder: str, inputs: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Few paths that cover the specs' folder and all inputs, for git to look at."""
    tops = {PurePosixPath(path).parts[:1] for paths in inputs for path in paths}
    found = {folder, *("/".join(top) or "." for top in tops)}
    return (".",) if "." in found or len(found) > _MOST else tuple(sorted(found))


def _is_spec(path: str, specs: str) -> bool:
    folder, _, name = path.rpartition("/")
    return (folder or ".") == specs and is_spec_name(name)


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
