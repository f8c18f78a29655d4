"""Boot an image under each kind of firmware; let pass what the quarantine holds back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from lago_images.building import qcow2
from lago_images.building.boot import verdict
from lago_images.building.boot.boot_test import (
    Bench,
    Booted,
    Questions,
    Subject,
    boot_test,
    refuse_shared_identity,
)
from lago_images.building.boot.inspection import NOBODY
from lago_images.building.boot.machines import accelerator, machine_for, refuse_missing
from lago_images.building.boot.spec_tests import OwnTests
from lago_images.building.customise.identities import in_every_machine
from lago_images.building.job import Finished, Job
from lago_images.building.model import Phase
from lago_images.errors import BootError
from lago_images.host.process import Runner
from lago_images.repository.records.guest_tests import tally
from lago_images.repository.records.manifest import BootTest
from lago_images.specs import guest_tests
from lago_images.specs.boot_check import boot_check
from lago_images.specs.host_folder import HostFolder
from lago_images.specs.logins import documented
from lago_images.specs.quarantine import day, ending

# The last bytes of a boot's console that are kept: a guest may write all the time.
_CONSOLE = 4 * 2**20
# Bytes of a file with keys of ssh.
_KEYS = 2**20


def refuse_unbootable(job: Job) -> None:
    """Refuse an image whose boot test could not begin, before minutes are spent on its disk.

    Raises ``ToolMissingError`` when its emulator or firmware is not installed.
    """
    spec = job.request.spec
    if not boot_check(spec.properties).is_off:
        for firmware in _firmwares(job):
            # Without such a machine the boot test says so, which a quarantine may hold back.
            with suppress(BootError):
                refuse_missing(machine_for(spec.arch, firmware), job.context.environ)


def boot_image(job: Job, finished: Finished, runner: Runner) -> Booted:
    """Boot and test a finished disk; what a quarantine holds back is a warning.

    Raises:
        BootError: It did not boot, or not as it should, or a test of the spec's own failed.
        ToolMissingError: The architecture's emulator or its firmware is not installed.
    """
    spec, quarantine = job.request.spec, job.request.quarantine
    today = day(job.context.clock())
    try:
        booted = _boot_everywhere(job, finished, runner)
        held = verdict.of_tests(booted.test.tests, spec.name, quarantine, today)
    except BootError as error:
        # Who ends a build ends its guest, which is no failure of the image's.
        runner.children.check()
        failure = verdict.of_boot(error, spec.name, quarantine, today)
        if failure is None:
            if entry := quarantine.ended(spec.name, None, today):
                ended = ending(entry.until, today)
                job.context.console.warn(f"{spec.name}: the quarantine {ended}")
            raise
        ran_on = accelerator(machine_for(spec.arch), job.accel)
        booted, held = Booted(test=BootTest(seconds=0.0, accel=ran_on)), (failure,)
    if told := tally(booted.test.tests, held):
        job.progress.note(told)
    for line in verdict.warnings(held, spec.name, quarantine, today):
        job.context.console.warn(f"{spec.name}: {line}")
        job.progress.note(f"quarantined: {line}")
    return replace(booted, test=replace(booted.test, quarantined=held))


def warn_of_secrets(job: Job, secrets: Sequence[str] | None) -> None:
    """Warn of private keys and identities that everybody who has the image has."""
    if secrets:
        files = in_every_machine(secrets)
        job.context.console.warn(f"{job.request.spec.name}: whoever has the image has {files}")


def _firmwares(job: Job) -> tuple[str, ...]:
    return job.request.firmwares or ("",)


def _boot_everywhere(job: Job, finished: Finished, runner: Runner) -> Booted:
    """Boot the disk under each kind of firmware, one after the other, and as two machines."""
    spec = job.request.spec
    booted = [
        _boot_under(firmware, job, finished, runner, number=number)
        for number, firmware in enumerate(_firmwares(job), start=1)
    ]
    # What told nothing of itself could not be compared with another.
    if len(booted) == 1 and booted[0].identity != NOBODY:
        booted.append(_boot_under(_firmwares(job)[0], job, finished, runner, number=2))
    if spec.tests and not boot_check(spec.properties).has_agent:
        job.context.console.info(
            f"{spec.name}: the tests that it inherits are not run: no agent is asked"
        )
    for other in booted[1:]:
        refuse_shared_identity(booted[0], other)
    if finished.prepared.secrets is None:
        warn_of_secrets(job, booted[0].secrets)
    return replace(booted[0], test=together(booted))


def _boot_under(
    firmware: str, job: Job, finished: Finished, runner: Runner, *, number: int
) -> Booted:
    """Boot the disk once; the first boot of an image asks all that is asked once."""
    spec, is_first = job.request.spec, number == 1
    specs, known = (*job.request.below[::-1], spec), finished.prepared.secrets
    with (
        job.machine.guest(runner.children.check),
        job.progress.doing(f"boot test {firmware}".rstrip(), Phase.BOOT),
        _console_of(job, firmware) as console_log,
    ):
        return boot_test(
            Subject(
                disk=finished.disk,
                fmt=qcow2.FORMAT,
                arch=spec.arch,
                firmware=firmware,
                number=number,
            ),
            Bench(
                accel=job.accel,
                timeout=job.context.settings.boot_timeout,
                workdir=job.folder,
                runner=runner,
                clock=job.context.clock,
                console_log=console_log,
                screenshot=job.screenshot,
            ),
            Questions(
                # What was customised here has reported its packages already.
                look_inside=is_first and (finished.packages is None or known is None),
                again=is_first,
                logins=documented(specs, _reader(job)),
                pattern=boot_check(spec.properties).pattern,
                grows=job.request.grows,
                secrets=known or (),
                operations=tuple(each for one in specs for each in one.operations),
                tests=_own_tests(job) if is_first else None,
            ),
        )


def together(booted: Sequence[Booted]) -> BootTest:
    """Make one record of a disk's boots; the first has the second start and the tests."""
    tests = [each.test for each in booted]
    slowest = max(tests, key=lambda test: test.seconds)
    # Of two boots under one kind the first is that of the record.
    seconds = {name: taken for test in tests[::-1] for name, taken in test.firmware.items()}
    checks = dict.fromkeys(name for test in tests for name in test.checks)
    # Who may not be asked has told nothing to compare.
    if sum(each.identity != NOBODY for each in booted) > 1:
        checks["clones"] = None
    return replace(
        slowest,
        firmware=seconds,
        again=tests[0].again,
        checks=tuple(checks),
        tests=tests[0].tests,
    )


def _reader(job: Job) -> Callable[[str], str]:
    host = HostFolder(job.context.root)
    return lambda path: host.read(path, most=_KEYS).decode(errors="replace")


def _own_tests(job: Job) -> OwnTests | None:
    """Return the tests of the spec's own, which are run once: where it has started twice."""
    host = HostFolder(job.context.root)
    tests = OwnTests(
        tests=job.request.spec.tests,
        read=lambda test: host.read(test.path, most=guest_tests.LARGEST),
        has_network=job.context.settings.network,
    )
    return tests if tests.tests else None


@contextmanager
def _console_of(job: Job, firmware: str) -> Iterator[Path]:
    """Yield the file for one boot's console, whose text joins that of the other boots."""
    console_log = job.folder / "boot.console.log"
    try:
        yield console_log
    finally:
        if console_log.exists():
            with job.console_log.open("ab") as file:
                file.write(f"=== firmware: {firmware or 'as usual'}\n".encode())
                with console_log.open("rb") as boot:
                    boot.seek(max(0, console_log.stat().st_size - _CONSOLE))
                    file.write(boot.read(_CONSOLE) + b"\n")
            console_log.unlink()
