"""Start a disk on the terminal, for a person to look into it."""

import os
from collections.abc import Mapping
from pathlib import Path

from lago_images.building.boot.machines import Machine, accelerator, processor, refuse_missing
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner

MEMORY_MIB = 2048


def command(machine: Machine, disk: Path, fmt: str, accel: Acceleration) -> list[str]:
    """Return the command that starts a disk with its serial console on the terminal.

    ``snapshot=on`` puts all that the guest writes into a file that QEMU deletes when it ends.
    """
    name = accelerator(machine, accel)
    # In QEMU's option lists a comma in a file's name is written twice.
    file = str(disk).replace(",", ",,")
    return [
        machine.program, *machine.options,
        "-accel", name,
        "-cpu", processor(machine, name),
        "-smp", str(min(2, len(os.sched_getaffinity(0)))),
        "-m", str(MEMORY_MIB),
        "-nographic",
        "-drive", f"file={file},format={fmt},if=none,id=disk,snapshot=on",
        "-device", "virtio-blk,drive=disk",
        "-netdev", "user,id=net",
        "-device", "virtio-net,netdev=net",
        "-object", "rng-random,filename=/dev/urandom,id=rng",
        "-device", "virtio-rng,rng=rng",
    ]  # fmt: skip


def start(argv: list[str], machine: Machine, scratch: Path, environ: Mapping[str, str]) -> int:
    """Run the command of ``command`` until the guest is off; return QEMU's exit code.

    Args:
        argv: The command.
        machine: What it starts.
        scratch: The folder for what the guest writes.
        environ: The environment variables of the call.

    Raises:
        ToolMissingError: The emulator or its firmware is not installed.
    """
    refuse_missing(machine, environ)
    return Runner(environ=environ).interact(argv, env={"TMPDIR": str(scratch)})
