"""The xz stream we put together, as xz and liblzma read it."""

import hashlib
import lzma
import random
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lago_images.disks import xz
from lago_images.disks.compress import blocks, compress
from lago_images.disks.decompress import decompress
from lago_images.errors import BuildError
from tests.tools import need

MIB = 2**20
BLOCK = xz.BLOCK_SIZE


def noise(size, seed=1):
    """Bytes that look random near by and repeat further on, so that tests are quick."""
    near = random.Random(seed).randbytes(min(size, 50_000))
    return (near * (size // max(len(near), 1) + 1))[:size]


def packed(path, **options):
    work = compress(path, level=0, **options)
    return b"".join(work), work.digests


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        noise(1000),
        b"ab" * MIB,
        bytes(BLOCK),
        bytes(BLOCK - 1),
        bytes(BLOCK + 1) + b"end",
        noise(BLOCK),
        noise(MIB) + bytes(3 * BLOCK - MIB),
        bytes(2 * BLOCK) + noise(MIB),
    ],
    ids=lambda data: f"{len(data)}-{data[:1].hex()}",
)
def test_every_checksum_is_of_what_it_says(tmp_path, data):
    disk = tmp_path / "disk"
    disk.write_bytes(data)
    stream, digests = packed(disk, threads=2)
    assert lzma.decompress(stream, lzma.FORMAT_XZ) == data
    assert digests.size == len(data)
    assert digests.compressed_size == len(stream)
    assert digests.sha1 == hashlib.sha1(data).hexdigest()
    assert digests.sha256 == hashlib.sha256(stream).hexdigest()
    assert digests.sha512 == hashlib.sha512(stream).hexdigest()
    assert decompress([stream], tmp_path / "again", largest=2**40, what="it") == digests
    assert (tmp_path / "again").read_bytes() == data


@settings(max_examples=12, deadline=None)
@given(
    runs=st.lists(
        st.tuples(st.sampled_from(["zero", "noise", "text"]), st.integers(0, 3 * MIB)), max_size=7
    ),
    cuts=st.integers(1, MIB),
)
def test_round_trips(tmp_path_factory, runs, cuts):
    make: dict[str, Any] = {
        "zero": bytes,
        "noise": noise,
        "text": lambda n: (b"lago " * n)[:n],
    }
    data = b"".join(make[kind](size) for kind, size in runs)
    folder = tmp_path_factory.mktemp("trip")
    (folder / "disk").write_bytes(data)
    stream, digests = packed(folder / "disk", threads=3)
    pieces = [stream[i : i + cuts] for i in range(0, len(stream), cuts)]
    assert decompress(pieces, folder / "again", largest=2**40, what="it") == digests
    assert (folder / "again").read_bytes() == data


def test_xz_lists_one_stream_and_tests_it(tmp_path):
    need("xz")
    disk = tmp_path / "disk"
    disk.write_bytes(noise(MIB) + bytes(2 * BLOCK) + noise(5))
    (tmp_path / "disk.xz").write_bytes(packed(disk)[0])
    listed = subprocess.run(
        ["xz", "--robot", "--list", "-vv", tmp_path / "disk.xz"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    [file] = [row for row in rows if row[0] == "file"]
    assert file[1:3] == ["1", "3"]
    assert file[4] == str(disk.stat().st_size)
    assert file[6] == "CRC64"
    # In "summary" xz tells whether every block header has both sizes, which lets it use threads.
    [summary] = [row for row in rows if row[0] == "summary"]
    assert summary[2] == "yes"
    subprocess.run(["xz", "--test", tmp_path / "disk.xz"], check=True)
    unpacked = subprocess.run(
        ["xz", "-dc", "-T2", tmp_path / "disk.xz"], check=True, capture_output=True
    ).stdout
    assert unpacked == disk.read_bytes()


def test_holes_cost_nothing_and_stay_holes(tmp_path):
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.write(b"start")
        file.seek(12 * BLOCK)
        file.write(b"end")
    given = list(blocks(disk))
    assert len({id(data) for data in given[1:-1]}) == 1
    stream, digests = packed(disk)
    assert digests.size == 12 * BLOCK + 3
    assert len(stream) < 200_000
    decompress([stream], tmp_path / "again", largest=2**40, what="it")
    assert (tmp_path / "again").stat().st_blocks * 512 < 8 * MIB


def test_a_level_is_taken_at_its_word(tmp_path):
    text = b"".join(str(n * n % 8191).encode() for n in range(100_000))
    assert len(xz.encode(text, 6).data) < len(xz.encode(text, 0).data)
    assert lzma.decompress(xz.HEADER + _single(xz.encode(text, 9))) == text


def _single(block):
    return block.data + xz.ending([(block.unpadded, block.size)])


def test_digests_of_half_a_stream_are_refused(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(100))
    work = compress(disk, level=0)
    stream: Any = iter(work)
    next(stream)
    stream.close()
    with pytest.raises(BuildError, match="not compressed to its end"):
        _ = work.digests


def test_threads_end_with_the_consumer(tmp_path):
    import threading

    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        for seed in range(6):
            file.write(noise(BLOCK, seed))
    stream: Any = iter(compress(disk, level=0, threads=2))
    for _ in range(2):
        next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("xz")]
