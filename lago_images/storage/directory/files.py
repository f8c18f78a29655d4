"""Write files and folders so that what has a name is on the disk.

And find the path of a key, which cannot leave the directory.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from lago_images.console import Advance
from lago_images.errors import ConflictError, StorageError
from lago_images.storage.base import check_key

CHUNK = 1024 * 1024
_HINTS = {
    errno.EACCES: "give this user the right to use it, or choose another --repository",
    errno.EPERM: "give this user the right to use it, or choose another --repository",
    errno.EROFS: "the file system is mounted read-only",
    errno.ENOSPC: "free some space: lago-images repo gc shows what can go",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.ENOTDIR: "a file is in the way of a folder: remove it",
    errno.ENAMETOOLONG: "the file system allows no name this long",
    errno.EXDEV: "a directory repository is one file system: let nothing be mounted below it",
    errno.ENOLCK: "the file system has no locks: use another one",
}
# <linux/fs.h>: the whole of a file, on Btrfs, XFS, bcachefs and the like.
_FICLONE = 0x40049409
_NO_CLONES = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM}
)
_SPAN = 2**30
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def failed(doing: str, error: OSError) -> StorageError:
    """Return the error for what the operating system refused."""
    hint = _HINTS.get(error.errno or 0)
    return StorageError(f"{doing}: {error.strerror or error}", hint=hint)


def status_of(path: Path) -> os.stat_result | None:
    """Return the status of a regular file; None if it is missing."""
    try:
        status = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    # A bucket can have both a/b and a/b/c; a directory cannot.
    if not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return status


def pieces(fd: int, start: int) -> Iterator[bytes]:
    """Read an open file from ``start`` on."""
    # Not read(2): a file that is being written is read back by the same descriptor.
    while chunk := os.pread(fd, CHUNK, start):
        yield chunk
        start += len(chunk)


def write(fd: int, data: bytes) -> None:
    """Write all of it: the system may take less at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def clone(source: int, target: int) -> None:
    """Fill an empty file with another's bytes: shared where the file system can, else copied.

    A later write to one of them does not change the other, as it would with a hard link.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_CLONES:
            raise
    else:
        return
    # In the kernel, and on NFS 4.2 and CIFS in the server, without the bytes coming here.
    try:
        while os.copy_file_range(source, target, _SPAN):
            pass
    except OSError as error:
        if error.errno not in _NO_CLONES:
            raise
    # Some file systems have neither, and some kernels end such a copy early.
    for piece in pieces(source, os.fstat(target).st_size):
        write(target, piece)


def save(chunks: Iterable[bytes], path: Path, advance: Advance | None) -> None:
    """Write a file of the user's; raises ``StorageError`` when it cannot be written."""
    try:
        with path.open("wb", buffering=0) as file:
            for chunk in chunks:
                write(file.fileno(), chunk)
                if advance:
                    advance(len(chunk))
    except OSError as error:
        raise failed(f"writing {path}", error) from error


def link(temporary: Path, target: Path) -> None:
    """Name a file that must be new; a program that is not ours may not know the lock.

    Raises:
        ConflictError: It is not.
    """
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise ConflictError(f"writing {target}: it exists already") from error
    except OSError as error:
        # FAT and some network file systems have no hard links. Then only the lock that the caller
        # holds keeps two writers apart.
        if error.errno not in _NO_LINKS:
            raise
        temporary.rename(target)


def sync_folder(folder: Path) -> None:
    """Put a folder's list of names on the disk."""
    # fsync(2): flushing a file does not flush the name it has in its folder.
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, on the disk."""
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)


def prune(folder: Path, root: Path) -> None:
    """Remove a folder below ``root`` if it is empty, and then those above it."""
    # rmdir(2) refuses a folder that somebody has put something into meanwhile.
    with suppress(OSError):
        while folder != root:
            folder.rmdir()
            folder = folder.parent


# The store's own files; hidden, so that neither a listing nor a web server shows them.
PRIVATE = ".lago-images"
_HIDDEN = f"{PRIVATE}/"
# Where a repository's objects are; beside them a user may keep what they like, links too.
_OURS = ("builds/", "images/", "releases/", "state/")
_LINK_HINT = "put what the link points to in its place; a repository as a whole may be behind one"


def place(root: Path, key: str) -> Path:
    """Return the path of a key.

    Raises:
        StorageError: The key cannot be a path below ``root``, or a symbolic link is in the way.
    """
    check(key)
    path = root / key
    # The root itself may be a link, or behind one: that is how its user named it.
    if os.path.realpath(path) != os.path.join(os.path.realpath(root), key):  # noqa: PTH118
        raise StorageError(f"{path} is, or is behind, a symbolic link", hint=_LINK_HINT)
    return path


def check(key: str) -> None:
    """Raise ``StorageError`` for what is no key, or is the store's own."""
    check_key(key)
    if key.split("/", maxsplit=1)[0] == PRIVATE:
        raise StorageError(f"{key!r} cannot be a key in a directory")


# A key, and the folder's path or the entry of what is no folder.
_Child = tuple[str, str | os.DirEntry[str]]


def walk(
    root: Path, prefix: str, without: Collection[str] = ()
) -> Iterator[tuple[str, os.stat_result]]:
    """Walk the files whose key starts with ``prefix``, by key in the order of its UTF-8 bytes.

    Folders in ``without``, each with ``/`` at its end, are not looked into.

    A folder or file that vanishes meanwhile is left out, and so are symbolic links beside the
    folders of the repository. Any failure of the operating system is an ``OSError``.

    Raises:
        StorageError: There is a symbolic link where objects belong. What is behind it is neither
            here nor absent.
    """
    waiting: list[_Child] = [("", os.fspath(root))]
    while waiting:
        key, entry = waiting.pop()
        if isinstance(entry, str):
            if key not in without:
                waiting += reversed(_children(entry, key, prefix))
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            yield key, status
        elif stat.S_ISLNK(status.st_mode) and f"{key}/".startswith(_OURS):
            raise StorageError(f"{entry.path} is a symbolic link", hint=_LINK_HINT)


def _children(folder: str, base: str, prefix: str) -> list[_Child]:
    """List what a folder has below the prefix: folders by path, their keys with a slash.

    With it a folder sorts as its keys do: "a-b" before "a/c".
    """
    try:
        with os.scandir(folder) as entries:
            below: list[_Child] = [
                (f"{base}{entry.name}/", entry.path)
                if entry.is_dir(follow_symlinks=False)
                else (base + entry.name, entry)
                for entry in entries
            ]
    except FileNotFoundError:
        # Deleting the last object of a folder removes the folder.
        return []
    # Below the prefix there is nothing to look at, and that is most of a repository.
    if not base or not base.startswith(prefix):
        below = [child for child in below if _is_wanted(*child, prefix)]
    if len(below) > 1:
        # As S3 lists. Code points would do, but for names that are not UTF-8.
        below.sort(key=lambda child: child[0].encode(errors="surrogateescape"))
    return below


def _is_wanted(key: str, entry: str | os.DirEntry[str], prefix: str) -> bool:
    if isinstance(entry, str):
        return key != _HIDDEN and (key.startswith(prefix) or prefix.startswith(key))
    # A link above the prefix hides what is asked for: ``walk`` raises for it.
    is_in_the_way = prefix.startswith(f"{key}/") and entry.is_symlink()
    return key != PRIVATE and (key.startswith(prefix) or is_in_the_way)


def sizes(root: Path, keys: Iterable[str]) -> dict[str, int]:
    """Return the sizes of files by key, without those that are missing.

    Raises:
        OSError: It cannot be known whether one is there.
        StorageError: A symbolic link is in the way, as with ``walk``.
    """
    top = os.fspath(root)
    looked_at: dict[str, bool] = {}
    found = {}
    last, is_there = None, False
    for key in keys:
        folder = key.rpartition("/")[0]
        # Keys of one folder mostly come one after the other.
        if folder != last:
            last, is_there = folder, _is_folder(top, folder, looked_at)
        status = _status(f"{top}/{key}") if is_there else None
        if status and stat.S_ISREG(status.st_mode):
            found[key] = status.st_size
    return found


def _is_folder(top: str, folder: str, looked_at: dict[str, bool]) -> bool:
    """Return whether a folder below ``top`` is there, and those above it; each is asked once."""
    if not folder:
        return True
    known = looked_at.get(folder)
    if known is None:
        is_below = _is_folder(top, folder.rpartition("/")[0], looked_at)
        status = _status(f"{top}/{folder}") if is_below else None
        known = looked_at[folder] = status is not None and stat.S_ISDIR(status.st_mode)
    return known


def _status(path: str) -> os.stat_result | None:
    """Return the status of what is no link; None if it is missing."""
    try:
        status = os.lstat(path)
    # A file is in the place of a folder: then there is nothing below it.
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(status.st_mode):
        raise StorageError(f"{path} is a symbolic link", hint=_LINK_HINT)
    return status
