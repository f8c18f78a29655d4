"""Bound what commands take of the host: no more disk and memory than an appliance would have.

They are measured, not set: cgroups would need a part of their tree that is ours, which containers
and CI's runners seldom give. In between the kernel's own bounds hold: of one process, and that it
ends these first where memory is short.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lago_images.building.customise.namespace.guest_archives import MOST_BYTES
from lago_images.building.customise.namespace.user_namespace import Namespace
from lago_images.host import space
from lago_images.host.process import Runner

# Bytes of all processes; libguestfs's appliance has the same, less its kernel's.
MOST_MEMORY = 2 * 2**30
_KIB = 1024


@dataclass(slots=True)
class Bounds:
    """Tells whether commands have taken too much; ``exceeded`` says of what, or nothing.

    Args:
        disk_size: Bytes that the tree may have.
        folder: Has ``tree``, and ``fetched`` for packages.
        held: The namespace that the commands run in.
        runner: Measures the tree.
        exceeded: What they did, to follow their name.
    """

    disk_size: int
    folder: Path
    held: Namespace
    runner: Runner
    exceeded: str = ""
    _start: int = field(init=False)

    def __post_init__(self) -> None:
        self._start = space.free(self.folder)

    def free(self, folder: Path) -> int:
        """Return the bytes that are free in a folder; none once too much was taken.

        Others use the host's disk, too: the tree is measured only when it may be too large.
        """
        bytes_free = space.free(folder)
        if self._start - bytes_free > self.disk_size and self._is_too_large():
            self.exceeded = "wrote more than its disk holds"
        if memory(self.held) > MOST_MEMORY:
            self.exceeded = f"took more than {MOST_MEMORY // 2**30} GiB of memory"
        return 0 if self.exceeded else bytes_free

    def _is_too_large(self) -> bool:
        # Files come and go under it, of which it complains.
        command = "du --summarize --one-file-system --block-size=1 tree fetched 2>/dev/null || :"
        runner = self.held.runner(self.runner)
        out = runner.capture(["sh", "-c", command], cwd=self.folder, doing="measuring a tree")
        sizes = [int(line.split()[0]) for line in out.decode().splitlines()]
        # Whoever keeps it from being measured has written too much; files take whole blocks.
        tree, fetched = sizes if len(sizes) > 1 else (self.disk_size + 1, 0)
        return tree > self.disk_size or fetched > 2 * MOST_BYTES


def memory(held: Namespace) -> int:
    """Return the bytes of memory that a namespace's processes have for themselves."""
    own = Path(f"/proc/{held.pid}/ns/user").readlink()
    processes = list(_processes(own))
    # What a fork shares with its parent is counted twice here, but soon read.
    rough = sum(_kib(process / "status", "RssAnon:") for process in processes) * _KIB
    if rough <= MOST_MEMORY:
        return rough
    return sum(_kib(process / "smaps_rollup", "Pss:") for process in processes) * _KIB


def _processes(user_namespace: Path) -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            # It has ended, or is another user's.
            with suppress(OSError):
                if (process / "ns/user").readlink() == user_namespace:
                    yield process


def _kib(file: Path, name: str) -> int:
    with suppress(OSError):
        for line in file.read_text("utf-8", "replace").splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return 0
