"""Start a finished disk from an overlay, judge the guest, and start it again: the boot test."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lago_images.building import packages as contents
from lago_images.building import qcow2
from lago_images.building.bases.prepared import Package
from lago_images.building.boot import console_signs, judgement
from lago_images.building.boot.dhcp_watch import dhcp_watched
from lago_images.building.boot.guest_agent import ASK
from lago_images.building.boot.inspection import NOBODY, SCRIPT, Facts, Identity, inspect
from lago_images.building.boot.judgement import Problem, Terms
from lago_images.building.boot.machines import Machine, accelerator, machine_for, refuse_missing
from lago_images.building.boot.running import Guest, Watch, started
from lago_images.building.boot.spec_tests import OwnTests, Suite, run_tests
from lago_images.building.boot_files import from_answer
from lago_images.building.customise.identities import finish_script, unnamed
from lago_images.errors import BootError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.repository.records.boot_files import BootFiles
from lago_images.repository.records.guest_tests import GuestTestRecord
from lago_images.repository.records.manifest import BootTest
from lago_images.specs.logins import NONE, Logins
from lago_images.specs.model import Operation

TCG_FACTOR = 4
# What the guest has made for itself since it started is as it should be, and no file of the image.
# Boot loaders write two files before a kernel is there that would tell the time.
_FILES = """
boot=/run/lago-images.boot
touch -d "@$(sed -n 's/^btime //p' /proc/stat)" "$boot"
secrets | sort -u | while IFS= read -r file; do
  [ "$file" -nt "$boot" ] || printf 'secret %s\\n' "$file"
done
boot_files
find /boot /efi -type f \\( -newer "$boot" -o -name grubenv -o -name random-seed \\) 2>/dev/null |
  sed 's/^/boot-unread /'
rm -f "$boot"
"""
_STARTS = 3


class _LateError(BootError):
    """Raised where all that is wrong with a guest is that something took too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Booted:
    """The boot's outcome, and what the guest said of itself.

    Attributes:
        packages: What is installed; None if the guest was not asked, or may not say.
        boot_files: What it starts with; None likewise.
        secrets: Files of the image with private keys or identities; None likewise.
        identity: What the machine made for itself; empty where the agent may not look.
    """

    test: BootTest
    packages: tuple[Package, ...] | None = None
    boot_files: BootFiles | None = None
    secrets: tuple[str, ...] | None = None
    identity: Identity = NOBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A finished disk, and the machine that it is started in.

    Attributes:
        fmt: ``qcow2`` or ``raw``.
        arch: The guest's architecture.
        firmware: The kind of firmware; empty for the architecture's usual one.
        number: Tells machines made of one image apart, by their network cards' addresses; to 255.
    """

    disk: Path
    fmt: str
    arch: str
    firmware: str = ""
    number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where guests are started, with what, and what is kept of them.

    Attributes:
        accel: What guests run on here.
        timeout: Seconds until the agent must answer with KVM; four times that without.
        workdir: Where the overlay is made, and removed again.
        runner: What QEMU is started with.
        clock: Seconds.
        console_log: Where the serial console's output goes.
        screenshot: Where the guest's screen goes, as PNG, when it is refused; None for nowhere.
    """

    accel: Acceleration
    timeout: float
    workdir: Path
    runner: Runner
    clock: Callable[[], float]
    console_log: Path
    screenshot: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What a guest is asked, besides what every one is judged by.

    Attributes:
        look_inside: Whether to ask it for its packages, and to look for private keys in it.
        again: Whether to start it once more.
        logins: The documented ones.
        pattern: What the serial console must show, where there is no agent to ask; else empty.
        grows: Whether the root file system has to grow with the disk.
        secrets: The image's files with private keys or identities, as far as they are known.
        operations: The commands that made it, those below a layer included: what they name is
            meant to be there.
        tests: Those of the spec's own, which are run at last; None for none.
    """

    look_inside: bool = False
    again: bool = True
    logins: Logins = NONE
    pattern: str = ""
    grows: bool = False
    secrets: tuple[str, ...] = ()
    operations: tuple[Operation, ...] = ()
    tests: OwnTests | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    """One boot test.

    Attributes:
        machine: What the disk is started in.
        accel: What runs it: ``kvm`` or ``tcg``.
        size: The virtual disk's bytes.
        watch: How its first start is watched.
    """

    subject: Subject
    bench: Bench
    questions: Questions
    machine: Machine
    accel: str
    size: int
    watch: Watch

    @property
    def is_emulated(self) -> bool:
        return self.accel != "kvm"

    @property
    def mac(self) -> str:
        return f"52:54:00:12:34:{self.subject.number:02x}"

    @property
    def is_started_again(self) -> bool:
        # Without an agent nobody could tell the guest to shut down.
        return self.questions.again and not self.questions.pattern


def boot_test(subject: Subject, bench: Bench, questions: Questions) -> Booted:
    """Start a disk, judge the guest, shut it down and start it again; the disk is only read.

    A guest without an agent is judged by its console alone, and not started again.

    Raises:
        BootError: It did not boot, or not as it should; with the console's last lines.
        ToolMissingError: The architecture's emulator or its firmware is not installed.
    """
    machine = machine_for(subject.arch, subject.firmware)
    refuse_missing(machine, bench.runner.environ)
    accel = accelerator(machine, bench.accel)
    facts = qcow2.info(subject.disk, subject.fmt, bench.runner, doing="looking at the disk")
    watch = Watch(
        console=bench.console_log,
        errors=bench.workdir / "boot-test.stderr",
        limit=bench.timeout if accel == "kvm" else bench.timeout * TCG_FACTOR,
        clock=bench.clock,
        pattern=questions.pattern,
    )
    test = _Test(
        subject=subject,
        bench=bench,
        questions=questions,
        machine=machine,
        accel=accel,
        size=facts["virtual-size"],
        watch=watch,
    )
    try:
        return _start_again(test) if test.is_emulated else _run(test)
    finally:
        watch.errors.unlink(missing_ok=True)


def refuse_shared_identity(first: Booted, other: Booted) -> None:
    """Refuse an image of which two machines were made that pass for one.

    Raises:
        BootError: Names what they share.
    """
    if problems := list(judgement.shared(first.identity, other.identity)):
        raise BootError("boot test: " + "; ".join(map(str, problems)), hint=problems[0].advice)


def _start_again(test: _Test) -> Booted:
    """Start an emulated guest, and again while its processor got no time; thrice at most."""
    for _ in range(_STARTS - 1):
        try:
            return _run(test)
        except BootError as error:
            is_late = isinstance(error, _LateError)
            if not (is_late or console_signs.is_starved(test.watch.text())):
                raise
        test.bench.runner.note(
            "the processor, emulated without KVM (TCG), got no time: starting the guest once more"
        )
    return _run(test)


def _run(test: _Test) -> Booted:
    # Else what an earlier start wrote passes for signs of this one, until QEMU opens the file.
    test.watch.console.unlink(missing_ok=True)
    if test.bench.screenshot:
        test.bench.screenshot.unlink(missing_ok=True)
    with _overlay(test) as overlay:
        booted = _first_boot(test, overlay)
        return _second_boot(test, overlay, booted) if test.is_started_again else booted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Starter:
    """Starts the overlay again, for tests of the spec's own."""

    test: _Test
    overlay: Path

    @contextmanager
    def started(self, *, network: bool) -> Iterator[Guest]:
        """Start the guest, which was shut down, with a network or without."""
        watch = self.test.watch.again()
        with _guest(self.test, self.overlay, watch, network=network) as guest:
            yield guest

    def is_starved(self) -> bool:
        """Return whether a failure says nothing of the image, and is tried again."""
        return self.test.is_emulated and console_signs.is_starved(self.test.watch.text())


@contextmanager
def _overlay(test: _Test) -> Iterator[Path]:
    """Make a disk of twice the size, above the one that is tested."""
    overlay = test.bench.workdir / "boot-test.qcow2"
    qcow2.create_on(
        test.subject.disk,
        overlay,
        test.bench.runner,
        doing="making the boot test's overlay",
        fmt=test.subject.fmt,
        size=2 * test.size,
    )
    try:
        yield overlay
    finally:
        overlay.unlink(missing_ok=True)


def _first_boot(test: _Test, overlay: Path) -> Booted:
    with (
        dhcp_watched(test.bench.workdir) as network,
        _guest(test, overlay, test.watch, more=network.options) as guest,
    ):
        seconds = round(guest.wait(), 1)
        facts = Facts()
        if not test.watch.pattern:
            facts = inspect(guest, test.bench.runner, test.questions.logins)
        sent = network.end(guest.monitor)
        for each in sorted(sent):
            test.bench.runner.note(f"DHCP servers are sent: {each}")
        packages = secrets = boot_files = None
        if test.questions.look_inside and facts.answers:
            packages = _packages(guest, test.bench.runner)
            secrets, boot_files = _files(guest, test.bench.runner)
        verdict = judgement.judge(facts, guest.faults(), _terms(test, secrets or ()))
        _refuse(verdict.problems, guest)
        checks = verdict.checks
        if test.is_started_again:
            _shut_down(guest, test)
            checks = (*checks, "shutdown")
    boot = BootTest(
        seconds=seconds,
        accel=test.accel,
        firmware={test.machine.firmware: seconds},
        checks=checks,
    )
    identity = replace(facts.answers.identity, sent=sent) if facts.answers else NOBODY
    return Booted(
        test=boot, packages=packages, boot_files=boot_files, secrets=secrets, identity=identity
    )


def _second_boot(test: _Test, overlay: Path, booted: Booted) -> Booted:
    """Start the machine once more, which must be the same one."""
    with _guest(test, overlay, test.watch.again()) as guest:
        try:
            seconds = round(guest.wait(), 1)
        except BootError as error:
            raise BootError(
                f"{error.message}, at the second boot", tail=error.tail, hint=error.hint
            ) from error
        facts = inspect(guest, test.bench.runner, is_again=True)
        signs = guest.faults()
        verdict = judgement.judge(facts, signs, replace(_terms(test), is_again=True))
        problems = [replace(each, check=f"second boot, {each.check}") for each in verdict.problems]
        if facts.answers:
            problems += judgement.changed(booted.identity, facts.answers.identity)
        _refuse(problems, guest)
        records = _own_tests(test, overlay, guest)
    checks = (*booted.test.checks, "second boot")
    return replace(booted, test=replace(booted.test, again=seconds, checks=checks, tests=records))


def _own_tests(test: _Test, overlay: Path, guest: Guest) -> tuple[GuestTestRecord, ...]:
    """Run the tests of the spec's own, when all that they may change was judged."""
    if test.questions.tests is None:
        return ()
    factor = TCG_FACTOR if test.is_emulated else 1
    suite = Suite(
        tests=test.questions.tests,
        factor=factor,
        limit=test.watch.limit,
        picture=test.bench.screenshot,
    )
    return run_tests(suite, guest, _Starter(test=test, overlay=overlay), test.bench.runner)


@contextmanager
def _guest(
    test: _Test,
    overlay: Path,
    watch: Watch,
    *,
    network: bool = False,
    more: Sequence[str] = (),
) -> Iterator[Guest]:
    """Start the guest; keep a picture of its screen if it is refused."""
    with started(
        overlay,
        test.machine,
        watch,
        test.accel,
        test.bench.runner,
        mac=test.mac,
        network=network,
        more=more,
    ) as guest:
        try:
            yield guest
        except BootError as error:
            if guest.photograph(test.bench.screenshot):
                error.hint = f"{error.hint}; the guest's screen is beside the log, as .png"
            raise


def _terms(test: _Test, secrets: Sequence[str] = ()) -> Terms:
    return Terms(
        mac=test.mac,
        size=test.size,
        grows=test.questions.grows,
        secrets=unnamed(test.questions.operations, (*test.questions.secrets, *secrets)),
    )


def _refuse(problems: Sequence[Problem], guest: Guest) -> None:
    """Refuse an image for all that is wrong with it at once."""
    if problems:
        advice = dict.fromkeys(each.advice for each in problems)
        error = guest.watch.failed(
            "; ".join(map(str, problems)),
            hint="; ".join(advice),
            tail=[line for each in problems for line in each.tail],
        )
        if all(each.is_starvation for each in problems):
            raise _LateError(error.message, tail=error.tail, hint=error.hint)
        raise error


def _shut_down(guest: Guest, test: _Test) -> None:
    """Shut the guest down, and look at its console once more."""
    if not guest.power_off(guest.watch.limit):
        problem = Problem(
            check="shutdown",
            text=f"the guest was still there {guest.watch.limit:.0f} s after it was told to shut "
            "down",
            advice="look for a unit that does not stop: its last lines are on the console",
        )
        _refuse([problem], guest)
    _refuse(judgement.judge(Facts(), guest.faults(), _terms(test)).problems, guest)


def _packages(guest: Guest, runner: Runner) -> tuple[Package, ...] | None:
    """Return what the guest's package manager lists; None when the agent may not ask it."""
    form = "${db:Status-Status} ${Package} ${Version} ${Architecture}\n"
    for argv in (
        ("/usr/bin/dpkg-query", "--show", f"--showformat={form}"),
        ("/usr/bin/rpm", "-qa", "--qf", "installed %{NAME} %{EVR} %{ARCH} %{LICENSE}\n"),
    ):
        try:
            guest.agent.settle(timeout=ASK)
            listed = guest.agent.run(argv, timeout=ASK).decode(errors="replace")
        except BootError as error:
            guest.check(patience=0)
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


def _files(guest: Guest, runner: Runner) -> tuple[tuple[str, ...] | None, BootFiles | None]:
    """Return the image's files with private keys or identities, and those that it starts with.

    They are as the image has them; those that the guest has written since it started are left out.
    """
    script = finish_script() + _FILES
    try:
        guest.agent.settle(timeout=ASK)
        listed = guest.agent.run(("/bin/sh", "-c", script), timeout=SCRIPT)
    except BootError as error:
        guest.check(patience=0)
        runner.note(f"the guest agent did not look for private keys: {error}")
        return None, None
    lines = listed.decode(errors="replace").splitlines()
    secrets = [line.removeprefix("secret ") for line in lines if line.startswith("secret ")]
    return tuple(secrets), from_answer(lines)
