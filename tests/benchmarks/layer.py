"""The commands of a layer that installs packages, with nothing kept and with its packages kept.

    python -m tests.benchmarks layer [--rounds N]

``lago-debian-12-iscsi`` of ``image-specs`` on the bootstrapped Debian 12 of the tests, by the
engine of namespaces, from the mirrors that the guest has. Prints seconds, processor seconds with
all programs that were started, and the bytes that came over the guest's network: apt's lists and
packages.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from lago_images.building.customise.namespace import customise as namespaces
from lago_images.building.customise.namespace.user_namespace import networked
from lago_images.host.process import Runner
from tests.benchmarks.build import CHAIN, Cost, chain, measured
from tests.support import images

ROOT = Path(__file__).parents[2]


def once(cache: Path) -> tuple[Cost, int]:
    """What the commands cost, and the bytes that the guest got."""
    received: list[int] = []

    @contextmanager
    def counted(runner: Runner, held: Any, allowed: frozenset[str]) -> Iterator[None]:
        with networked(runner, held, allowed):
            yield
            received.append(bytes_of(Path(f"/proc/{held.pid}/net/dev").read_text()))

    [spec] = [each for each in chain(boot=False) if each.name == CHAIN[1]]
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as name,
        mock.patch.object(namespaces, "networked", counted),
    ):
        folder, work = Path(name), Path(name) / "work"
        work.mkdir()
        context = replace(images.a_context(folder), cache=cache, root=ROOT)
        prepared, runner = images.debian12().copy(work), Runner(log=folder / "log")
        cost = measured(lambda: namespaces.customise(spec, prepared, work, context, runner))
    return cost, received[0]


def bytes_of(devices: str) -> int:
    """The bytes that the interface tap0 has received, as /proc/net/dev has them."""
    lines = (line.split(":") for line in devices.splitlines() if ":" in line)
    return next(int(fields.split()[0]) for name, fields in lines if name.strip() == "tap0")


def main() -> None:
    """Print the medians of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    images.debian12()
    found: dict[str, list[tuple[Cost, int]]] = {"nothing kept": [], "packages kept": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
            for every in found.values():
                every.append(once(Path(name)))
    for what, every in found.items():
        wall = statistics.median(cost.wall for cost, _ in every)
        processor = statistics.median(cost.processor for cost, _ in every)
        received = statistics.median(size for _, size in every)
        print(f"{what:14} {Cost(wall=wall, processor=processor)} {received / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
