"""Which areas of two raw disks differ."""

import struct
import uuid
import zlib

import pytest

from lago_images.building.comparing.areas import differing_areas

MIB = 2**20
SIZE = 8 * MIB
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def mbr(*parts):
    table = b"".join(struct.pack("<4xB3xII", *part) for part in parts).ljust(64, b"\0")
    return bytes(446) + table + b"\x55\xaa"


def gpt(*parts):
    """A disk's first 34 sectors."""
    entries = b"".join(
        kind.bytes_le + bytes(16) + struct.pack("<QQ", first, last) + bytes(80)
        for kind, first, last in parts
    ).ljust(128 * 128, b"\0")
    head = struct.Struct("<8sIIIIQQQQ16sQIII")
    sums = [0, zlib.crc32(entries)]
    for _ in range(2):
        header = head.pack(
            *(b"EFI PART", 0x10000, head.size, sums[0], 0, 1, 0, 34, 0),
            *(bytes(16), 2, 128, 128, sums[1]),
        )
        sums[0] = sums[0] or zlib.crc32(header)
    return mbr((0xEE, 1, SIZE // 512 - 1)) + header.ljust(512, b"\0") + entries


@pytest.fixture
def pair(tmp_path):
    """Two equal sparse disks that begin so, and what tells of them once the second has changed."""

    def make(start, *changes, size=SIZE):
        paths = tmp_path / "old", tmp_path / "new"
        for path in paths:
            with path.open("wb") as file:
                file.write(start)
                file.truncate(SIZE)
        with paths[1].open("r+b") as file:
            file.truncate(size)
            for at in changes:
                file.seek(at)
                file.write(b"changed")
        return [(each.name, each.first, each.blocks) for each in differing_areas(*paths)]

    return make


BIOS = mbr((0x83, 2048, 6 * MIB // 512))
UEFI = gpt((ESP, 2048, 4095), (LINUX, 4096, 12287))


def test_equal_disks_have_no_area(pair):
    assert pair(BIOS) == []


def test_each_area_is_named_with_its_first_byte_and_its_blocks(pair):
    changes = (7, 440, 513, MIB + 5, MIB + 4090, MIB + 100_000, 7 * MIB + 1)
    assert pair(BIOS, *changes) == [
        ("boot code", 7, 1),
        ("partition table", 440, 1),
        ("before partition 1", 513, 1),
        ("partition 1 (a Linux file system)", MIB + 5, 3),
        ("behind the last partition", 7 * MIB + 1, 1),
    ]


def test_a_disk_with_a_gpt_has_two_tables(pair):
    assert pair(UEFI, 17408, MIB + 9, 2 * MIB, SIZE - 512) == [
        ("before partition 1", 17408, 1),
        ("partition 1 (an EFI system partition)", MIB + 9, 1),
        ("partition 2 (a Linux file system)", 2 * MIB, 1),
        ("second partition table", SIZE - 512, 1),
    ]


def test_without_a_table_that_is_known_the_disk_is_one_area(pair):
    assert pair(b"", 0, MIB) == [("the disk", 0, 2)]


def test_a_longer_disk_is_told(pair):
    assert pair(BIOS, size=SIZE + MIB) == [("the disk's size", SIZE, 0)]
