"""Read what is in a disk's root file system, file by file; nothing is mounted."""

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lago_images.building.customise.namespace.disk import find_root
from lago_images.building.customise.namespace.unpack_ext4 import BLOCK, Ext4, Inode

_ROOT = 2
# A short link's target stands in its inode, and so it has no extents.
_SHORTEST, _EXTENTS = 60, 0x80000


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """Everything of a file.

    Attributes:
        mode: Its kind and rights, as stat(2) has them.
        size: Bytes; 0 for folders.
        links: How many names it has; 0 for folders.
        first_name: The first path of a file with several names.
        modified: Nanoseconds since the epoch.
        attributes: Names and values of its extended attributes and ACLs, sorted.
        content: A link's target, or the SHA-256 of what is not zeroes.
        device: The bytes of a device file's numbers; else empty.
    """

    mode: int
    uid: int
    gid: int
    size: int
    links: int
    first_name: str
    modified: int
    attributes: tuple[tuple[bytes, bytes], ...]
    content: str
    device: bytes


def read_files(disk: Path) -> dict[str, File]:
    """Return every file of a raw disk's root file system, by its path.

    Raises:
        UnsupportedError: It is no file system as ``bootstrap:`` makes them, or damaged.
    """
    with disk.open("rb") as file:
        return dict(_walk(Ext4(file.fileno(), find_root(disk).place.start)))


def _walk(source: Ext4) -> Iterator[tuple[str, File]]:
    names: dict[int, str] = {}
    folders: set[int] = set()
    todo = [("", _ROOT)]
    while todo:
        path, number = todo.pop()
        inode = source.inode(number)
        names.setdefault(number, path)
        # A damaged file system's folder may be in itself.
        if stat.S_ISDIR(inode.mode) and number not in folders:
            folders.add(number)
            below = sorted(source.entries(inode), reverse=True)
            # Two names that are no UTF-8 stay two.
            todo += [(f"{path}/{name.decode(errors='backslashreplace')}", at) for name, at in below]
        yield path or "/", _file(source, inode, names[number])


def _file(source: Ext4, inode: Inode, first_name: str) -> File:
    is_folder = stat.S_ISDIR(inode.mode)
    is_device = stat.S_ISBLK(inode.mode) or stat.S_ISCHR(inode.mode)
    return File(
        mode=inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        size=0 if is_folder else inode.size,
        links=0 if is_folder else inode.links,
        first_name=first_name,
        modified=inode.time(16, 136),
        attributes=tuple(sorted(source.attributes(inode))),
        content=_content(source, inode),
        device=inode.data[40:48] if is_device else b"",
    )


def _content(source: Ext4, inode: Inode) -> str:
    if stat.S_ISLNK(inode.mode):
        is_short = inode.size < _SHORTEST and not inode.flags & _EXTENTS
        target = inode.data[40 : 40 + inode.size] if is_short else source.content(inode)
        return target.decode(errors="backslashreplace")
    if not stat.S_ISREG(inode.mode):
        return ""
    digest = hashlib.sha256()
    for position, data in source.written(inode):
        # Where a hole is, and where zeroes are written, is not of the content.
        for at in range(0, len(data), BLOCK):
            piece = data[at : at + BLOCK]
            if piece.strip(b"\0"):
                digest.update(b"%d:" % (position + at) + piece)
    return digest.hexdigest()
