"""Find the host files that specs read, and keep to the rule of which may be read at all.

Specs, settings and the files that they name are written by whoever may propose a change, and what
is read of them ends in images and in messages. ``HostFolder`` keeps all of it inside the repository
and away from git's own files, which may hold credentials.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from lago_images.errors import Problem, SpecError
from lago_images.specs.commands import COMMANDS, Reads
from lago_images.specs.model import BaseKind, Operation, Spec
from lago_images.specs.names import shown

# The commands that read something, looked up once.
_READING = {name: c.reads for name, c in COMMANDS.items() if c.reads is not Reads.NOTHING}
# What may stand before file: in a password's selector, any number of times (mlcustomize
# password.ml).
_LOCKED = ("lock:", "locked:")
_SUBMODULE = re.compile(r"^\s*path\s*=\s*(.*\S)\s*$", re.MULTILINE)
# A link is not followed unseen, and a pipe does not wait for who writes to it.
OPEN_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# How a pointer of Git LFS begins, and what it stays below (git-lfs, docs/spec.md).
_POINTER = b"version https://git-lfs.github.com/spec/v1"
LONGEST_POINTER = 1024
# The whole of a pointer without extensions, which change the content that it names.
_PLAIN_POINTER = re.compile(
    _POINTER.replace(b".", rb"\.") + rb"\noid sha256:([0-9a-f]{64})\nsize [0-9]+\n"
)
# How a file begins that git-crypt has encrypted (git-crypt, commands.cpp).
_LOCKED_HEADER = b"\0GITCRYPT\0"


class ForbiddenPathError(ValueError):
    """A path that is not to be read; the text says why, to be put after the path."""


class TooLargeError(ForbiddenPathError):
    """A file that has more bytes than are read of such."""


class HostPath(NamedTuple):
    """A host path as a spec writes it; ``tree`` is true where it may be a folder.

    ``line`` is None where no line of the spec names it: of a test.
    """

    path: str
    line: int | None
    tree: bool


class PlainFile(NamedTuple):
    """A regular file: its mode, as stat(2) has it, and its content."""

    mode: int
    data: bytes


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


def normal(path: str) -> str:
    """Return a path without empty and ``.`` parts; ``..`` stays, and ``.`` is the root itself."""
    return "/".join(part for part in path.split("/") if part not in {"", "."}) or "."


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


class HostFolder:
    """A folder of the host, such as the repository's root, that no path may lead out of.

    Each folder on the way is resolved once: make one for one reading of the files.
    """

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self._real: dict[str, str] = {}

    def resolve(self, path: str, *, tree: bool = False) -> str:
        """Return where a path below the folder leads to, without symbolic links.

        It is a regular file, or with ``tree`` a folder, inside this folder and not git's own:
        never a pipe or device, nor the folder itself, which has git's files in it.

        Raises:
            OSError: As the system does, also for a loop of links.
            ForbiddenPathError: It leads to something that is not to be read.
        """
        real, mode = self._follow(path)
        if why_not := refusal(real, self.root):
            raise ForbiddenPathError(why_not)
        if real == self.root:
            raise ForbiddenPathError("takes git's own files along, which may hold credentials")
        if not (stat.S_ISREG(mode) or (tree and stat.S_ISDIR(mode))):
            raise ForbiddenPathError(f"is not a {'file or folder' if tree else 'regular file'}")
        return real

    def open(self, real: str) -> int:
        """Open what ``resolve`` returned, a file or folder; returns a file descriptor.

        No part of the path is followed as a link: what was put in its place since then cannot
        lead out of the folder.

        Raises:
            OSError: As the system does, also where a part of the path is a link by now.
        """
        *folders, name = real[len(self.root) :].strip("/").split("/")
        folder = os.open(self.root, OPEN_PLAIN | os.O_DIRECTORY)
        try:
            for part in folders:
                below = os.open(part, OPEN_PLAIN | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = below
            return os.open(name or ".", OPEN_PLAIN, dir_fd=folder)
        finally:
            os.close(folder)

    def read(self, path: str, *, most: int) -> bytes:
        """Return the content of a file; raises as ``resolve``, also if it has over ``most`` bytes.

        Raises:
            OSError: As the system does.
            ForbiddenPathError: It is not to be read, or too large.
        """
        return self.read_file(path, most=most).data

    def read_file(self, path: str, *, most: int) -> PlainFile:
        """Return what ``read`` returns, with the file's mode."""
        descriptor = self.open(self.resolve(path))
        try:
            return read_plain(descriptor, most)
        finally:
            os.close(descriptor)

    def _follow(self, path: str) -> tuple[str, int]:
        folder, _, name = path.rpartition("/")
        if folder not in self._real:
            self._real[folder] = os.path.realpath(f"{self.root}/{folder}", strict=True)
        real = f"{self._real[folder].rstrip('/')}/{name}"
        mode = os.lstat(real).st_mode
        if name in {"", ".", ".."} or stat.S_ISLNK(mode):
            real = os.path.realpath(real, strict=True)
            mode = os.lstat(real).st_mode
        return real, mode

    def is_in_submodule(self, path: str) -> bool:
        """Return whether a path is in a folder of a submodule, as ``.gitmodules`` names them."""
        return any(f"{normal(path)}/".startswith(f"{top}/") for top in self._submodules)

    @cached_property
    def _submodules(self) -> tuple[str, ...]:
        try:
            text = self.read(".gitmodules", most=1 << 20).decode()
        except (OSError, ForbiddenPathError, UnicodeDecodeError):
            return ()
        return tuple(_SUBMODULE.findall(text))


def read_plain(descriptor: int, most: int) -> PlainFile:
    """Return an open file, which must be a regular one of at most ``most`` bytes.

    Raises:
        OSError: As the system does.
        ForbiddenPathError: It is something else, or larger.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ForbiddenPathError("is not a regular file")
    if status.st_size > most:
        raise TooLargeError(f"has {status.st_size} bytes, more than {most}")
    # No larger a buffer than it takes: for 10,000 specs that saves a fifth of a second.
    return PlainFile(status.st_mode, os.read(descriptor, status.st_size))


def is_inside(real: str, root: str) -> bool:
    """Return whether a path is ``root`` or lies in it, both being resolved."""
    return real == root or real.startswith(f"{root.rstrip('/')}/")


def refusal(real: str, root: str) -> str | None:
    """Return why a path, resolved as ``root`` is, must not be read, if so."""
    if not is_inside(real, root):
        return "leads out of the repository"
    if ".git" in real[len(root) :].split("/"):
        return "leads to git's own files, which may hold credentials"
    return None


def why(error: OSError) -> str:
    """Return what the system said, without a path of this machine."""
    if error.errno == errno.ELOOP:
        return "a loop of links"
    return error.strerror or type(error).__name__


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
