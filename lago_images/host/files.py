"""Replace files, and make folders, where other processes and users write, too.

Of a folder it can be known that its owner is dead: beside it lies a file that the owner holds a
lock on. Whoever gets that lock knows, and may remove both.
"""

import errno
import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LOCK = ".lock"


def replace(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; a link that is in its place is replaced, not followed.

    The folder is made if needed. Raises ``OSError``, which names this file; also where what is
    there is not ``is_replaceable``.
    """
    # In the same folder, because only there a rename is one step; with a name that nobody else has
    # and no file system finds too long.
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    if not is_replaceable(path):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as file:
            file.write(data)
        beside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def is_replaceable(path: Path) -> bool:
    """Return whether there is a regular file, or a link to one, or nothing."""
    try:
        status = path.stat()
    except OSError:
        return True
    # /dev/stdout leads to a regular file where the shell sends the output to one.
    is_stream = path.is_symlink() and path.readlink().is_relative_to("/proc")
    return stat.S_ISREG(status.st_mode) and not is_stream


def locked(parent: Path, prefix: str) -> tuple[Path, Path, int]:
    """Make a name for a new folder, its lock file, and the file descriptor that holds the lock.

    Raises:
        OSError: Nothing can be made in ``parent``.
    """
    # flock, not fcntl: the lock goes with the process, and closing another descriptor of the file
    # in this process does not give it up.
    while True:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=_LOCK, dir=parent)
        lock = Path(name)
        # Another run may have taken the file for a leftover before it was locked.
        if _lock(handle) and _same(handle, lock):
            return lock.with_suffix(""), lock, handle
        os.close(handle)


def abandoned(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield this user's folders whose owners are dead, for the caller to remove; locks go too."""
    for lock in sorted(parent.glob(f"{prefix}*{_LOCK}")):
        handle = _abandoned(lock)
        if handle is None:
            continue
        folder = lock.with_suffix("")
        try:
            if _is_ours(folder):
                yield folder
            lock.unlink(missing_ok=True)
        finally:
            os.close(handle)


def _abandoned(lock: Path) -> int | None:
    """Return the file descriptor of a lock file of ours that nobody holds."""
    try:
        # In /tmp others may have put a link, or a file of theirs, under such a name.
        handle = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(handle)
    ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    if ours and _lock(handle) and _same(handle, lock):
        return handle
    os.close(handle)
    return None


def _is_ours(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
