"""The xz stream we put together, as xz and liblzma read it."""

import hashlib
import lzma
import os
import random
import shlex
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lago_images.disks import xz
from lago_images.disks.compress import blocks, compress, fitting_threads
from lago_images.disks.decompress import decompress
from lago_images.errors import BuildError
from lago_images.host.process import Runner
from lago_images.host.threads import UNAWAITED
from lago_images.settings import Settings
from tests.tools import need

MIB = 2**20
BLOCK = xz.BLOCK_SIZE
HANGS = 300
GIB = 2**30
LIBRARIES = tuple(Path("/usr/lib/x86_64-linux-gnu").glob("*.so.*"))


def noise(size, seed=1):
    """Bytes that look random near by and repeat further on, so that tests are quick."""
    near = random.Random(seed).randbytes(min(size, 50_000))
    return (near * (size // max(len(near), 1) + 1))[:size]


def packed(path, **options):
    work = compress(path, **{"level": 0, "threads": 2, **options})
    return b"".join(work), work.digests


def by_7zip():
    """Return the options with which 7-Zip compresses."""
    need("7zz")
    return {"level": 2, "runner": Runner()}


@pytest.fixture(params=["liblzma", "7zip"])
def encoder(request):
    return by_7zip() if request.param == "7zip" else {}


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
def test_checksums_are_of_the_disk_and_of_the_compressed_stream(tmp_path, data, encoder):
    disk = tmp_path / "disk"
    disk.write_bytes(data)
    stream, digests = packed(disk, threads=2, **encoder)
    assert lzma.decompress(stream, lzma.FORMAT_XZ) == data
    assert digests.size == len(data)
    assert digests.compressed_size == len(stream)
    assert digests.sha1 == hashlib.sha1(data).hexdigest()
    assert digests.sha256 == hashlib.sha256(stream).hexdigest()
    assert digests.sha512 == hashlib.sha512(stream).hexdigest()
    assert decompress([stream], tmp_path / "again", largest=2**40, label="it") == digests
    assert (tmp_path / "again").read_bytes() == data


@settings(max_examples=12, deadline=None)
@given(
    runs=st.lists(
        st.tuples(st.sampled_from(["zero", "noise", "text"]), st.integers(0, 3 * MIB)), max_size=7
    ),
    cuts=st.integers(1, MIB),
)
def test_a_compressed_disk_decompresses_to_the_same_bytes(tmp_path_factory, runs, cuts):
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
    assert decompress(pieces, folder / "again", largest=2**40, label="it") == digests
    assert (folder / "again").read_bytes() == data


def test_xz_reads_the_result_as_one_valid_stream(tmp_path, encoder):
    need("xz")
    disk = tmp_path / "disk"
    disk.write_bytes(noise(MIB) + bytes(2 * BLOCK) + noise(5))
    (tmp_path / "disk.xz").write_bytes(packed(disk, **encoder)[0])
    listed = subprocess.run(
        ["xz", "--robot", "--list", "-vv", tmp_path / "disk.xz"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    [file] = [row for row in rows if row[0] == "file"]
    # 7-Zip makes blocks of 32 MiB.
    assert file[1:3] == ["1", "2" if encoder else "3"]
    assert file[4] == str(disk.stat().st_size)
    assert file[6] == "CRC32"
    # In "summary" xz tells whether every block header has both sizes, which lets it use threads.
    [summary] = [row for row in rows if row[0] == "summary"]
    assert summary[2] == "yes"
    subprocess.run(["xz", "--test", tmp_path / "disk.xz"], check=True)
    unpacked = subprocess.run(
        ["xz", "-dc", "-T2", tmp_path / "disk.xz"], check=True, capture_output=True
    ).stdout
    assert unpacked == disk.read_bytes()


def test_nbdkit_serves_the_result_as_the_disk(tmp_path):
    """Of a whole number of blocks, after which 7-Zip has an empty one."""
    need("nbdkit", "qemu-img")
    disk = tmp_path / "disk"
    libraries = b"".join(path.read_bytes() for path in sorted(LIBRARIES)[:40])
    disk.write_bytes(bytes(3 * MIB) + libraries[: 8 * MIB])
    os.truncate(disk, 64 * MIB)
    level = Settings().compression_level
    (tmp_path / "disk.xz").write_bytes(packed(disk, **{**by_7zip(), "level": level})[0])
    compare = f'qemu-img compare -f raw -F raw {shlex.quote(str(disk))} "$uri"'
    argv = ["nbdkit", "--unix", "-", "--readonly", "--filter=xz", "file", tmp_path / "disk.xz"]
    subprocess.run([*argv, "--run", compare], check=True, timeout=HANGS)


def test_holes_compress_to_little_and_stay_holes(tmp_path):
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
    decompress([stream], tmp_path / "again", largest=2**40, label="it")
    assert (tmp_path / "again").stat().st_blocks * 512 < 8 * MIB


def test_the_compression_level_is_honoured(tmp_path):
    text = b"".join(str(n * n % 8191).encode() for n in range(100_000))
    assert len(xz.encode(text, 6).data) < len(xz.encode(text, 0).data)
    assert lzma.decompress(xz.HEADER + _single(xz.encode(text, 9))) == text


def _single(block):
    return block.data + xz.ending([(block.unpadded, block.size)])


def test_7zip_compresses_better_than_liblzma_at_the_same_level(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(b"".join(path.read_bytes() for path in sorted(LIBRARIES)[:60])[: 8 * MIB])
    stream, digests = packed(disk, **by_7zip())
    assert lzma.decompress(stream, lzma.FORMAT_XZ) == disk.read_bytes()
    assert digests.compressed_size < len(packed(disk, level=2)[0])


def test_the_default_level_gives_the_same_bytes_on_any_number_of_processors(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(noise(MIB) + b"".join(str(n).encode() for n in range(200_000)))
    options = {**by_7zip(), "level": Settings().compression_level}
    assert packed(disk, threads=1, **options) == packed(disk, threads=2, **options)


def test_where_7zip_is_missing_liblzma_compresses(tmp_path, monkeypatch):
    monkeypatch.setattr("lago_images.host.process._ADMIN", ())
    disk = tmp_path / "disk"
    disk.write_bytes(noise(MIB))
    none = {"level": 2, "runner": Runner(environ={"PATH": str(tmp_path)})}
    assert packed(disk, **none)[0] == packed(disk, level=2)[0]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo no memory >&2; exit 8", "no memory"),
        ("exit 3", "the stream ends early"),
        ("cat >/dev/null; echo something else", "no xz stream"),
        ("cat >/dev/null; head -c 1000 <&3", "the stream ends early"),
        ("head -c 1000 >/dev/null; exit 2", "the stream ends early"),
    ],
)
def test_a_failure_of_7zip_is_reported(tmp_path, script, why):
    """A disk of which only a part was compressed is never taken for whole."""
    disk, program = tmp_path / "disk", tmp_path / "7zz"
    disk.write_bytes(noise(3 * MIB))
    (tmp_path / "whole").write_bytes(packed(disk)[0])
    program.write_text(f"#!/bin/sh\nexec 3<{tmp_path}/whole\n{script}\n")
    program.chmod(0o755)
    runner = Runner(environ={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    with pytest.raises(BuildError, match=f"7zz failed: .*{why}"):
        packed(disk, level=2, runner=runner)


def test_a_disk_that_7zip_read_partly_is_refused(tmp_path):
    disk, program = tmp_path / "disk", tmp_path / "7zz"
    disk.write_bytes(noise(3 * MIB))
    program.write_text("#!/bin/sh\ncat >/dev/null; head -c 1000 /dev/zero | xz -C crc32\n")
    program.chmod(0o755)
    runner = Runner(environ={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    with pytest.raises(BuildError, match="was not compressed whole"):
        packed(disk, level=2, runner=runner)


def test_the_end_of_a_run_stops_7zip(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(random.Random(1).randbytes(MIB) * 40)
    runner = Runner()
    stream: Any = iter(compress(disk, runner=runner, threads=2, level=by_7zip()["level"]))
    assert next(stream) == xz.HEADER
    timer = threading.Timer(0.2, runner.children.end)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    timer.join()
    assert not [t for t in threading.enumerate() if t.name.startswith("7zz")]


def test_digests_of_a_partial_stream_are_refused(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(100))
    work = compress(disk, level=0, threads=2)
    stream: Any = iter(work)
    next(stream)
    stream.close()
    with pytest.raises(BuildError, match="not compressed to its end"):
        _ = work.digests


def test_compression_threads_end_with_the_consumer(tmp_path, encoder):
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        for seed in range(6):
            file.write(noise(BLOCK, seed))
    stream: Any = iter(compress(disk, **{"level": 0, **encoder}, threads=2))
    for _ in range(2):
        next(stream)
    stream.close()
    for thread in threading.enumerate():
        if thread.name.startswith((f"{UNAWAITED}-xz", "7zz")):
            thread.join(HANGS)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("memory", "processors", "threads"),
    [(8 * GIB, 2, 2), (8 * GIB, 64, 20), (GIB, 16, 2), (0, 4, 1), (-GIB, 4, 1)],
)
def test_as_many_threads_compress_as_have_memory(memory, processors, threads):
    assert fitting_threads(memory, processors) == threads
