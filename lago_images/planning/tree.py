"""Read the specs and what their builds depend on, once."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePosixPath

from lago_images.errors import Problem, SpecError
from lago_images.planning.chains import in_order
from lago_images.planning.delivery import compare
from lago_images.planning.digests import Files
from lago_images.planning.fingerprint import File, Source, fingerprint, parts
from lago_images.planning.git import Git
from lago_images.planning.model import Tree
from lago_images.settings import FILE, Settings
from lago_images.specs.folder import (
    QUARANTINE,
    is_left_out,
    is_spec_name,
    is_test_name,
    test_places,
)
from lago_images.specs.host_files import host_files
from lago_images.specs.host_folder import normal
from lago_images.specs.model import BaseKind, Spec
from lago_images.specs.read import read_all

# More than these make git slower than looking at everything.
_MOST = 100


def read_tree(root: Path, settings: Settings, git: Git | None = None) -> Tree:
    """Read the specs below ``root``, with the fingerprint of each.

    Args:
        root: The folder that paths in specs start at.
        settings: For the specs' folder and the sources of templates.
        git: The repository that ``root`` is in: it says what is not committed.

    Raises:
        SpecError: With every problem of every spec, also of files that are not in the work tree,
            or are there otherwise than in other clones of the commit.
    """
    inspected = read_all(root, settings.specs)
    specs, read = inspected.specs, inspected.read
    reads = {name: host_files(spec) for name, spec in specs.items()}
    inputs = {name: (*paths, *_keys(specs[name], settings)) for name, paths in reads.items()}
    files, ways = _files(root, settings, specs, inputs, git)
    sources = _sources(settings, files) if any(map(_is_template, specs.values())) else ()
    digests = _digests(specs, reads, files)
    if git is not None:
        for name, spec in specs.items():
            files.look_at(ways.get(spec.path, (spec.path,))[-1], read[name])
        _refuse_other_bytes(git, files)
    return Tree(
        specs=specs,
        fingerprints=_fingerprints(specs, digests, sources),
        inputs=inputs,
        ways=ways,
        dirty=frozenset({*_uncommitted(specs, ways, files, settings), *files.dirty}),
        quarantine=inspected.quarantine,
        also=frozenset(settings.publish_also),
    )


def _is_template(spec: Spec) -> bool:
    return spec.base.kind is BaseKind.LIBGUESTFS


def _keys(spec: Spec, settings: Settings) -> Iterator[str]:
    """Yield the key files that a spec's template is checked with."""
    if _is_template(spec):
        yield from (normal(source.key) for source in settings.template_sources if source.key)


def _files(
    root: Path,
    settings: Settings,
    specs: Mapping[str, Spec],
    inputs: Mapping[str, tuple[str, ...]],
    git: Git | None,
) -> tuple[Files, Mapping[str, tuple[str, ...]]]:
    """Return the files, with what git knows also of those that links lead to; and these ways."""
    if git is None:
        return Files(root=root), {}
    first = prefixes(settings.specs, inputs.values())
    files = Files(root=root, git=git.snapshot(first))
    tested = (test_places(spec.path) for spec in specs.values() if spec.own_tests)
    read = [*(spec.path for spec in specs.values()), _quarantine(settings)]
    ways = _ways([*inputs.values(), read, *tested], files)
    # Git knows a link and not what is behind it: that has to be asked about by its own path.
    every = prefixes(settings.specs, [*inputs.values(), *ways.values()])
    if every != first:
        files = Files(root=root, git=git.snapshot(every))
    return files, ways


def _quarantine(settings: Settings) -> str:
    return normal(f"{settings.specs}/{QUARANTINE}")


def _ways(paths: Iterable[Iterable[str]], files: Files) -> Mapping[str, tuple[str, ...]]:
    """Return, by path, where links lead; what cannot be read is named when it is hashed."""
    ways = {}
    for path in chain.from_iterable(paths):
        with suppress(OSError, ValueError):
            way = files.way(path)
            if way != (path,):
                ways[path] = way
    return ways


def _uncommitted(
    specs: Mapping[str, Spec],
    ways: Mapping[str, tuple[str, ...]],
    files: Files,
    settings: Settings,
) -> Iterator[str]:
    """Yield the specs, present and removed, and the links that are not as in git's head."""
    if files.git is None:
        return
    links = (path for way in ways.values() for path in way[:-1])
    read = [spec.path for spec in specs.values()]
    if (files.root / _quarantine(settings)).is_file():
        read.append(_quarantine(settings))
    read_at_last = (ways.get(path, (path,))[-1] for path in read)
    yield from (path for path in chain(links, read_at_last) if not files.is_committed(path))
    folder = files.way(settings.specs)[-1]
    # A removed spec or test is in no way of a spec's: git's list has it.
    for path in files.git.dirty:
        parent, _, name = path.rpartition("/")
        if (parent or ".") == folder and _is_judged_by(name):
            yield path
        above, _, tests = parent.rpartition("/")
        if (above or ".") == folder and is_test_name(tests) and not is_left_out(name):
            yield path
    if any(map(_is_template, specs.values())):
        yield from files.git.dirty & {FILE}


def prefixes(folder: str, inputs: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Return few paths that cover the specs' folder, the settings and all inputs, for git."""
    tops = {PurePosixPath(path).parts[:1] for paths in inputs for path in paths}
    every = {folder, FILE, *("/".join(top) or "." for top in tops)}
    return (".",) if "." in every or len(every) > _MOST else tuple(sorted(every))


def _is_judged_by(name: str) -> bool:
    return is_spec_name(name) or is_test_name(name) or name == QUARANTINE


def _digests(
    specs: Mapping[str, Spec], inputs: Mapping[str, tuple[str, ...]], files: Files
) -> Mapping[str, list[File]]:
    problems = []
    digests: dict[str, list[File]] = {}
    for name, paths in inputs.items():
        digests[name] = []
        for path in paths:
            try:
                digests[name] += [(path, *digest) for digest in files.digests(path)]
            except (OSError, ValueError) as error:
                problems.append(_unreadable(specs[name].path, path, error))
    if problems:
        raise SpecError(problems)
    return digests


def _sources(settings: Settings, files: Files) -> tuple[Source, ...]:
    """Return the template sources, each with the digest of the key file that it names."""
    sources, problems = [], []
    for source in settings.template_sources:
        digest = ""
        if source.key:
            try:
                digest = " ".join(each for *_, each in files.digests(normal(source.key)))
            except (OSError, ValueError) as error:
                problems.append(_unreadable(FILE, source.key, error))
        sources.append((source.url, source.fingerprint, digest))
    if problems:
        raise SpecError(problems)
    return tuple(sources)


def _unreadable(where: str, path: str, error: OSError | ValueError) -> Problem:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return Problem(where, None, f"cannot read {path}: {why}")


def _refuse_other_bytes(git: Git, files: Files) -> None:
    """Refuse files that another clone of the commit would have otherwise.

    Those that the commit does not have are noted as dirty. Raises ``SpecError``.
    """
    head = git.head()
    if head is None:
        return
    unchanged = {f"{git.prefix}{path}": here for path, here in files.unchanged.items()}
    compared = compare(git.top, head, unchanged)
    files.dirty |= {path.removeprefix(git.prefix) for path in compared.unknown}
    if not compared.differences:
        return
    problems = [
        Problem(
            f"{each.module}{each.path}".removeprefix(git.prefix),
            None,
            f"is not what a new clone of commit {head[:7]} has: {each.why}",
        )
        for each in compared.differences
    ]
    more = "; and the others likewise" if compared.differences[1:] else ""
    raise SpecError(problems, hint=compared.differences[0].commands(git.prefix) + more)


def _fingerprints(
    specs: Mapping[str, Spec], files: Mapping[str, list[File]], sources: tuple[Source, ...]
) -> Mapping[str, str]:
    every: dict[str, str] = {}
    for name in in_order(specs):
        spec = specs[name]
        layer = spec.base.kind is BaseKind.LAYER
        inputs = parts(
            spec,
            base=every[spec.base.name] if layer else None,
            files=files[name],
            sources=sources,
        )
        every[name] = fingerprint(inputs)
    return every
