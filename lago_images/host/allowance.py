"""Read how much of the machine this process may use: what is there, and what its cgroups allow."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_KIB = 2**10
_MOUNT = "sys/fs/cgroup"
# Where a container is shown no more than its own group, that is the root of each of these trees:
# that of version 2, and those of version 1's controllers.
_ROOTS = ("0::/", "0:memory:/", "0:cpu:/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Bytes of memory and processors that a process may use."""

    memory: int
    processors: int


def allowance(root: Path = Path("/")) -> Allowance:
    """Return what this process may use now; ``root`` is where it is read from."""
    fields = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * _KIB
    groups = [folder for line in _own_groups(root) for folder in _up_from(root / _MOUNT, line)]
    return Allowance(
        memory=min([available, *_memory_limits(groups)]),
        processors=min([len(os.sched_getaffinity(0)), *_processor_limits(groups)]),
    )


def _own_groups(root: Path) -> Sequence[str]:
    try:
        return (*_ROOTS, *(root / "proc/self/cgroup").read_text().splitlines())
    except OSError:
        return _ROOTS


def _up_from(mount: Path, line: str) -> Iterator[Path]:
    """Return the folders of a group in a line of ``/proc/self/cgroup``, and of those it is in.

    What limits one of those limits the group, too.
    """
    _, controllers, path = line.split(":", 2)
    # Above the root of a container's own tree of groups there is nothing to be seen.
    parts = [part for part in PurePosixPath(path).parts if part not in {"/", ".."}]
    # Version 2 has one tree without a name.
    for controller in controllers.split(","):
        for depth in range(len(parts) + 1):
            yield mount.joinpath(controller, *parts[:depth])


def _memory_limits(groups: Sequence[Path]) -> Iterator[int]:
    for folder in groups:
        # Of versions 2 and 1. "max", and a larger number than there is, stand for no limit.
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (text := _text(folder / name)).isdecimal():
                yield int(text)


def _processor_limits(groups: Sequence[Path]) -> Iterator[int]:
    for folder in groups:
        # Microseconds of processor time in a period. "max", and -1, stand for no limit.
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not period:
            quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal():
            # One and a half is worth two threads.
            yield max(1, -(-int(quota) // int(period)))


def _text(file: Path) -> str:
    with suppress(OSError):
        return file.read_text().strip()
    return ""
