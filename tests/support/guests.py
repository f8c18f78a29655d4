"""Guests that tests start, ask and stop, with the firmware that a test names."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lago_images.building.boot import console_signs, running
from lago_images.building.boot.guest_agent import Agent
from lago_images.building.boot.machines import accelerator, machine_for
from lago_images.building.boot.running import Watch
from lago_images.errors import BootError
from lago_images.host import kvm
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner

# Emulation on a busy machine is slow; a guest that is stuck is stuck for longer.
_LONGEST = 1800.0


@cache
def acceleration() -> Acceleration:
    """What guests run on here, which takes seconds to find out where KVM hangs."""
    return kvm.detect(Runner())


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A machine whose agent answers."""

    agent: Agent
    console: Path

    def ask(self, command: str) -> Any:
        """The agent's answer to a command."""
        self.agent.settle(timeout=_LONGEST)
        return self.agent.ask(command, timeout=_LONGEST)

    def run(self, script: str) -> str:
        """What a shell script prints in the guest; ``BootError`` if it fails."""
        self.agent.settle(timeout=_LONGEST)
        argv = ("/bin/sh", "-c", f"export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n{script}")
        return self.agent.run(argv, timeout=_LONGEST).decode()


def overlay(disk: Path, path: Path, size: str = "") -> Path:
    """A disk above a raw one, which may be larger and may be written to."""
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk), str(path)]
    subprocess.run([*create, *([size] if size else [])], check=True, timeout=60)
    return path


@contextmanager
def started(
    disk: Path,
    console: Path,
    *,
    arch: str = "x86_64",
    firmware: str = "bios",
    forward: str = "",
    more: tuple[str, ...] = (),
) -> Iterator[Guest]:
    """Start a qcow2 disk, which the guest writes to, and wait for its agent.

    Args:
        disk: The disk.
        console: Where the serial console's output goes.
        arch: The machine's.
        firmware: The kind of firmware.
        forward: What QEMU's ``hostfwd_add`` takes; empty for none.
        more: Further options of QEMU.
    """
    machine = machine_for(arch, firmware)
    accel = accelerator(machine, acceleration())
    errors = console.parent / "errors"
    watch = Watch(console=console, errors=errors, limit=_LONGEST, clock=time.monotonic)
    for is_last in (False, False, True):
        console.unlink(missing_ok=True)
        with running.started(disk, machine, watch, accel, Runner(), more=more) as guest:
            try:
                guest.wait()
                if forward:
                    add = {"command-line": f"hostfwd_add net {forward}"}
                    guest.monitor.ask("human-monitor-command", **add)
            except BootError:
                if is_last or not console_signs.is_starved(watch.text()):
                    raise
                continue
            yield Guest(agent=guest.agent, console=console)
            assert guest.power_off(_LONGEST) is not None
            return
