"""What is in a disk's root file system, told file by file."""

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from lago_images.building.customise.namespace.disk import find_root
from lago_images.building.customise.namespace.unpack_ext4 import Ext4


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """Everything of a file but its times; ``content`` is a link's target, or a digest."""

    mode: int
    uid: int
    gid: int
    size: int
    links: int
    first_name: str
    attributes: tuple[tuple[bytes, bytes], ...]
    content: str
    device: bytes


def files(disk: Path) -> dict[str, File]:
    """Every file of a raw disk's root file system, by its path."""
    found: dict[str, File] = {}
    names: dict[int, str] = {}
    with disk.open("rb") as file:
        source = Ext4(file.fileno(), find_root(disk).start)
        todo = [("", 2)]
        while todo:
            path, number = todo.pop()
            inode = source.inode(number)
            names.setdefault(number, path)
            is_folder = stat.S_ISDIR(inode.mode)
            is_device = stat.S_ISBLK(inode.mode) or stat.S_ISCHR(inode.mode)
            if is_folder:
                below = sorted(source.entries(inode), reverse=True)
                todo += [(f"{path}/{name.decode(errors='replace')}", one) for name, one in below]
            found[path or "/"] = File(
                mode=inode.mode,
                uid=inode.uid,
                gid=inode.gid,
                size=0 if is_folder else inode.size,
                links=0 if is_folder else inode.links,
                first_name=names[number],
                attributes=tuple(sorted(source.attributes(inode))),
                content=_content(source, inode),
                device=inode.data[40:48] if is_device else b"",
            )
    return found


def _content(source: Ext4, inode) -> str:
    if stat.S_ISLNK(inode.mode):
        short = inode.size < 60 and not inode.flags & 0x80000
        return (inode.data[40 : 40 + inode.size] if short else source.content(inode)).decode()
    if not stat.S_ISREG(inode.mode):
        return ""
    digest = hashlib.sha256()
    for position, at, length in source.extents(inode):
        data = source._read(at, min(length, max(inode.size - position, 0)))
        # Where a hole is, and where zeroes are written, is not of the content.
        for piece in range(0, len(data), 4096):
            if data[piece : piece + 4096].strip(b"\0"):
                digest.update(b"%d:" % (position + piece) + data[piece : piece + 4096])
    return digest.hexdigest()


def differences(one: dict[str, File], other: dict[str, File]) -> list[str]:
    """A line for each file that is not the same in both."""
    lines = [f"only in the first: {path}" for path in sorted(one.keys() - other.keys())]
    lines += [f"only in the second: {path}" for path in sorted(other.keys() - one.keys())]
    for path in sorted(one.keys() & other.keys()):
        for name in File.__slots__:
            first, second = getattr(one[path], name), getattr(other[path], name)
            if first != second:
                lines.append(f"{path}: {name}: {first!r} != {second!r}")
    return lines
