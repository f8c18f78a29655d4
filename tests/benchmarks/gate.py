"""What the gate costs: a Debian 12 that is only waited for, judged at one boot, and at two.

    python -m tests.benchmarks gate [--rounds N]

Waited for is what the boot test once was: the guest agent answers. So is the same with cloud-init,
which no seed is given: it has to start as fast. Before a release a bootstrapped image is judged at
two starts under BIOS, and at one under UEFI.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lago_images.building.boot.boot_test import Bench, Questions, Subject, boot_test
from lago_images.building.boot.machines import accelerator, machine_for
from lago_images.building.boot.running import Watch, started
from lago_images.host import kvm
from lago_images.host.process import Runner
from tests.benchmarks.build import Cost, measured
from tests.support.guests import overlay
from tests.support.images import Image, debian12, debian12_cloud

LONGEST = 1800.0


def wait_only(folder: Path, image: Image) -> None:
    """Start the disk until its agent answers."""
    disk = overlay(image.disk, folder / "overlay.qcow2")
    watch = Watch(
        console=folder / "console", errors=folder / "errors", limit=LONGEST, clock=time.monotonic
    )
    machine = machine_for("x86_64")
    accel = accelerator(machine, kvm.detect(Runner()))
    with started(disk, machine, watch, accel, Runner()) as guest:
        guest.wait()


def judge(folder: Path, *, again: bool, firmware: str = "bios") -> None:
    """Run the boot test."""
    bench = Bench(
        accel=kvm.detect(Runner()),
        timeout=LONGEST,
        workdir=folder,
        runner=Runner(),
        clock=time.monotonic,
        console_log=folder / "console",
    )
    subject = Subject(disk=debian12().disk, fmt="raw", arch="x86_64", firmware=firmware)
    boot_test(subject, bench, Questions(again=again))


def cost(work: Callable[[Path], None]) -> Cost:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        return measured(lambda: work(Path(name)))


def main() -> None:
    """Print the medians of wall and processor seconds, and how many times the first they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    plain, cloud = debian12(), debian12_cloud()
    works: dict[str, Callable[[Path], None]] = {
        "the agent answers": lambda folder: wait_only(folder, plain),
        "the agent answers, with cloud-init": lambda folder: wait_only(folder, cloud),
        "judged at one boot": lambda folder: judge(folder, again=False),
        "judged, shut down, started again": lambda folder: judge(folder, again=True),
        "judged at one boot under UEFI": lambda folder: judge(folder, again=False, firmware="uefi"),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            costs[name].append(cost(work))
            print(f"  {name:34} {costs[name][-1]}", flush=True)
    for name, all_of in costs.items():
        wall = statistics.median(each.wall for each in all_of)
        processor = statistics.median(each.processor for each in all_of)
        first = costs["the agent answers"]
        ratios = [each.processor / one.processor for each, one in zip(all_of, first, strict=True)]
        spread = f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:36} {Cost(wall=wall, processor=processor)} {spread}")
