"""Start a finished disk from an overlay until its guest agent answers: the boot test."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lago_images.building import packages as contents
from lago_images.building import reservations
from lago_images.building.bases.prepared import Package
from lago_images.building.boot.console_text import shows
from lago_images.building.boot.guest_agent import Agent
from lago_images.building.boot.machines import Machine, host, machine_for
from lago_images.building.boot.spec_tests import OwnTests, Suite, run_tests
from lago_images.building.customise.identities import finish_script
from lago_images.console import clean
from lago_images.errors import BootError, ToolMissingError
from lago_images.host import space
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.host.redaction import command_line
from lago_images.repository.records.manifest import BootTest

TCG_FACTOR = 4
TAIL = 20
# Starts what is being started anyway, and waits for it; then tells how that ended. What systemd
# starts again and again, as Fedora's sshd every 42 s, is activating in between. Behind a socket
# sshd starts with the first client, if it finds its keys.
_SSHD = """
PATH=$PATH:/usr/sbin
is_enabled() { [ "$(systemctl is-enabled "$1" 2>/dev/null)" = enabled ]; }
for unit in ssh.service sshd.service; do
  is_enabled "$unit" || continue
  systemctl start "$unit" 2>/dev/null
  started=$?
  state=$(systemctl is-active "$unit")
  if [ "$started" != 0 ] && [ "$state" = activating ]; then state=failed; fi
  echo "$state"
done
for unit in ssh.socket sshd.socket; do
  is_enabled "$unit" || continue
  systemctl start ssh-host-keys.service 2>/dev/null
  mkdir -p /run/sshd
  "$(command -v sshd)" -t 2>/dev/null || echo failed
done
exit 0
"""
# What the guest has made for itself since it started is as it should be.
_SECRETS = """
boot=/run/lago-images.boot
touch -d "@$(sed -n 's/^btime //p' /proc/stat)" "$boot"
secrets | sort -u | while IFS= read -r file; do
  [ "$file" -nt "$boot" ] || printf '%s\\n' "$file"
done
rm -f "$boot"
"""
_LATE = 1.0
_PAUSE = 0.2
_ASK = 60.0
_HINT = (
    "the agent must be installed and the console is best on ttyS0; in the spec, "
    "#boot-test=console:TEXT judges an image without an agent, and "
    "#boot-test=no: REASON leaves the test out"
)
# What a guest says before it would wait for a person for ever.
_DEAD = re.compile(
    rb"Kernel panic - not syncing[^\r\n]*|You are in emergency mode|Entering emergency mode"
    rb"|Entering rescue mode|Give root password for maintenance|dracut:/#|\(initramfs\)"
    rb"|grub rescue>|No bootable device|Boot failed: not a bootable disk"
)
# The kernel's own words for a processor that does not get on, and for a timer that is late (Linux,
# arch/x86/kernel/apic/io_apic.c, waits for some ticks of it). Both happen under emulation on a busy
# machine, with the same disk that boots the next time.
_STARVED = re.compile(rb"BUG: soft lockup|IO-APIC \+ timer doesn't work")
_STARTS = 3
# Else QEMU pauses the guest when the overlay has no room to grow, and says nothing.
_WERROR = "werror=report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Booted:
    """The boot's outcome, and what the guest said of itself.

    Attributes:
        packages: What is installed; None if the guest was not asked, or may not say.
        secrets: Files of the image with private keys or identities; None likewise.
    """

    test: BootTest
    packages: tuple[Package, ...] | None = None
    secrets: tuple[str, ...] | None = None


def boot_test(
    disk: Path,
    fmt: str,
    *,
    arch: str,
    firmware: str = "",
    accel: Acceleration,
    timeout: float,
    console_log: Path,
    workdir: Path,
    runner: Runner,
    clock: Callable[[], float],
    look_inside: bool = False,
    pattern: str = "",
    tests: OwnTests | None = None,
) -> Booted:
    """Start a disk and wait for its guest agent; the disk itself is only read.

    Args:
        disk: The finished disk.
        fmt: ``qcow2`` or ``raw``.
        arch: The guest's architecture.
        firmware: The kind of firmware to start it with; empty for the architecture's usual one.
        accel: What guests run on here.
        timeout: Seconds it may take with KVM; four times that without.
        console_log: Where the serial console's output goes.
        workdir: Where the overlay is made, and removed again.
        runner: What QEMU is started with.
        clock: Seconds.
        look_inside: Whether to ask the guest for its packages, and to look for private keys in it.
        pattern: What the serial console must show, where there is no agent to ask; else empty.
        tests: Those of the spec's own, which are run at last; None for none.

    Raises:
        BootError: It did not boot; with the console's last lines.
        ToolMissingError: The architecture's emulator or its firmware is not installed.
    """
    machine = machine_for(arch, firmware)
    _refuse_missing_firmware(machine)
    name = "kvm" if accel.kvm and host() in machine.hosts else "tcg"
    limit = timeout if name == "kvm" else timeout * TCG_FACTOR
    errors = workdir / "boot-test.stderr"
    watch = _Watch(console=console_log, errors=errors, limit=limit, clock=clock, pattern=pattern)

    def start() -> Booted:
        with _overlay(disk, fmt, workdir, runner) as overlay:
            starter = _Starter(
                disk=overlay, machine=machine, accel=name, watch=watch, runner=runner
            )
            return _boot(starter, tests, look_inside=look_inside)

    try:
        return start() if name == "kvm" else _start_again(start, watch, runner)
    finally:
        errors.unlink(missing_ok=True)


def _refuse_missing_firmware(machine: Machine) -> None:
    for file in machine.files:
        if not Path(file).exists():
            raise ToolMissingError(
                f"the boot test's firmware {file} is missing",
                hint=f"apt-get install {machine.package}",
            )


def _start_again(start: Callable[[], Booted], watch: "_Watch", runner: Runner) -> Booted:
    """Start an emulated guest, and again while its processor got no time; thrice at most."""
    for _ in range(_STARTS - 1):
        try:
            return start()
        except BootError:
            if not is_starved(watch.console):
                raise
        runner.note("the emulated processor got no time: starting the guest once more")
    return start()


def is_starved(console_log: Path) -> bool:
    """Tell if a guest's kernel said that its processor or timer did not get on."""
    return console_log.exists() and _STARVED.search(console_log.read_bytes()) is not None


@contextmanager
def _overlay(disk: Path, fmt: str, workdir: Path, runner: Runner) -> Iterator[Path]:
    overlay = workdir / "boot-test.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", fmt, "-b", str(disk.resolve())]
    runner.run([*create, str(overlay)], doing="making the boot test's overlay")
    try:
        yield overlay
    finally:
        overlay.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watch:
    """The signs of a boot: the console, QEMU's errors beside the overlay, and the time."""

    console: Path
    errors: Path
    limit: float
    clock: Callable[[], float]
    pattern: str = ""
    start: int = 0

    def written(self) -> bytes:
        """Return what the console has of this start of the guest."""
        return self.console.read_bytes()[self.start :] if self.console.exists() else b""

    def again(self) -> "_Watch":
        """Return the watch of the next start, whose console's output is appended."""
        return replace(self, start=self.console.stat().st_size if self.console.exists() else 0)

    def is_up(self, agent: Agent) -> bool:
        """Return whether the guest gives the sign that it is judged by; waits a moment for it."""
        is_answering = agent.is_answering()
        return shows(self.console, self.pattern) if self.pattern else is_answering

    def failed(self, reason: str) -> BootError:
        tail = _last(self.console) or ["(the serial console is empty)"]
        tail += _last(self.errors)
        if lack := reservations.lack(self.errors.parent):
            return BootError(f"boot test: {reason}; {lack}", tail=tail, hint=space.HINT)
        return BootError(f"boot test: {reason}", tail=tail, hint=_HINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guest:
    """A guest that was started; ``ended`` returns QEMU's exit code, or None while it runs."""

    agent: Agent
    ended: Callable[[], int | None]
    watch: _Watch

    def wait(self) -> float:
        """Return the seconds until it is up; raises ``BootError``."""
        return _wait(self.agent, self.ended, self.watch)

    def power_off(self, limit: float) -> float | None:
        """Ask it to shut down; return the seconds that took, or None for too long."""
        start_time = self.watch.clock()
        self.agent.send_only("guest-shutdown", {"mode": "powerdown"})
        while (passed := self.watch.clock() - start_time) < limit:
            if self.ended() is not None:
                return passed
            self.agent.pause(_PAUSE)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Starter:
    """Starts the overlay, and again."""

    disk: Path
    machine: Machine
    accel: str
    watch: _Watch
    runner: Runner

    @contextmanager
    def first(self) -> Iterator[_Guest]:
        # Else what an earlier start wrote passes for signs of this one, until QEMU opens the file.
        self.watch.console.unlink(missing_ok=True)
        with self._guest(self.watch, network=False) as guest:
            yield guest

    @contextmanager
    def started(self, *, network: bool) -> Iterator[_Guest]:
        """Start the guest again, which was shut down."""
        with self._guest(self.watch.again(), network=network) as guest:
            yield guest

    def is_starved(self) -> bool:
        """Return whether a failure says nothing of the image, and is tried again."""
        return self.accel != "kvm" and is_starved(self.watch.console)

    @contextmanager
    def _guest(self, watch: _Watch, *, network: bool) -> Iterator[_Guest]:
        machine, runner = self.machine, self.runner
        is_again = watch.start > 0
        devices = _devices(self.disk, watch.console, network=network, append=is_again)
        argv = [machine.program, *machine.options, "-accel", self.accel, *devices]
        runner.note("+ " + command_line(argv))
        pipe = -1  # subprocess.PIPE, which only host may import
        try:
            with (
                watch.errors.open("wb") as errors,
                runner.started(argv, stdin=pipe, stdout=pipe, stderr=errors) as qemu,
            ):
                assert qemu.stdin is not None  # noqa: S101 -- a pipe was asked for
                assert qemu.stdout is not None  # noqa: S101
                send, receive = qemu.stdin.fileno(), qemu.stdout.fileno()
                agent = Agent(send=send, receive=receive, clock=watch.clock)
                yield _Guest(agent=agent, ended=qemu.poll, watch=watch)
        except ToolMissingError as error:
            install = f"apt-get install {machine.package}"
            raise ToolMissingError(error.message, hint=install) from error


def _boot(starter: _Starter, tests: OwnTests | None, *, look_inside: bool) -> Booted:
    watch, runner = starter.watch, starter.runner
    with starter.first() as guest:
        seconds = round(guest.wait(), 1)
        firmware = {starter.machine.firmware: seconds}
        test = BootTest(seconds=seconds, accel=starter.accel, firmware=firmware)
        if watch.pattern:
            return Booted(test=test)
        _refuse_failed_sshd(guest.agent, watch, runner)
        packages = secrets = None
        if look_inside:
            packages, secrets = _packages(guest.agent, runner), _secrets(guest.agent, runner)
        if tests:
            factor = 1 if starter.accel == "kvm" else TCG_FACTOR
            suite = Suite(tests=tests, factor=factor, limit=watch.limit)
            test = replace(test, tests=run_tests(suite, guest, starter, runner))
        return Booted(test=test, packages=packages, secrets=secrets)


def _wait(agent: Agent, ended: Callable[[], int | None], watch: _Watch) -> float:
    """Return the seconds until the agent answered."""
    start_time = watch.clock()
    dead: tuple[float, str] | None = None
    while (passed := watch.clock() - start_time) < watch.limit:
        if watch.is_up(agent):
            return watch.clock() - start_time
        if (code := ended()) is not None:
            raise watch.failed(f"QEMU ended by itself with exit code {code}")
        # A moment more, so that the reason gets into the log too.
        output = watch.written()
        if dead is None and (words := _DEAD.search(output)):
            dead = (passed, clean(words[0].decode(errors="replace")))
        if dead is not None and passed - dead[0] > _LATE:
            raise watch.failed(f"the guest gave up: {dead[1]}")
    sign = f"console did not show {watch.pattern!r}" if watch.pattern else "agent did not answer"
    raise watch.failed(f"the guest {sign} within {watch.limit:.0f} s")


def _refuse_failed_sshd(agent: Agent, watch: _Watch, runner: Runner) -> None:
    """Refuse a guest whose sshd is enabled and fails; one whose agent may not look is let pass."""
    try:
        agent.settle(timeout=_ASK)
        state = agent.run(("/bin/sh", "-c", _SSHD), timeout=_ASK * TCG_FACTOR).decode().strip()
    except BootError as error:
        runner.note(f"the guest agent did not look at sshd: {error}")
        return
    runner.note(f"sshd: {state or 'not enabled'}")
    if "failed" in state.split():
        raise watch.failed("sshd is enabled and does not start: ssh -v cannot reach the guest")


def _devices(
    overlay: Path, console_log: Path, *, network: bool = False, append: bool = False
) -> list[str]:
    # The names without -pci or -ccw are aliases for what the architecture has. The agent's port
    # is QEMU's own standard input and output: no socket, whose path would be too long somewhere.
    on_off = ("off", "on")
    return [
        "-cpu", "max",
        "-smp", str(min(2, len(os.sched_getaffinity(0)))),
        "-m", "2048",
        "-nodefaults",
        "-no-reboot",
        "-display", "none",
        # unsafe: the overlay is thrown away, so that no write of the guest's has to be durable.
        "-drive", f"file={_quoted(overlay)},format=qcow2,if=none,id=disk,cache=unsafe,{_WERROR}",
        "-device", "virtio-blk,drive=disk",
        # restrict: what is tested reaches neither this host nor a network.
        "-netdev", f"user,id=net,restrict={on_off[not network]}",
        "-device", "virtio-net,netdev=net",
        "-object", "rng-random,filename=/dev/urandom,id=rng",
        "-device", "virtio-rng,rng=rng",
        "-chardev", f"file,id=console,append={on_off[append]},path={_quoted(console_log)}",
        "-serial", "chardev:console",
        "-chardev", "stdio,id=agent,signal=off",
        "-device", "virtio-serial",
        "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
    ]  # fmt: skip


def _packages(agent: Agent, runner: Runner) -> tuple[Package, ...] | None:
    """Return what the guest's package manager lists; None when the agent may not ask it."""
    form = "${db:Status-Status} ${Package} ${Version} ${Architecture}\n"
    for argv in (
        ("/usr/bin/dpkg-query", "--show", f"--showformat={form}"),
        ("/usr/bin/rpm", "-qa", "--qf", "installed %{NAME} %{EVR} %{ARCH} %{LICENSE}\n"),
    ):
        try:
            agent.settle(timeout=_ASK)
            listed = agent.run(argv, timeout=_ASK).decode()
        except BootError as error:
            runner.note(f"no packages from {argv[0]}: {error}")
            continue
        return contents.parse("\n".join(_installed(listed.splitlines())))
    return None


def _installed(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        status, _, package = line.partition(" ")
        # rpm lists the keys it trusts as packages of this name.
        if status == "installed" and not package.startswith("gpg-pubkey "):
            yield package


def _secrets(agent: Agent, runner: Runner) -> tuple[str, ...] | None:
    """Return the files with private keys or identities that were there before the guest started."""
    script = finish_script() + _SECRETS
    try:
        agent.settle(timeout=_ASK)
        listed = agent.run(("/bin/sh", "-c", script), timeout=_ASK * TCG_FACTOR)
    except BootError as error:
        runner.note(f"the guest agent did not look for private keys: {error}")
        return None
    return tuple(listed.decode(errors="replace").splitlines())


def _last(path: Path) -> list[str]:
    text = path.read_text(errors="replace") if path.exists() else ""
    lines = (clean(line).strip() for line in re.split(r"[\r\n]+", text))
    return [line for line in lines if line][-TAIL:]


def _quoted(path: Path) -> str:
    # QEMU's option syntax: a comma in a value is written twice.
    return str(path.resolve()).replace(",", ",,")
