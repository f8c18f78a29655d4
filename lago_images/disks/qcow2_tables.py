"""Tell from the tables of a qcow2 how many bytes its file has at least, without any tool.

docs/interop/qcow2.txt of QEMU has the format. Nothing is believed: tables are read once each and
within a limit, and offsets that no disk of ours can have are damage.
"""

import sys
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from lago_images.disks.decompress import LARGEST
from lago_images.disks.qcow2_header import EXTERNAL_DATA, Header

# QEMU's own bounds.
_CLUSTER_BITS = range(9, 22)
_EXTENDED_ENTRIES = 1 << 4
_ENTRY = 8
_SECTOR = 512
# Bits 9 to 55 of the entries of each table.
_OFFSET = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62
# Bytes of the two tables that name tables, which are kept in memory a million entries long at most;
# and of the tables that they name: those of 512 GiB in clusters of 64 KiB.
_MOST_FIRST, _MOST_SECOND = 2**23, 2**26


def least_size(disk: Path, header: Header) -> int | None:
    """Return the bytes of a file to the end of the last cluster that its tables name.

    A file may lack less than a cluster of them: QEMU does not fill the last one.

    Args:
        disk: The file, a qcow2.
        header: Its header.

    Returns:
        The bytes; None where the tables are damaged, of another file, or more than are read.
    """
    if header.cluster_bits not in _CLUSTER_BITS or header.incompatible & EXTERNAL_DATA:
        return None
    cluster = 1 << header.cluster_bits
    first = header.clusters[0], header.clusters[1] * _ENTRY
    counts = header.counts[0], header.counts[1] * cluster
    if first[1] + counts[1] > _MOST_FIRST:
        return None
    with disk.open("rb") as file:
        second = _starts(_entries(file, *first))
        starts = second | _starts(_entries(file, *counts))
        if len(second) * cluster > _MOST_SECOND or _are_damaged(starts, cluster):
            return None
        ends = [sum(first), sum(counts), max(starts, default=-cluster) + cluster]
        step = 2 if header.incompatible & _EXTENDED_ENTRIES else 1
        for at in sorted(second):
            entries = _entries(file, at, cluster)[::step]
            plain = _starts(entry for entry in entries if not entry & _COMPRESSED)
            if _are_damaged(plain, cluster):
                return None
            ends.append(max(plain, default=-cluster) + cluster)
            ends.append(_compressed_end(entries, header.cluster_bits))
    end = max(ends)
    return None if end > LARGEST else end


def _entries(file: BinaryIO, at: int, length: int) -> "array[int]":
    """Read a table; what lies behind the end of the file is left out."""
    table = array("Q")
    if at <= LARGEST:
        file.seek(at)
        data = file.read(length)
        table.frombytes(data[: len(data) // _ENTRY * _ENTRY])
    if sys.byteorder == "little":
        table.byteswap()
    return table


def _starts(entries: Iterable[int]) -> set[int]:
    return {entry & _OFFSET for entry in entries} - {0}


def _are_damaged(starts: Iterable[int], cluster: int) -> bool:
    return any(at % cluster or at > LARGEST for at in starts)


def _compressed_end(entries: Iterable[int], cluster_bits: int) -> int:
    """Return where the last compressed cluster's sectors end."""
    # The lower bits are the offset; above are the sectors beyond the one that it lies in.
    bits = 62 - (cluster_bits - 8)
    mask = (1 << bits) - 1
    return max(
        (
            (entry & mask) // _SECTOR * _SECTOR + (((entry % _COMPRESSED) >> bits) + 1) * _SECTOR
            for entry in entries
            if entry & _COMPRESSED
        ),
        default=0,
    )
