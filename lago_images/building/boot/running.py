"""Start a guest for the boot test, wait until it answers, and see how it does meanwhile."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lago_images.building import reservations
from lago_images.building.boot import console_signs
from lago_images.building.boot.console_text import shows
from lago_images.building.boot.guest_agent import Agent
from lago_images.building.boot.machines import Machine, processor
from lago_images.building.boot.monitor import Monitor, monitored
from lago_images.errors import BootError
from lago_images.host import space
from lago_images.host.process import Runner
from lago_images.host.redaction import command_line

TAIL = 20
# QEMU's DHCP has sixteen addresses, from the first one on. Not its usual 10.0.2.15, which an image
# made in a QEMU may have in its configuration.
NETDEV = "net"
_DHCP = f"user,id={NETDEV},dhcpstart=10.0.2.100"
LEASED = r"10[.]0[.]2[.]1(0[0-9]|1[0-5])"
MEMORY_MIB = 2048
_LATE = 1.0
_HINT = (
    "the agent must be installed and the console is best on ttyS0 (aarch64: ttyAMA0); in the spec, "
    "#boot-test=console:TEXT judges an image without an agent, and "
    "#boot-test=no: REASON leaves the test out"
)
# Bytes at a console's end that tell whether the guest waits for a person, and of all of it that
# are looked at: a guest may write without an end.
_RECENT = 2**16
_LARGEST = 2**24
# Of QMP's ShutdownCause.
_SHUTDOWN = "guest-shutdown"
# Else QEMU pauses the guest when the overlay has no room to grow, and says nothing.
_WERROR = "werror=report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """The signs of a boot: the console, QEMU's errors beside the overlay, and the time.

    Attributes:
        console: The serial console's output, of earlier boots of the same disk too.
        errors: QEMU's own.
        limit: Seconds until the agent must answer.
        clock: Seconds.
        start: Where in the console this boot begins, in bytes.
        pattern: What the console must show, where there is no agent to ask; else empty.
    """

    console: Path
    errors: Path
    limit: float
    clock: Callable[[], float]
    start: int = 0
    pattern: str = ""

    def text(self, largest: int = _LARGEST) -> str:
        """Return what the console has of this boot, its last bytes if that is more."""
        if not self.console.exists():
            return ""
        with self.console.open("rb") as file:
            file.seek(max(self.start, self.console.stat().st_size - largest))
            return file.read(largest).decode(errors="replace")

    def is_up(self, agent: Agent) -> bool:
        """Return whether the guest gives the sign that it is judged by; waits a moment for it."""
        if not self.pattern:
            return agent.is_answering()
        agent.pause()
        return shows(self.console, self.pattern)

    def again(self) -> "Watch":
        """Return the watch of the next boot, whose console's output is appended."""
        size = self.console.stat().st_size if self.console.exists() else 0
        return replace(self, start=size)

    def failed(self, reason: str, *, hint: str = _HINT, tail: Sequence[str] = ()) -> BootError:
        """Return the error, with what the guest and QEMU wrote last."""
        last = list(console_signs.lines(self.text()))[-TAIL:]
        last = [*tail, *(last or ["(the serial console is empty)"]), *self._qemus()]
        if lack := reservations.lack(self.errors.parent):
            return BootError(f"boot test: {reason}; {lack}", tail=last, hint=space.HINT)
        return BootError(f"boot test: {reason}", tail=last, hint=hint)

    def _qemus(self) -> list[str]:
        text = self.errors.read_text(errors="replace") if self.errors.exists() else ""
        return list(console_signs.lines(text))[-TAIL:]


@dataclass(slots=True, kw_only=True)
class Guest:
    """A machine that has been started.

    Attributes:
        ended: Returns QEMU's exit code, or None while it runs.
        mac: The address of its network card.
        is_emulated: Whether its processor is.
    """

    agent: Agent
    monitor: Monitor
    ended: Callable[[], int | None]
    watch: Watch
    mac: str
    is_emulated: bool
    _dead: tuple[float, console_signs.Fault] | None = None

    def __post_init__(self) -> None:
        """Have no question wait for the agent of a guest that has come to an end."""
        self.agent.check = self.check

    def wait(self) -> float:
        """Return the seconds until the agent answered.

        Raises:
            BootError: It did not, QEMU ended, or the guest waits for a person.
        """
        watch = self.watch
        start_time = watch.clock()
        while watch.clock() - start_time < watch.limit:
            if watch.is_up(self.agent):
                return watch.clock() - start_time
            self.check()
        sign = (
            f"console did not show {watch.pattern!r}" if watch.pattern else "agent did not answer"
        )
        reason = f"the guest {sign} within {watch.limit:.0f} s"
        if fault := console_signs.stuck(watch.text()):
            raise watch.failed(f"{reason}; {fault}", hint=f"{fault.sign.advice}; {_HINT}")
        raise watch.failed(reason)

    def check(self, patience: float = _LATE) -> None:
        """Look whether the guest is alive.

        Args:
            patience: Seconds for it to say more, so that the reason gets into the log, too.

        Raises:
            BootError: QEMU ended, or the guest waits for a person.
        """
        if (code := self.ended()) is not None:
            raise self.watch.failed(f"QEMU ended by itself with exit code {code}")
        self._check_console(patience)

    def _check_console(self, patience: float) -> None:
        now = self.watch.clock()
        if self._dead is None and (fault := console_signs.end(self.watch.text(_RECENT))):
            self._dead = (now, fault)
        if self._dead is not None and now - self._dead[0] >= patience:
            fault = self._dead[1]
            advice = f"{fault.sign.name}: {fault.sign.advice}"
            raise self.watch.failed(f"the guest gave up: {fault.line}", hint=f"{advice}; {_HINT}")

    def faults(self) -> tuple[console_signs.Fault, ...] | None:
        """Return what its console shows of troubles; None if its kernel does not write there."""
        text = self.watch.text()
        found = console_signs.faults(text, is_emulated=self.is_emulated)
        return found if found or console_signs.is_kernels(text) else None

    def photograph(self, picture: Path | None) -> bool:
        """Write its screen into a PNG file, if one is named and it runs; return whether it is."""
        if picture is None or self.ended() is not None:
            return False
        return self.monitor.screenshot(picture.resolve())

    def power_off(self, limit: float) -> bool:
        """Ask the guest to shut down; return whether it did, in so many seconds.

        Raises:
            BootError: The guest waits for a person, or ended otherwise than by a shutdown.
        """
        start_time = self.watch.clock()
        self.monitor.listen()
        self.agent.send_only("guest-shutdown", {"mode": "powerdown"})
        while self.watch.clock() - start_time < limit:
            if (code := self.ended()) is not None:
                self._refuse_crash(code)
                return True
            self._check_console(_LATE)
            self.agent.pause()
        return False

    def _refuse_crash(self, code: int) -> None:
        reason = self.monitor.shutdown_reason()
        if code != 0:
            raise self.watch.failed(f"QEMU ended with exit code {code} while the guest shut down")
        if reason not in ("", _SHUTDOWN):
            raise self.watch.failed(
                f"the guest was told to shut down, and did not end by that, but by {reason}",
                hint="its last lines are on the console; a reset in place of a shutdown is a fault "
                "of the kernel or of its ACPI",
            )


@contextmanager
def started(
    disk: Path,
    machine: Machine,
    watch: Watch,
    accel: str,
    runner: Runner,
    *,
    mac: str = "52:54:00:12:34:56",
    network: bool = False,
    more: Sequence[str] = (),
) -> Iterator[Guest]:
    """Start a qcow2 disk, which the guest writes to; the guest ends with the block.

    Args:
        disk: The disk.
        machine: What it is started in.
        watch: Where its console and QEMU's errors go.
        accel: ``kvm`` or ``tcg``.
        runner: What QEMU is started with.
        mac: The network card's address.
        network: Whether the network card leads to this host's network.
        more: Further options of QEMU.

    Raises:
        ToolMissingError: The architecture's emulator is not installed.
    """
    pipe = -1  # subprocess.PIPE, which only host may import
    with monitored(watch.errors.parent) as (options, monitor):
        devices = _devices(disk, machine, watch, mac, accel, network=network)
        argv = [machine.program, *machine.options, "-accel", accel, *devices, *options, *more]
        runner.note("+ " + command_line(argv))
        with (
            watch.errors.open("wb") as errors,
            runner.started(argv, stdin=pipe, stdout=pipe, stderr=errors) as qemu,
        ):
            assert qemu.stdin is not None  # noqa: S101 -- a pipe was asked for
            assert qemu.stdout is not None  # noqa: S101
            send, receive = qemu.stdin.fileno(), qemu.stdout.fileno()
            agent = Agent(send=send, receive=receive, clock=watch.clock)
            yield Guest(
                agent=agent,
                monitor=monitor,
                ended=qemu.poll,
                watch=watch,
                mac=mac,
                is_emulated=accel != "kvm",
            )


def _devices(
    disk: Path, machine: Machine, watch: Watch, mac: str, accel: str, *, network: bool
) -> list[str]:
    # The names without -pci or -ccw are aliases for what the architecture has. The agent's port
    # is QEMU's own standard input and output: no socket, whose path would be too long somewhere.
    screen = ["-device", machine.screen] if machine.screen else []
    append = "on" if watch.start else "off"
    restrict = "off" if network else "on"
    return [
        "-cpu", processor(machine, accel),
        "-smp", str(min(2, len(os.sched_getaffinity(0)))),
        "-m", str(MEMORY_MIB),
        "-nodefaults",
        "-no-reboot",
        "-display", "none",
        *screen,
        # unsafe: the overlay is thrown away, so that no write of the guest's has to be durable.
        "-drive", f"file={quoted(disk)},format=qcow2,if=none,id=disk,cache=unsafe,{_WERROR}",
        "-device", "virtio-blk,drive=disk",
        # restrict: what is tested reaches neither this host nor a network. DHCP is QEMU's own,
        # and at a port of this host's loopback that is free its sshd can be reached.
        "-netdev", f"{_DHCP},restrict={restrict},hostfwd=tcp:127.0.0.1:0-:22",
        "-device", f"virtio-net,netdev={NETDEV},mac={mac}",
        "-object", "rng-random,filename=/dev/urandom,id=rng",
        "-device", "virtio-rng,rng=rng",
        "-chardev", f"file,id=console,append={append},path={quoted(watch.console)}",
        "-serial", "chardev:console",
        "-chardev", "stdio,id=agent,signal=off",
        "-device", "virtio-serial",
        "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
    ]  # fmt: skip


def quoted(path: Path) -> str:
    """Return a path as a value in QEMU's option syntax: a comma is written twice."""
    return str(path.resolve()).replace(",", ",,")
