"""Compressing and hashing a disk, beside 7-Zip alone, and ``xz -T0`` and a read for each checksum.

    python -m tests.benchmarks.compress [DISK] [--rounds N] [--best]

Without a disk, 192 MiB of this machine's /usr/lib. Ours: one pass that gives the stream and five
facts about it (sha1 and size of the disk; sha256, sha512 and size of the stream). The rival: xz
with the same level and blocks, then sha1sum, sha256sum and sha512sum, each with a read of its
own; and 7-Zip with our settings, which hashes nothing. ``--best`` adds the older tool's ``xz
--best``. Rounds alternate; ratios are those of one round's costs, with their spread.
"""

import argparse
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lago_images.disks import xz
from lago_images.disks.compress import by_7zip, compress
from lago_images.host.process import Runner
from lago_images.settings import Settings

SAMPLE = 192 * 2**20
LEVEL = Settings().compression_level
THREADS = len(os.sched_getaffinity(0))
SUMS = (("sha1sum", "disk"), ("sha256sum", "disk.xz"), ("sha512sum", "disk.xz"))


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cost:
    """Seconds by the clock and of processors, and the stream's bytes."""

    wall: float
    processor: float
    size: int


def measured(work: Callable[[], int]) -> Cost:
    wall, before = time.perf_counter(), _processor()
    size = work()
    return Cost(wall=time.perf_counter() - wall, processor=_processor() - before, size=size)


def _processor() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def ours(folder: Path) -> int:
    work = compress(folder / "disk", level=LEVEL, threads=THREADS, runner=Runner())
    with (folder / "disk.xz").open("wb") as file:
        file.writelines(work)
    return work.digests.compressed_size


def rival(folder: Path, level: str) -> int:
    options = ["--threads=0", f"--block-size={xz.BLOCK_SIZE}", level, "--stdout", "disk"]
    with (folder / "disk.xz").open("wb") as file:
        subprocess.run(["xz", *options], cwd=folder, stdout=file, check=True)
    for program, name in SUMS:
        subprocess.run([program, name], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return (folder / "disk.xz").stat().st_size


def seven_zip(folder: Path) -> int:
    """Compress by 7-Zip alone, without a checksum and with the headers that it writes."""
    command = by_7zip(LEVEL, THREADS)
    with (folder / "disk").open("rb") as disk, (folder / "disk.xz").open("wb") as file:
        subprocess.run(command, stdin=disk, stdout=file, check=True)
    return (folder / "disk.xz").stat().st_size


def sample(disk: Path) -> None:
    """Programs and data as an image has them."""
    with disk.open("wb") as out:
        for path in sorted(Path("/usr/lib").rglob("*")):
            if path.is_file() and not path.is_symlink():
                out.write(path.read_bytes()[: SAMPLE - out.tell()])
            if out.tell() >= SAMPLE:
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("disk", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--best", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.disk:
            (folder / "disk").symlink_to(given.disk.resolve())
        else:
            sample(folder / "disk")
        contest(folder, given.rounds, best=given.best)


def contest(folder: Path, rounds: int, *, best: bool) -> None:
    size = (folder / "disk").stat().st_size
    print(f"a disk of {size / 1e6:.0f} MB, level {LEVEL}, {rounds} rounds")
    works: dict[str, Callable[[], int]] = {
        "ours": lambda: ours(folder),
        "7zz alone": lambda: seven_zip(folder),
        f"xz -{LEVEL} -T0 + sums": lambda: rival(folder, f"-{LEVEL}"),
    }
    if best:
        works["xz --best -T0 + sums"] = lambda: rival(folder, "--best")
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            costs[name].append(measured(work))
    mine = costs["ours"]
    for name, found in costs.items():
        cost = min(found)
        pairs = list(zip(mine, found, strict=True))
        print(
            f"{name:24} {cost.wall:7.1f} s  {cost.processor:7.1f} processor s  "
            f"{cost.size / 1e6:7.2f} MB   ours is {_spread([a.wall / b.wall for a, b in pairs])} "
            f"of its time, {_spread([a.processor / b.processor for a, b in pairs])} of its work, "
            f"{mine[0].size / cost.size:.3f} of its size"
        )


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
