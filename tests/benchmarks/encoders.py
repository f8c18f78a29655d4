"""Bytes and processor seconds of encoders and levels, of real disks.

    python -m tests.benchmarks encoders [--most MIB] DISK…

A DISK is a qcow2 as ``lago-images build`` writes it, or an xz of one; ``--most`` takes its middle
alone. Each encoder has one thread, and its stream is counted and thrown away: of the time nothing
goes to a file. As many disks side by side as there are processors, the encoders of each one after
the other. The levels of 7-Zip are those that ``lago_images/disks/compress.py`` has, without a
checksum; the rival is the older tool's ``xz --best --block-size=16MiB``.
"""

import argparse
import lzma
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lago_images.disks.compress import by_7zip

# 4 is as 3.
LEVELS = (2, 3, 5, 6, 7)
RIVAL = ["xz", "--best", "--block-size=16MiB", "--threads=1", "--stdout"]
WIDTH = 42


def encoders() -> Iterator[tuple[str, list[str]]]:
    """Each encoder's name and command, which reads stdin and writes stdout."""
    yield " ".join(RIVAL[:3]), RIVAL
    for level in LEVELS:
        command = [part for part in by_7zip(level, 1) if not part.startswith("-mmt")]
        yield f"level {level}: {command[3].partition('a=1:')[2]}", [*command, "-mmt=1"]


def cost(command: list[str], disk: Path) -> tuple[float, int]:
    """Processor seconds of an encoder, and its stream's bytes."""
    stream, writing = os.pipe()
    with disk.open("rb") as file:
        files = [(os.POSIX_SPAWN_DUP2, file.fileno(), 0), (os.POSIX_SPAWN_DUP2, writing, 1)]
        child = os.posix_spawnp(command[0], command, os.environ, file_actions=files)
    os.close(writing)
    size = 0
    with os.fdopen(stream, "rb", buffering=0) as reader:
        while piece := reader.read(1 << 16):
            size += len(piece)
    _, status, used = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, command
    return used.ru_utime + used.ru_stime, size


def piece(disk: Path, most: int, folder: Path) -> Path:
    """Put the disk, or so many MiB of its middle, into the folder."""
    data = disk.read_bytes()
    if disk.suffix == ".xz":
        data = lzma.decompress(data)
    first = max(0, len(data) // 2 - (most << 19))
    plain = folder / disk.name
    plain.write_bytes(memoryview(data)[first : first + (most << 20)])
    return plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("disks", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=1 << 20)
    given = parser.parse_args()
    disks = given.disks
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        plain = [piece(disk, given.most, Path(name)) for disk in disks]

        def costs(disk: Path) -> list[tuple[float, int]]:
            return [cost(command, disk) for _, command in encoders()]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(costs, plain))
    sizes = "".join(f"{disk.stem[:20]:>24}" for disk in disks)
    print(f"{'':{WIDTH}}{sizes}")
    for at, (name, _) in enumerate(encoders()):
        cells = "".join(f"{one[at][1] / 1e6:13.2f} MB {one[at][0]:6.1f} s" for one in found)
        print(f"{name:{WIDTH}}{cells}")


if __name__ == "__main__":
    main()
