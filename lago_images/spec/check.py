"""What is wrong between specs, and with the files they use."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from lago_images.errors import Problem
from lago_images.spec.files import Folders, check_files
from lago_images.spec.model import BaseKind, Spec
from lago_images.spec.names import NAME, suggestion
from lago_images.spec.properties import words


def check(specs: Iterable[Spec], root: Path, *, broken: Collection[str] = ()) -> list[Problem]:
    """Every problem between specs, and with the host files they read.

    Args:
        specs: All specs of a folder.
        root: The root of the repository, that host paths are relative to.
        broken: Names of specs that are there and could not be understood: a layer on one of them
            is no further problem.
    """
    by_name = {spec.name: spec for spec in specs}
    folders = Folders(root)
    problems = [*_names(by_name, broken), *_aliases(by_name)]
    for spec in by_name.values():
        if spec.base.kind is BaseKind.LAYER:
            problems += _layer(spec, by_name, broken)
        problems += check_files(spec, folders)
    return [*problems, *_cycles(by_name)]


def _names(specs: Mapping[str, Spec], broken: Collection[str]) -> Iterator[Problem]:
    """Names that some file systems and people take for one another."""
    first: dict[str, str] = {}
    for name in sorted({*specs, *broken}):
        other = first.setdefault(name.casefold(), name)
        if other != name and name in specs:
            yield Problem(specs[name].path, None, f"the name differs from {other!r} only in case")


def _aliases(specs: Mapping[str, Spec]) -> Iterator[Problem]:
    """Aliases that two images claim."""
    owners = {(spec.arch, name): name for name, spec in specs.items()}
    for name, spec in sorted(specs.items()):
        if "aliases" not in spec.properties:
            continue
        for alias in words(spec.properties["aliases"]):
            owner = owners.setdefault((spec.arch, alias), name)
            if owner != name:
                line = spec.lines["aliases"]
                yield Problem(spec.path, line, f"the alias {alias!r} means {owner!r} already")


def _layer(spec: Spec, specs: Mapping[str, Spec], broken: Collection[str]) -> Iterator[Problem]:
    base = specs.get(spec.base.name)
    line = spec.base.line
    if base is None:
        if spec.base.name not in broken and NAME.fullmatch(spec.base.name):
            near = suggestion(spec.base.name, [n for n in {*specs, *broken} if n != spec.name])
            yield Problem(spec.path, line, f"there is no spec {spec.base.name!r}{near}")
    elif base.arch != spec.arch:
        what = f"arch is {spec.arch}, but the base {base.name!r} has {base.arch}"
        yield Problem(spec.path, spec.lines.get("arch", line), what)


def _cycles(specs: Mapping[str, Spec]) -> Iterator[Problem]:
    """Each cycle of layers once, told at its first spec by name."""
    done: set[str] = set()
    for start in sorted(specs):
        trail: dict[str, None] = {}
        name: str | None = start
        while name is not None and name not in done and name not in trail:
            trail[name] = None
            name = _below(specs[name], specs)
        done.update(trail)
        if name in trail:
            cycle = list(trail)[list(trail).index(name) :]
            first = specs[name]
            what = "a cycle of layers: " + " -> ".join([*cycle, name])
            yield Problem(first.path, first.base.line, what)


def _below(spec: Spec, specs: Mapping[str, Spec]) -> str | None:
    base = spec.base
    return base.name if base.kind is BaseKind.LAYER and base.name in specs else None
