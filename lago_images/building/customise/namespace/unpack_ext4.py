"""Unpack an ext4 file system into a folder, without mounting it.

Runs by itself, as root of a user namespace: ``python3 -c TEXT OFFSET FOLDER MOUNT…``, the disk on
its standard input. What it reads may be hostile, and is Python's to judge: nothing is mounted, and
no kernel parses it. The layout is that of the kernel's Documentation/filesystems/ext4.

Prints the device files, which root of a user namespace cannot make, as JSON. Exits with 3 and a
line that starts with ``unsupported:`` where the folder would not be the same as the file system.
"""

import fcntl
import json
import os
import stat
import struct
import sys
from collections.abc import Iterator, Sequence

UNSUPPORTED = 3
# What mke2fs makes of ext4.FEATURES, by superblock word.
COMPAT, INCOMPAT, RO_COMPAT = 0x3C, 0x2C2, 0x46B
BLOCK = 4096
_MAGIC, _CLEAN = 0xEF53, 1
_ROOT = 2
_EXTENTS, _INDEXED = 0x80000, 0x1000
_EXTENT_MAGIC, _XATTR_MAGIC = 0xF30A, 0xEA020000
_DEEPEST = 5
# An extent that is longer than this is not written yet, and reads as zeroes.
_LONGEST = 32768
_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}
_ACL_USER, _ACL_GROUP = 2, 8
_NO_ID = 0xFFFFFFFF
_MOST_IDS = 65536
_PIECE = 2**20
# ioctl_ficlonerange(2): from a file, a place in it and a length to a place in another file.
_FICLONERANGE, _RANGE = 0x4020940D, struct.Struct("qQQQ")


class UnsupportedError(Exception):
    """A folder cannot be the same as this file system, or it is damaged."""


class Superblock:
    """The facts of a file system: refused where they are not those that bootstrap makes."""

    def __init__(self, data: bytes) -> None:
        def word(at: int, kind: str = "<I") -> int:
            (value,) = struct.unpack_from(kind, data, at)
            return int(value)

        if len(data) < 1024 or word(56, "<H") != _MAGIC:
            raise UnsupportedError("its root partition is no ext4 file system")
        features = word(92), word(96), word(100)
        if features != (COMPAT, INCOMPAT, RO_COMPAT):
            raise UnsupportedError("its file system has other features than bootstrap gives")
        if word(24) != 2 or word(88, "<H") != 256 or word(254, "<H") != 64:
            raise UnsupportedError("its file system has other sizes than bootstrap gives")
        if word(58, "<H") != _CLEAN:
            raise UnsupportedError("its file system was not unmounted")
        self.inodes = word(0)
        self.inodes_per_group = word(40)
        self.blocks = word(4) | word(336) << 32
        self.uuid = data[104:120]
        self.label = data[120:136].rstrip(b"\0")
        self.hash_seed = data[236:252]
        self.made = word(264)
        if not self.inodes_per_group or not self.blocks:
            raise UnsupportedError("its file system is damaged")


class Inode:
    """A file's metadata, and where its content is."""

    def __init__(self, number: int, data: bytes) -> None:
        self.number, self.data = number, data
        self.mode, uid, size = struct.unpack_from("<HHI", data, 0)
        gid, self.links = struct.unpack_from("<HH", data, 24)
        (self.flags,) = struct.unpack_from("<I", data, 32)
        acl_high, uid_high, gid_high = struct.unpack_from("<HHH", data, 118)
        self.uid, self.gid = uid | uid_high << 16, gid | gid_high << 16
        acl, size_high = struct.unpack_from("<II", data, 104)
        self.size, self.acl = size | size_high << 32, acl | acl_high << 32
        (self.extra,) = struct.unpack_from("<H", data, 128)
        if self.flags & ~(_EXTENTS | _INDEXED):
            raise UnsupportedError(f"a file has the attributes {self.flags:#x} (chattr)")
        if max(self.uid, self.gid) >= _MOST_IDS:
            raise UnsupportedError(f"a file belongs to {self.uid}:{self.gid}")

    def time(self, at: int, extra_at: int) -> int:
        """Return a time in nanoseconds since the epoch."""
        seconds: int
        seconds, extra = *struct.unpack_from("<i", self.data, at), 0
        if self.extra >= 24:
            (extra,) = struct.unpack_from("<I", self.data, extra_at)
        return ((seconds + ((extra & 3) << 32)) * 10**9) + (extra >> 2)


class Ext4:
    """Reads a file system on an open disk."""

    def __init__(self, disk: int, offset: int) -> None:
        self._disk, self._offset, self._may_share = disk, offset, True
        self.superblock = Superblock(os.pread(disk, 1024, offset + 1024))
        groups = -(-self.superblock.inodes // self.superblock.inodes_per_group)
        self._groups = self._read(BLOCK, groups * 64)

    def inode(self, number: int) -> Inode:
        if not 1 <= number <= self.superblock.inodes:
            raise UnsupportedError(f"its file system is damaged: inode {number}")
        group, index = divmod(number - 1, self.superblock.inodes_per_group)
        low, high = (struct.unpack_from("<I", self._groups, group * 64 + at)[0] for at in (8, 40))
        return Inode(number, self._read((low | high << 32) * BLOCK + index * 256, 256))

    def extents(self, inode: Inode) -> Iterator[tuple[int, int, int]]:
        """Yield the parts that are written: where in the file, where on the disk, bytes."""
        if not inode.flags & _EXTENTS:
            raise UnsupportedError(f"inode {inode.number} has no extents")
        yield from self._extents(inode.data[40:100], _DEEPEST)

    def content(self, inode: Inode) -> bytes:
        """Return the whole content of a folder or link."""
        if inode.size > 2**26:
            raise UnsupportedError(f"the folder or link of inode {inode.number} is too large")
        data = bytearray(inode.size)
        for position, at, length in self.extents(inode):
            data[position : position + length] = self._read(at, length)
        return bytes(data[: inode.size])

    def written(self, inode: Inode) -> Iterator[tuple[int, bytes]]:
        """Yield the pieces of a file's content, each with its place; its holes are left out."""
        for extent in self.extents(inode):
            yield from self._pieces(inode, *extent)

    def copy(self, inode: Inode, target: int) -> None:
        """Copy a file's content, and leave its holes.

        It is shared with the disk and not copied where their file system can do that (XFS, Btrfs).
        """
        for position, at, length in self.extents(inode):
            if not self._share(at, length, target, position):
                for place, piece in self._pieces(inode, position, at, length):
                    os.pwrite(target, piece, place)
        os.ftruncate(target, inode.size)

    def entries(self, inode: Inode) -> Iterator[tuple[bytes, int]]:
        """Yield a folder's names and inodes; the tree of hashes looks like unused entries."""
        data, position = self.content(inode), 0
        while position + 8 <= len(data):
            number, length, size = struct.unpack_from("<IHB", data, position)
            if length < 8 or length % 4 or size > length - 8:
                raise UnsupportedError(f"the folder of inode {inode.number} is damaged")
            name = data[position + 8 : position + 8 + size]
            position += length
            if number == 0 or name in {b".", b".."}:
                continue
            if not name or b"/" in name or b"\0" in name:
                raise UnsupportedError(f"the folder of inode {inode.number} is damaged")
            yield name, number

    def attributes(self, inode: Inode) -> Iterator[tuple[bytes, bytes]]:
        """Yield the extended attributes, as setxattr takes them."""
        at = 128 + inode.extra
        if at + 4 <= 256 and inode.data[at : at + 4] == struct.pack("<I", _XATTR_MAGIC):
            yield from _attributes(inode.data[at + 4 :], 0)
        if inode.acl:
            block = self._read(inode.acl * BLOCK, BLOCK)
            if block[:4] != struct.pack("<I", _XATTR_MAGIC):
                raise UnsupportedError(f"the attributes of inode {inode.number} are damaged")
            yield from _attributes(block, 32)

    def _extents(self, node: bytes, deepest: int) -> Iterator[tuple[int, int, int]]:
        magic, entries, _, depth = struct.unpack_from("<HHHH", node)
        if magic != _EXTENT_MAGIC or depth > deepest or 12 + entries * 12 > len(node):
            raise UnsupportedError("its file system is damaged: extents")
        for at in range(12, 12 + entries * 12, 12):
            if depth:
                _, low, high = struct.unpack_from("<IIH", node, at)
                yield from self._extents(self._read((low | high << 32) * BLOCK, BLOCK), depth - 1)
                continue
            position, length, high, low = struct.unpack_from("<IHHI", node, at)
            if length <= _LONGEST:
                yield position * BLOCK, (low | high << 32) * BLOCK, length * BLOCK

    def _pieces(
        self, inode: Inode, position: int, at: int, length: int
    ) -> Iterator[tuple[int, bytes]]:
        size = min(length, inode.size - position)
        for done in range(0, size, _PIECE):
            yield position + done, self._read(at + done, min(size - done, _PIECE))

    def _share(self, at: int, length: int, target: int, position: int) -> bool:
        """Let a file have blocks of the disk, which stay there; return False where it cannot."""
        self._refuse_outside(at, length)
        if self._may_share:
            asked = _RANGE.pack(self._disk, self._offset + at, length, position)
            try:
                fcntl.ioctl(target, _FICLONERANGE, asked)
            except OSError:
                self._may_share = False
        return self._may_share

    def _refuse_outside(self, at: int, size: int) -> None:
        if at + size > self.superblock.blocks * BLOCK:
            raise UnsupportedError("its file system is damaged: a block is outside")

    def _read(self, at: int, size: int) -> bytes:
        self._refuse_outside(at, size)
        data = os.pread(self._disk, size, self._offset + at)
        if len(data) != size:
            raise UnsupportedError("its file system is damaged: it is cut off")
        return data


def _attributes(data: bytes, first: int) -> Iterator[tuple[bytes, bytes]]:
    position = first
    while position + 4 <= len(data) and data[position : position + 4] != b"\0\0\0\0":
        size, index, at, other, length = struct.unpack_from("<BBHII", data, position)
        name = data[position + 16 : position + 16 + size]
        position += 16 + (size + 3) // 4 * 4
        if other or index not in _PREFIXES or at + length > len(data):
            raise UnsupportedError("a file has extended attributes of an unknown kind")
        value = data[at : at + length]
        yield _PREFIXES[index] + name, _acl(value) if index in {2, 3} else value


def _acl(value: bytes) -> bytes:
    """Return an ACL as setxattr takes it: on the disk an entry without a name has no id."""
    result, position = struct.pack("<I", 2), 4
    while position + 4 <= len(value):
        tag, rights = struct.unpack_from("<HH", value, position)
        position += 4
        number = _NO_ID
        if tag in {_ACL_USER, _ACL_GROUP}:
            (number,) = struct.unpack_from("<I", value, position)
            position += 4
        result += struct.pack("<HHI", tag, rights, number)
    return result


class Unpacker:
    """Writes what a file system holds below a folder, which is empty.

    Args:
        source: The file system.
        folder: Where to.
        mounts: The guest's paths that something is mounted on; they must be folders.
    """

    def __init__(self, source: Ext4, folder: bytes, mounts: Sequence[bytes]) -> None:
        self._source, self._folder, self._mounts = source, folder, mounts
        self._made: dict[int, bytes] = {}
        self._folders: list[tuple[bytes, Inode]] = []
        self.devices: list[dict[str, object]] = []

    def unpack(self) -> None:
        todo = [(self._folder, self._source.inode(_ROOT))]
        while todo:
            path, inode = todo.pop()
            self._folders.append((path, inode))
            for name, number in self._source.entries(inode):
                below, child = path + b"/" + name, self._source.inode(number)
                if stat.S_ISDIR(child.mode):
                    if number in self._made:
                        raise UnsupportedError("its file system is damaged: a folder has two names")
                    self._made[number] = below
                    os.mkdir(below, 0o700)
                    todo.append((below, child))
                else:
                    self._file(below, child)
        folders = {path for path, _ in self._folders}
        for path in self._mounts:
            parts = path.split(b"/")
            for end in range(2, len(parts) + 1):
                if self._folder + b"/".join(parts[:end]) not in folders:
                    raise UnsupportedError(f"{path.decode()} is no folder")
        # Rights that are inherited, and times, once nothing more comes into a folder.
        for path, inode in reversed(self._folders):
            self._finish(path, inode)

    def _file(self, path: bytes, inode: Inode) -> None:
        if stat.S_ISBLK(inode.mode) or stat.S_ISCHR(inode.mode):
            self._device(path, inode)
            return
        if inode.number in self._made:
            os.link(self._made[inode.number], path, follow_symlinks=False)
            return
        self._made[inode.number] = path
        if stat.S_ISREG(inode.mode):
            target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                self._source.copy(inode, target)
            finally:
                os.close(target)
        elif stat.S_ISLNK(inode.mode):
            os.symlink(self._link(inode), path)
        elif stat.S_ISFIFO(inode.mode) or stat.S_ISSOCK(inode.mode):
            os.mknod(path, stat.S_IFMT(inode.mode) | 0o600)
        else:
            raise UnsupportedError(f"inode {inode.number} is of no known kind")
        self._finish(path, inode)

    def _link(self, inode: Inode) -> bytes:
        if inode.size < 60 and not inode.flags & _EXTENTS:
            return inode.data[40 : 40 + inode.size]
        return self._source.content(inode)

    def _device(self, path: bytes, inode: Inode) -> None:
        """Note a device file: the kernel puts its number into the first two block numbers."""
        folder, _, name = path.rpartition(b"/")
        old, new = struct.unpack_from("<II", inode.data, 40)
        plain = name.decode("ascii", "replace")
        if (
            folder != self._folder + b"/dev"
            or not plain.isascii()
            or not plain.replace("-", "").replace("_", "").isalnum()
            or list(self._source.attributes(inode))
            or inode.links != 1
        ):
            raise UnsupportedError("it has a device file that cannot be made again")
        if old:
            major, minor = old >> 8 & 0xFF, old & 0xFF
        else:
            major, minor = new >> 8 & 0xFFF, (new & 0xFF) | (new >> 12 & 0xFFF00)
        self.devices.append(
            {
                "name": plain,
                "kind": "b" if stat.S_ISBLK(inode.mode) else "c",
                "major": major,
                "minor": minor,
                "mode": inode.mode,
                "uid": inode.uid,
                "gid": inode.gid,
                "time": inode.time(16, 136) // 10**9,
            }
        )

    def _finish(self, path: bytes, inode: Inode) -> None:
        # In this order: a new owner takes set-id bits and capabilities away.
        os.chown(path, inode.uid, inode.gid, follow_symlinks=False)
        if not stat.S_ISLNK(inode.mode):
            os.chmod(path, stat.S_IMODE(inode.mode))
        for name, value in self._source.attributes(inode):
            os.setxattr(path, name, value, follow_symlinks=False)
        times = inode.time(8, 140), inode.time(16, 136)
        os.utime(path, ns=times, follow_symlinks=False)


def main(offset: int, folder: str, mounts: Sequence[str]) -> int:
    os.umask(0o077)
    try:
        paths = [os.fsencode(path) for path in mounts]
        unpacker = Unpacker(Ext4(0, offset), os.fsencode(folder), paths)
        unpacker.unpack()
    except (UnsupportedError, OSError, struct.error, RecursionError) as error:
        print(f"unsupported: {error}", file=sys.stderr)
        return UNSUPPORTED
    print(json.dumps(unpacker.devices))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
