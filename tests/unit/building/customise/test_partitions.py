"""Partition tables that sfdisk writes, and what is made of damaged and hostile ones."""

import io
import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.building.customise.namespace.partitions import Kind, Partition, read_partitions
from lago_images.building.customise.namespace.unpack_ext4 import UnsupportedError
from tests.tools import need

need("sfdisk")
SECTOR = 512
SIZE = 64 * 2**20
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
X86_ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
SWAP = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"


def table(tmp_path, *lines, label="gpt"):
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    text = "\n".join((f"label: {label}", *lines, ""))
    subprocess.run(["sfdisk", "-q", disk], input=text, text=True, check=True, timeout=60)
    return disk


def parsed(data):
    return read_partitions(io.BytesIO(data))


def told_by_sfdisk(disk):
    out = subprocess.run(["sfdisk", "--json", disk], check=True, capture_output=True, timeout=60)
    return [
        (part["start"] * SECTOR, part["size"] * SECTOR)
        for part in json.loads(out.stdout)["partitiontable"]["partitions"]
    ]


@pytest.mark.parametrize(
    ("label", "lines", "kinds"),
    [
        ("dos", ["start=2048, type=83, bootable"], [Kind.LINUX]),
        ("dos", ["size=8M, type=ef", "type=83"], [Kind.ESP, Kind.LINUX]),
        ("gpt", [f"type={LINUX}"], [Kind.LINUX]),
        (
            "gpt",
            [f"size=1M, type={BIOS_BOOT}", f"size=8M, type={ESP}", f"type={X86_ROOT}"],
            [Kind.BIOS_BOOT, Kind.ESP, Kind.LINUX],
        ),
    ],
)
def test_partitions_are_as_sfdisk_tells_them(tmp_path, label, lines, kinds):
    disk = table(tmp_path, *lines, label=label)
    found = parsed(disk.read_bytes())
    assert [(part.start, part.size) for part in found] == told_by_sfdisk(disk)
    assert [part.kind for part in found] == kinds


def test_they_are_told_in_the_order_they_lie_in(tmp_path):
    disk = table(tmp_path, f"start=40960, type={LINUX}", f"start=2048, size=2048, type={ESP}")
    assert [part.kind for part in parsed(disk.read_bytes())] == [Kind.ESP, Kind.LINUX]


@pytest.mark.parametrize(
    ("label", "lines"),
    [("gpt", [f"type={SWAP}"]), ("dos", ["type=8e"]), ("dos", ["size=8M, type=83", "type=5"])],
)
def test_a_partition_of_another_use_is_refused(tmp_path, label, lines):
    disk = table(tmp_path, *lines, label=label)
    with pytest.raises(UnsupportedError, match="a partition of the type"):
        parsed(disk.read_bytes())


@pytest.mark.parametrize("at", [512, 512 + 16, 512 + 72, 512 + 80, 1024 + 3, 1024 + 40])
def test_a_gpt_whose_bits_have_changed_is_refused(tmp_path, at):
    data = bytearray(table(tmp_path, f"type={LINUX}").read_bytes())
    data[at] ^= 1
    with pytest.raises(UnsupportedError, match="damaged"):
        parsed(data)


def mbr(*parts):
    data = bytearray(SIZE)
    data[510:512] = b"\x55\xaa"
    for number, (start, length) in enumerate(parts):
        entry = bytes(4) + b"\x83" + bytes(3) + start.to_bytes(4, "little")
        data[446 + 16 * number : 462 + 16 * number] = entry + length.to_bytes(4, "little")
    return data


@pytest.mark.parametrize(
    "parts", [[(0, 9)], [(2048, 0)], [(2048, SIZE // SECTOR)], [(2048, 99), (2100, 99)]]
)
def test_parts_that_overlap_or_are_outside_are_refused(parts):
    with pytest.raises(UnsupportedError, match="overlap, or are outside"):
        parsed(mbr(*parts))


@pytest.mark.parametrize("data", [b"", bytes(512), bytes(4096)])
def test_a_disk_without_a_table_is_refused(data):
    with pytest.raises(UnsupportedError):
        parsed(data)


@given(
    st.binary(max_size=64), st.sampled_from([b"\x83", b"\xee", b"\xef"]), st.binary(max_size=600)
)
def test_any_sectors_are_read_or_refused(entries, kind, header):
    first = bytearray(512)
    first[446 : 446 + len(entries)] = entries
    first[450:451], first[510:] = kind, b"\x55\xaa"
    data = bytes(first) + b"EFI PART" + header + bytes(4096)
    try:
        found = parsed(data)
    except UnsupportedError:
        return
    assert all(
        isinstance(part, Partition) and part.start + part.size <= len(data) for part in found
    )
