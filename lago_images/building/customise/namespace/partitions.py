"""Read a raw disk's partition table, an MBR's or a GPT.

What it reads may be hostile, and is Python's to judge, as the file system is. The layouts are the
UEFI specification's (2.10, 5.2 and 5.3).
"""

import struct
import uuid
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

from lago_images.building.customise.namespace.unpack_ext4 import UnsupportedError

SECTOR = 512
_TABLE, _ENTRY = 446, 16
_SIGNATURE = b"\x55\xaa"
_PROTECTIVE = 0xEE
_GPT_HEADER, _GPT_ENTRIES = struct.Struct("<8sIIIIQQQQ16sQIII"), 128
_MOST_ENTRIES = 1024


class Kind(Enum):
    """What a partition is for."""

    LINUX = "a Linux file system"
    BIOS_BOOT = "GRUB's image for a BIOS"
    ESP = "an EFI system partition"


# UEFI specification 2.10, table 5.7; the Discoverable Partitions Specification; GRUB's manual.
_KINDS: dict[str, Kind] = {
    "83": Kind.LINUX,
    "ef": Kind.ESP,
    "0fc63daf-8483-4772-8e79-3d69d8477de4": Kind.LINUX,
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": Kind.LINUX,
    "b921b045-1df0-41c3-af44-4c6f280d3fae": Kind.LINUX,
    "21686148-6449-6e6f-744e-656564454649": Kind.BIOS_BOOT,
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": Kind.ESP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition: its first byte, its bytes, and its use."""

    start: int
    size: int
    kind: Kind


def read_partitions(disk: BinaryIO) -> tuple[Partition, ...]:
    """Return the partitions of a raw disk, in the order they lie on it.

    Raises:
        UnsupportedError: There is no table, it is damaged, or a partition is of another use.
    """
    size = disk.seek(0, 2)
    first = _read(disk, 0, SECTOR)
    if first[510:] != _SIGNATURE:
        raise UnsupportedError("its disk has no partition table")
    entries = [struct.unpack_from("<4xB3xII", first, _TABLE + _ENTRY * n) for n in range(4)]
    used = [each for each in entries if each[0]]
    if any(kind == _PROTECTIVE for kind, _, _ in used):
        parts = _read_gpt(disk)
    else:
        parts = [_partition(f"{kind:02x}", start, length) for kind, start, length in used]
    parts.sort(key=lambda each: each.start)
    end = SECTOR
    for each in parts:
        if each.start < end or each.size <= 0 or each.start + each.size > size:
            raise UnsupportedError("its partition table is damaged: parts overlap, or are outside")
        end = each.start + each.size
    return tuple(parts)


def _read_gpt(disk: BinaryIO) -> list[Partition]:
    sector = _read(disk, SECTOR, SECTOR)
    (signature, _, length, checksum, _, *_, at, count, entry, table_checksum) = (
        _GPT_HEADER.unpack_from(sector)
    )
    if signature != b"EFI PART" or not _GPT_HEADER.size <= length <= SECTOR:
        raise UnsupportedError("its partition table is damaged: a GPT without its header")
    if zlib.crc32(sector[:16] + bytes(4) + sector[20:length]) != checksum:
        raise UnsupportedError("its partition table is damaged: the header's checksum")
    if entry != _GPT_ENTRIES or count > _MOST_ENTRIES:
        raise UnsupportedError("its partition table has an unusual size")
    table = _read(disk, at * SECTOR, count * entry)
    if zlib.crc32(table) != table_checksum:
        raise UnsupportedError("its partition table is damaged: the entries' checksum")
    parts = []
    for position in range(0, len(table), entry):
        kind = uuid.UUID(bytes_le=table[position : position + 16])
        if kind.int:
            start, last = struct.unpack_from("<QQ", table, position + 32)
            parts.append(_partition(str(kind), start, last + 1 - start))
    return parts


def _partition(kind: str, start: int, length: int) -> Partition:
    if kind not in _KINDS:
        raise UnsupportedError(f"its disk has a partition of the type {kind}")
    return Partition(start=start * SECTOR, size=length * SECTOR, kind=_KINDS[kind])


def _read(disk: BinaryIO, at: int, size: int) -> bytes:
    try:
        disk.seek(at)
        data = disk.read(size)
    except (OSError, OverflowError):
        data = b""
    if len(data) != size:
        raise UnsupportedError("its partition table is damaged: it is cut off")
    return data
