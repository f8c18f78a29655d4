"""How long a qcow2's file must be by its own tables, and whether a file was cut off."""

import os
import struct
import subprocess
import tracemalloc
from itertools import product

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lago_images.disks.decompress import LARGEST
from lago_images.disks.ending import ending_of
from lago_images.disks.qcow2_header import read_header
from lago_images.disks.qcow2_tables import least_size
from tests.tools import need

CLUSTER, MIB = 2**16, 2**20
FORMS = ["compat=0.10", "compat=1.1", "cluster_size=512", "cluster_size=2M"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "raw"
    with path.open("wb") as file:
        for mib in (0, 7, 29):
            file.seek(mib * MIB)
            file.write(os.urandom(MIB // 2) + b"abc" * (MIB // 6))
        file.truncate(40 * MIB)
    return path


def converted(raw, disk, form, *more):
    need("qemu-img")
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", form, *more, raw, disk]
    subprocess.run(argv, check=True)
    return disk


def least(disk):
    return least_size(disk, read_header(disk, "d"))


@pytest.mark.parametrize(
    ("form", "more"),
    # QEMU does not compress clusters with subclusters.
    [*product(FORMS, [(), ("-c",)]), ("extended_l2=on", ())],
)
def test_qemus_own_files_end_where_their_tables_say(tmp_path, raw, form, more):
    disk = converted(raw, tmp_path / "d", form, *more)
    size, cluster = disk.stat().st_size, 1 << read_header(disk, "d").cluster_bits
    # A last cluster with subclusters is not filled.
    assert 0 <= least(disk) - size < cluster
    assert ending_of(disk, None).is_whole is (True if least(disk) == size else None)
    os.truncate(disk, size - cluster)
    ending = ending_of(disk, None)
    assert (ending.size, ending.is_whole) == (size - cluster, False)
    assert size - cluster < ending.least <= size + cluster


@pytest.mark.parametrize("left", [0, 4, 71, 103, 600, CLUSTER, CLUSTER * 3 + 8])
def test_a_file_that_lost_its_tables_is_cut_off(tmp_path, raw, left):
    disk = converted(raw, tmp_path / "d", "compat=1.1")
    os.truncate(disk, left)
    assert ending_of(disk, None).is_whole is False


def test_a_file_that_is_left_in_its_last_cluster_may_be_whole(tmp_path, raw):
    disk = converted(raw, tmp_path / "d", "compat=1.1")
    os.truncate(disk, disk.stat().st_size - 1)
    assert ending_of(disk, None).is_whole is None


def written(path, *, first=(), second=(), counts=(), bits=16, entries=None, incompatible=0):
    """A qcow2 of a header and three tables, a cluster each from the second on."""
    count = len(first) if entries is None else entries
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, bits, MIB, 0, count, CLUSTER, 3 * CLUSTER, 1, 0, 0),
        *(incompatible, 0, 0, 4, 104),
    )
    tables = [struct.pack(f">{len(table)}Q", *table) for table in (first, second, counts)]
    path.write_bytes(b"".join(part.ljust(CLUSTER, b"\0") for part in (header, *tables)))
    return path


SECOND = 2 * CLUSTER


@pytest.mark.parametrize(
    ("tables", "size"),
    [
        ({}, 4 * CLUSTER),
        ({"first": [SECOND]}, 4 * CLUSTER),
        ({"first": [SECOND | 1 << 63], "second": [9 * CLUSTER | 1 << 63]}, 10 * CLUSTER),
        ({"first": [SECOND], "second": [0, 1, 9 * CLUSTER | 1]}, 10 * CLUSTER),
        ({"first": [SECOND] * 8192, "second": [9 * CLUSTER] * 8192}, 10 * CLUSTER),
        ({"counts": [9 * CLUSTER]}, 10 * CLUSTER),
        ({"first": [9 * CLUSTER]}, 10 * CLUSTER),
        # Compressed: at byte 700,001 with three sectors more than its first.
        ({"first": [SECOND], "second": [1 << 62 | 3 << 54 | 700_001]}, 1371 * 512),
        # Extended entries: each second one is a bitmap of subclusters.
        ({"first": [SECOND], "second": [CLUSTER, 2**64 - 1], "incompatible": 16}, 4 * CLUSTER),
    ],
)
def test_tables_tell_the_size(tmp_path, tables, size):
    assert least(written(tmp_path / "d", **tables)) == size


@pytest.mark.parametrize(
    "tables",
    [
        {"bits": 8},
        {"bits": 22},
        {"bits": 2**32 - 1},
        {"entries": 2**20},
        {"first": [SECOND + 512]},
        {"first": [SECOND], "second": [CLUSTER + 512]},
        {"first": [SECOND], "second": [LARGEST]},
        {"first": [LARGEST + CLUSTER]},
        {"first": [2**55]},
        {"counts": [2**55]},
        {"first": [SECOND], "second": [9 * CLUSTER], "incompatible": 4},
        # More tables than are read.
        {"first": [number * CLUSTER for number in range(1, 1026)]},
    ],
)
def test_tables_that_cannot_be_are_not_believed(tmp_path, tables):
    disk = written(tmp_path / "d", **tables)
    tracemalloc.start()
    assert least(disk) is None
    assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    tracemalloc.stop()
    assert ending_of(disk, None).is_whole is None


@given(st.binary(max_size=600), st.binary(max_size=64))
@example(b"", b"\xff" * 64)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tables_are_read_without_an_error(tmp_path_factory, start, table):
    disk = written(tmp_path_factory.mktemp("any") / "d")
    data = bytearray(disk.read_bytes())
    data[8 : 8 + len(start)] = start
    data[CLUSTER : CLUSTER + len(table)] = table
    disk.write_bytes(data)
    assert ending_of(disk, None).size == len(data)
