"""Tell which areas of two raw disks differ: boot code, partition table, loaders, partitions."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lago_images.building.customise.namespace.partitions import SECTOR, read_partitions
from lago_images.building.customise.namespace.unpack_ext4 import UnsupportedError

BLOCK = 4096
_PIECE = 2**20
# The first sector's code; GPT's header and 128 entries, which an MBR's disk has none of.
_BOOT_CODE, _GPT = 440, 34 * SECTOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """A part of a disk: its name, its first byte, and the byte behind its last."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaDifference:
    """An area whose bytes differ.

    Attributes:
        name: Such as ``partition 1 (a Linux file system)``.
        first: The first byte of the disk that differs.
        blocks: How many blocks of 4 KiB differ, counted from the disk's start.
    """

    name: str
    first: int
    blocks: int


def differing_areas(old: Path, new: Path) -> tuple[AreaDifference, ...]:
    """Return the areas of two raw disks that differ, as the older one's partition table has them.

    Where one disk is longer, that is named beside them.
    """
    found: dict[str, AreaDifference] = {}
    with old.open("rb") as one, new.open("rb") as other:
        areas = _areas(one)
        sizes = [os.fstat(each.fileno()).st_size for each in (one, other)]
        for start, first, second in _differing_blocks(one, other, max(sizes)):
            for area in areas:
                here = slice(max(area.start - start, 0), max(area.end - start, 0))
                if first[here] != second[here]:
                    known = found.get(area.name)
                    at = start + here.start + _first(first[here], second[here])
                    found[area.name] = AreaDifference(
                        name=area.name,
                        first=known.first if known else at,
                        blocks=known.blocks + 1 if known else 1,
                    )
    if sizes[0] != sizes[1]:
        found["size"] = AreaDifference(name="the disk's size", first=min(sizes), blocks=0)
    return tuple(found.values())


def _first(one: bytes, other: bytes) -> int:
    """Return where two pieces, which differ, begin to do so."""
    pairs = enumerate(zip(one, other, strict=True))
    return next(at for at, (first, second) in pairs if first != second)


def _areas(disk: BinaryIO) -> list[Area]:
    """Return the areas of a disk, in order and without gaps; one where its table is unknown."""
    size = os.fstat(disk.fileno()).st_size
    try:
        parts = read_partitions(disk)
    except UnsupportedError:
        return [Area(name="the disk", start=0, end=size)]
    disk.seek(SECTOR)
    is_gpt = disk.read(8) == b"EFI PART"
    table_end = _GPT if is_gpt else SECTOR
    areas = [
        Area(name="boot code", start=0, end=_BOOT_CODE),
        Area(name="partition table", start=_BOOT_CODE, end=table_end),
    ]
    end = table_end
    for number, part in enumerate(parts, 1):
        if part.start > end:
            areas.append(Area(name=f"before partition {number}", start=end, end=part.start))
        end = part.start + part.size
        name = f"partition {number} ({part.kind.value})"
        areas.append(Area(name=name, start=part.start, end=end))
    if end < size:
        name = "second partition table" if is_gpt else "behind the last partition"
        areas.append(Area(name=name, start=end, end=size))
    return areas


def _differing_blocks(
    one: BinaryIO, other: BinaryIO, size: int
) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the start and both contents of each block that differs; holes are skipped."""
    at = 0
    while (at := min(_next_data(each, at, size) for each in (one, other))) < size:
        at -= at % BLOCK
        old, new = (_padded(os.pread(each.fileno(), _PIECE, at)) for each in (one, other))
        if old != new:
            for start in range(0, _PIECE, BLOCK):
                first, second = old[start : start + BLOCK], new[start : start + BLOCK]
                if first != second:
                    yield at + start, first, second
        at += _PIECE


def _padded(data: bytes) -> bytes:
    return data.ljust(_PIECE, b"\0")


def _next_data(disk: BinaryIO, at: int, size: int) -> int:
    try:
        return os.lseek(disk.fileno(), at, os.SEEK_DATA)
    except OSError:
        # Nothing but a hole follows, or the file has ended.
        return size
