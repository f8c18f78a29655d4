"""Take out of an ext4 file system how much was written to it: that depends on more than its files.

mke2fs counts it in each superblock, and no program of e2fsprogs changes the copies.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

# https://docs.kernel.org/filesystems/ext4/globals.html: the first superblock, in bytes from the
# file system's start; and in each one, in bytes, its length, the count and the checksum.
_FIRST = 1024
_SIZE = 1024
_KBYTES_WRITTEN = 0x178
_CHECKSUM = 0x3FC
# Castagnoli's polynomial, reflected.
_POLYNOMIAL = 0x82F63B78


def forget_writes(disk: Path, start: int, groups: Iterable[int], block: int) -> None:
    """Set the count of bytes written to none, and each superblock's checksum to fit.

    Args:
        disk: The disk's file.
        start: Of the file system, in bytes; it has the feature metadata_csum.
        groups: The block that each superblock is in; 0 is the first one's.
        block: The size of a block, in bytes, more than 1024.
    """
    with disk.open("r+b") as file:
        for group in groups:
            place = start + (group * block if group else _FIRST)
            file.seek(place)
            superblock = bytearray(file.read(_SIZE))
            struct.pack_into("<Q", superblock, _KBYTES_WRITTEN, 0)
            struct.pack_into("<I", superblock, _CHECKSUM, _crc32c(bytes(superblock[:_CHECKSUM])))
            file.seek(place)
            file.write(superblock)


def _crc32c(data: bytes) -> int:
    """Return the checksum of ext4, which is not inverted at the end."""
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (_POLYNOMIAL if checksum & 1 else 0)
    return checksum
