"""Find the host files that specs read, and those that are not what they stand for."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from lago_images.errors import Problem, SpecError
from lago_images.specs.commands import COMMANDS, Reads
from lago_images.specs.host_folder import ForbiddenPathError, HostFolder, normal, why
from lago_images.specs.model import BaseKind, Operation, Spec
from lago_images.specs.names import shown

# The commands that read something, looked up once.
_READING = {name: c.reads for name, c in COMMANDS.items() if c.reads is not Reads.NOTHING}
# What may stand before file: in a password's selector, any number of times (mlcustomize
# password.ml).
_LOCKED = ("lock:", "locked:")
# How a pointer of Git LFS begins, and what it stays below (git-lfs, docs/spec.md).
_POINTER = b"version https://git-lfs.github.com/spec/v1"
LONGEST_POINTER = 1024
# The whole of a pointer without extensions, which change the content that it names.
_PLAIN_POINTER = re.compile(
    _POINTER.replace(b".", rb"\.") + rb"\noid sha256:([0-9a-f]{64})\nsize [0-9]+\n"
)
# How a file begins that git-crypt has encrypted (git-crypt, commands.cpp).
_LOCKED_HEADER = b"\0GITCRYPT\0"


class HostPath(NamedTuple):
    """A host path as a spec writes it; ``tree`` is true where it may be a folder.

    ``line`` is None where no line of the spec names it: of a test.
    """

    path: str
    line: int | None
    tree: bool


def host_files(spec: Spec) -> tuple[str, ...]:
    """Return the host paths that a spec's build reads, sorted, relative to the repository's root.

    They may be folders, then with all that is in them. Its own tests are among them, the spec
    itself is not.
    """
    tests = {test.path for test in spec.own_tests}
    return tuple(sorted({normal(host.path) for host in host_paths(spec)} | tests))


def host_paths(spec: Spec) -> Iterator[HostPath]:
    """Yield every host path of a spec, as written and where."""
    if spec.base.kind is BaseKind.SIMPLE and "://" not in spec.base.name:
        yield HostPath(spec.base.name, spec.base.line, tree=False)
    if key := spec.properties.get("base-key"):
        yield HostPath(key, spec.lines.get("base-key", spec.base.line), tree=False)
    for operation in spec.operations:
        reads = _READING.get(operation.name)
        if reads is not None:
            path = _path(operation, reads)
            if path is not None:
                yield HostPath(path, operation.line, tree=reads is Reads.TREE_TO)


def unlocked(selector: str) -> str:
    """Return a selector without the ``locked:`` that may stand before it."""
    while selector.startswith(_LOCKED):
        selector = selector.partition(":")[2]
    return selector


def _path(operation: Operation, reads: Reads) -> str | None:
    argument = operation.argument
    match reads:
        case Reads.FILE:
            return argument
        case Reads.FILE_TO | Reads.TREE_TO:
            return argument.partition(":")[0]
        case Reads.USER_SELECTOR:
            return _of_selector(argument.partition(":")[2])
        case _:
            return _of_selector(argument)


def _of_selector(selector: str) -> str | None:
    selector = unlocked(selector)
    return selector.removeprefix("file:") if selector.startswith("file:") else None


def check_files(spec: Spec, folder: HostFolder) -> list[Problem]:
    """Return what is wrong with the host paths of a spec."""
    return [
        Problem(spec.path, host.line, f"host path {shown(host.path)} {message}")
        for host in host_paths(spec)
        if (message := _written(host.path) or _resolved(host, folder))
    ]


def _written(path: str) -> str | None:
    """Return what is wrong with a path as it is written."""
    parts = path.split("/")
    if path.startswith(("/", "~")):
        return "must be relative to the root of the repository"
    if ".." in parts:
        return "goes up with .., which could leave the repository"
    if ".git" in parts:
        return "reads git's own files, which may hold credentials"
    if any(part.startswith("-") for part in parts):
        # libguestfs hands the last part to tar, which takes a leading dash for an option.
        return "has a part that starts with a dash, like an option"
    return (
        "is empty or has a newline or tab in it" if not path or re.search("[\n\t]", path) else None
    )


def _resolved(host: HostPath, folder: HostFolder) -> str | None:
    """Return what is wrong with what a path leads to."""
    try:
        folder.resolve(host.path, tree=host.tree)
    except ForbiddenPathError as error:
        return str(error)
    except FileNotFoundError:
        # A submodule need not be checked out for a plan; a build refuses it then.
        if folder.is_in_submodule(host.path):
            return None
        return "is missing (paths start at the root of the repository)"
    except OSError as error:
        return f"cannot be read: {why(error)}"
    return None


def refuse_pointers(spec: Spec, root: Path) -> None:
    """Refuse host files whose content is not in the work tree.

    They are pointers of Git LFS, and files that git-crypt has not unlocked. A path that is not to
    be read is left to who reads it.

    Raises:
        SpecError: With every host path that is, or has in it, such a file.
    """
    folder = HostFolder(root)
    problems, hints = [], set()
    tests = (HostPath(test.path, None, tree=False) for test in spec.tests)
    for host in chain(host_paths(spec), tests):
        stand_ins = sorted(_stand_ins(host, folder))
        for kind in _STAND_INS:
            paths = [path for path, of in stand_ins if of is kind]
            if not paths:
                continue
            if paths == ["."]:
                message = f"is only a {kind.name} here, not the file"
            else:
                first = f"{normal(host.path)}/{paths[0]}"
                more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
                message = f"has only a {kind.name} for {first!a}{more}, not the file"
            problems.append(Problem(spec.path, host.line, f"host path {host.path!a} {message}"))
            hints.add(kind.hint)
    if problems:
        raise SpecError(problems, hint="; ".join(sorted(hints)))


class _StandIn(NamedTuple):
    """A kind of file that stands for another, and what brings that."""

    name: str
    hint: str


_LFS = _StandIn("Git LFS pointer", "git lfs pull; in CI, check out with lfs")
_CRYPT = _StandIn("file locked by git-crypt", "git-crypt unlock")
_STAND_INS = (_LFS, _CRYPT)


def is_locked(first: bytes) -> bool:
    """Return whether a file that begins with ``first`` is one that git-crypt has encrypted."""
    return first.startswith(_LOCKED_HEADER)


def pointed_to(content: bytes) -> str:
    """Return the SHA-256 of the content that a pointer of Git LFS names; empty if it is none."""
    match = _PLAIN_POINTER.fullmatch(content)
    return match[1].decode() if match else ""


def _stand_ins(host: HostPath, folder: HostFolder) -> Iterator[tuple[str, _StandIn]]:
    """Yield the stand-ins among the files that are read, each by its path below the host path."""
    try:
        real = folder.resolve(host.path, tree=host.tree)
    except (OSError, ForbiddenPathError):
        return
    if kind := _stand_in(Path(real)):
        yield ".", kind
    for directory, _, names in os.walk(real) if host.tree else ():
        for path in (Path(directory, name) for name in names):
            if kind := _stand_in(path):
                yield path.relative_to(real).as_posix(), kind


def _stand_in(path: Path) -> _StandIn | None:
    with suppress(OSError):
        facts = path.lstat()
        if stat.S_ISREG(facts.st_mode):
            with path.open("rb") as file:
                first = file.read(len(_POINTER))
            if is_locked(first):
                return _CRYPT
            if first == _POINTER and facts.st_size < LONGEST_POINTER:
                return _LFS
    return None
