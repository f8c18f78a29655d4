"""Give a guest's apt the packages that an earlier build has fetched, and hand on what it fetched.

A part of the agent, which runs by itself. What is given stands where apt looks for what it began to
download. It takes a file there only if that has the hash in its own signed lists, and else
downloads it anew (apt's methods/basehttp.cc, Fetch): whoever filled the cache, no guest gets a
wrong byte of it. In ``archives`` itself apt would go by the size.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lago_images.building.customise.namespace.guest_root import (
    SYSROOT,
    CommandFailedError,
    UnsupportedError,
    is_plain,
    outside_real,
)

# The host's folders: with what is given, which is only read, and for what is handed on.
GIVEN, FETCHED = "/given", "/fetched"
ARCHIVES = "/var/cache/apt/archives"
# Of one image: the host takes no more.
MOST_FILES = 2000
MOST_BYTES = 512 * 2**20
_FAILED = ".FAILED"
_PIECE = 2**20


class SpoiledError(Exception):
    """A package that was given has made apt fail."""


@contextmanager
def given() -> Iterator[None]:
    """Give packages for the block, a command; then hand on what apt has left in its folder.

    Nothing of them is there before or after, also not by the time of a folder.

    Raises:
        SpoiledError: apt took one for the begin of another, which is longer and for which the
            server tells the same time.
    """
    folder = apts("partial")
    put = give(folder) if folder and os.listdir(GIVEN) else {}
    try:
        yield
    finally:
        take_back(folder, put)
    # So apt calls what it had gone on to download, and has another hash than the lists say.
    if spoiled := [name for name in put if os.path.lexists(f"{folder}/{name}{_FAILED}")]:
        raise SpoiledError(spoiled[0])
    if folder := apts(""):
        hand_on(folder)


def apts(name: str) -> str:
    """Return a folder below apt's of archives, outside of the guest's root; empty without one."""
    try:
        folder = outside_real(f"{ARCHIVES}/{name}".rstrip("/"))
    except (OSError, UnsupportedError, CommandFailedError):
        return ""
    return folder if is_plain(folder, stat.S_ISDIR) else ""


def give(folder: str) -> dict[str, tuple[int, int, int]]:
    """Put packages into a folder, but those that apt has; returns the identity of each."""
    put = {}
    with same_time(folder):
        for name in os.listdir(GIVEN):
            path = f"{folder}/{name}"
            taken = (path, f"{path}{_FAILED}", f"{SYSROOT}{ARCHIVES}/{name}")
            with suppress(OSError):
                if not any(map(os.path.lexists, taken)):
                    copy(f"{GIVEN}/{name}", path)
                    put[name] = identity(path)
    return put


def take_back(folder: str, put: dict[str, tuple[int, int, int]]) -> None:
    """Remove what was put into a folder and is still there."""
    left = []
    for name, known in put.items():
        with suppress(OSError):
            if identity(f"{folder}/{name}") == known:
                left.append(name)
    if left:
        with suppress(OSError), same_time(folder):
            for name in left:
                os.unlink(f"{folder}/{name}")


def hand_on(folder: str) -> None:
    """Copy packages from a folder to the host's, but those that are there."""
    left = MOST_BYTES - sum(os.lstat(f"{FETCHED}/{name}").st_size for name in os.listdir(FETCHED))
    names = sorted(name for name in os.listdir(folder) if name.endswith(".deb"))
    for name in names[:MOST_FILES]:
        with suppress(OSError):
            status = os.lstat(f"{folder}/{name}")
            if stat.S_ISREG(status.st_mode) and status.st_size <= left:
                copy(f"{folder}/{name}", f"{FETCHED}/{name}")
                left -= status.st_size


def copy(path: str, new: str) -> None:
    """Copy a file with its time; raises ``OSError``, also where there is another."""
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(source)
        target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(target, "wb") as file:
            left = status.st_size
            while piece := os.read(source, min(_PIECE, left)):
                file.write(piece)
                left -= len(piece)
            # Whatever the umask: the host's user reads it as another.
            os.fchmod(target, 0o644)
        os.utime(new, ns=(status.st_mtime_ns, status.st_mtime_ns))
    except FileExistsError:
        raise
    except OSError:
        os.unlink(new)
        raise
    finally:
        os.close(source)


def identity(path: str) -> tuple[int, int, int]:
    """Return what tells a file from a later one of its name, which may have its inode again."""
    status = os.lstat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def same_time(folder: str) -> Iterator[None]:
    """Give a folder back, after the block, the time that it had before."""
    status = os.lstat(folder)
    try:
        yield
    finally:
        os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
