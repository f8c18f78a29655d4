"""The memory of several chains that are built at once, in a group that has no more of it.

    python -m tests.benchmarks memory [--gib N] [--chains N]

So many copies of ``lago-debian-12`` under other names, each with its boot tests, are built
by ``lago-images build`` into an empty directory, in a control group of so much memory and on two
processors. What fits is told by the kernel: processes that it ended, what it swapped, pages that
it had to read again, and the most that was taken at once without what files fill. Needs root, and
a tree of groups (version 1 or 2) that may be written to. It needs a mirror.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.build import ROOT

SPEC = "lago-debian-12"
MOUNT = Path("/sys/fs/cgroup")
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A control group with a limit of memory, and the words of its version of the kernel's tree."""

    folder: Path
    limit: str
    events: str
    own: tuple[str, ...]
    swap: str
    again: str

    def command(self, argv: list[str]) -> list[str]:
        """Return the command that runs another one in the group."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', f"{self.folder}/cgroup.procs", *argv]

    def numbers(self, name: str = "memory.stat") -> dict[str, int]:
        """What a file of the group tells."""
        lines = (line.split() for line in (self.folder / name).read_text().splitlines())
        return {key: int(value) for key, value in lines}

    def taken(self) -> int:
        """Bytes of processes' own memory; what files fill may be dropped at any time."""
        numbers = self.numbers()
        return sum(numbers[key] for key in self.own)

    def swapped(self) -> int:
        """Bytes that are swapped out."""
        if self.swap in (numbers := self.numbers()):
            return numbers[self.swap]
        return int((self.folder / self.swap).read_text())


def unlimited() -> Group:
    """Name a group that does not exist yet, in the tree that there is."""
    name = f"memory-of-chains-{os.getpid()}"
    if (MOUNT / "cgroup.controllers").exists():
        return Group(
            folder=MOUNT / name,
            limit="memory.max",
            events="memory.events",
            own=("anon", "shmem"),
            swap="memory.swap.current",
            again="workingset_refault_file",
        )
    return Group(
        folder=MOUNT / "memory" / name,
        limit="memory.limit_in_bytes",
        events="memory.oom_control",
        own=("total_rss", "total_shmem"),
        swap="total_swap",
        again="total_workingset_refault_file",
    )


@contextmanager
def group(size: int) -> Iterator[Group]:
    """Make a group of so many bytes; remove it after."""
    made = unlimited()
    made.folder.mkdir()
    try:
        (made.folder / made.limit).write_text(str(size))
        yield made
    finally:
        made.folder.rmdir()


def repository(folder: Path, chains: int) -> None:
    """Put the copies into a repository, which differ by a file."""
    shutil.copytree(ROOT / "image-specs/files", folder / "image-specs/files")
    text = (ROOT / "image-specs" / SPEC).read_text()
    for number in range(chains):
        spec = re.sub("(?m)^#name=.*$", f"#name=Chain {number}", text)
        (folder / f"image-specs/chain-{number}").write_text(f"{spec}write /etc/chain:{number}\n")


def main() -> int:
    """Print what the build took, and whether it fitted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=int, default=8)
    parser.add_argument("--chains", type=int, default=4)
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    argv = [sys.executable, "-m", "lago_images", "build", "--jobs", str(given.chains)]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, group(given.gib * GIB) as made:
        folder = Path(name)
        repository(folder, given.chains)
        environ = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        started, most, swapped = time.monotonic(), 0, 0
        build = subprocess.Popen(made.command(argv), cwd=folder, env=environ)
        while build.poll() is None:
            most, swapped = max(most, made.taken()), max(swapped, made.swapped())
            time.sleep(0.5)
        seconds = time.monotonic() - started
        ended = made.numbers(made.events)["oom_kill"]
        again = made.numbers()[made.again] * os.sysconf("SC_PAGE_SIZE")
    print(f"{given.chains} chains in {given.gib} GiB: exit {build.returncode}, {seconds:.0f} s")
    print(f"  {most / GIB:.2f} GiB at most, {swapped / GIB:.2f} GiB swapped")
    print(f"  {ended} processes ended for want of memory, {again / GIB:.2f} GiB read again")
    return build.returncode


if __name__ == "__main__":
    sys.exit(main())
