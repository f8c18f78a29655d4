"""Build one image, from its spec to a finished disk, and on to its manifest in the store."""

import platform
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from lago_images.building import qcow2
from lago_images.building.bases import layer, libguestfs, signed_list, simple
from lago_images.building.bases.bootstrap import build as bootstrap
from lago_images.building.bases.prepared import LayerBase, Package, Prepared
from lago_images.building.boot import verdict
from lago_images.building.boot.boot_test import (
    Bench,
    Booted,
    Questions,
    Subject,
    boot_test,
    refuse_shared_identity,
)
from lago_images.building.boot.logins import documented
from lago_images.building.boot.machines import accelerator, machine_for, refuse_missing
from lago_images.building.boot.spec_tests import OwnTests
from lago_images.building.customise.engine import customise
from lago_images.building.customise.namespace import rules
from lago_images.building.customise.sysprep import refuse_foreign_commands, warn_of_secrets
from lago_images.building.customise.versions import refuse_unknown_commands
from lago_images.building.esp import with_esp
from lago_images.building.model import Context, Phase, Request
from lago_images.building.progress import Progress
from lago_images.building.reservations import Machine, Reservations, needs
from lago_images.building.upload import (
    SidecarFiles,
    record,
    retry_policy,
    send_disk,
    send_file,
    send_sidecars,
    withdraw,
)
from lago_images.errors import BootError, BuildError, CommandError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Children, Runner, search_path
from lago_images.host.retry import RetryPolicy
from lago_images.repository.records.layout import BuildKey
from lago_images.repository.records.manifest import (
    BaseRecord,
    BootTest,
    Disk,
    DiskFile,
    EngineRecord,
    Manifest,
)
from lago_images.specs import guest_tests
from lago_images.specs.boot_check import boot_check
from lago_images.specs.host_files import HostFolder, refuse_pointers
from lago_images.specs.model import BaseKind
from lago_images.specs.quarantine import day, ending

# Ends a program when we are killed; it stays the same process.
_DIE_TOGETHER = ("setpriv", "--pdeathsig", "KILL", "--")
# With the option at which each says its version.
_NAMED_TOOLS = {
    "qemu-img": "--version",
    "virt-sysprep": "--version",
    "virt-builder": "--version",
    "mmdebstrap": "--version",
    "mke2fs": "-V",
    "grub-mkimage": "--version",
    "bwrap": "--version",
    "7zz": "--help",
}
# The last bytes of a boot's console that are kept: a guest may write all the time.
_CONSOLE = 4 * 2**20
_VERSION = re.compile(r"\d+(?:\.\d+)+\S*")
# Seconds between looks at what is under way.
_POLL = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An image to build, and its folders and programs.

    Attributes:
        accel: What guests run on here.
        folder: The image's part of the work directory.
        base: What a layer stands on; None for others.
        children: The run's programs.
        reservations: The run's, of disk space.
        machine: Whose memory and processors the run shares.
    """

    request: Request
    context: Context
    accel: Acceleration
    folder: Path
    base: LayerBase | None
    children: Children
    reservations: Reservations
    machine: Machine
    progress: Progress

    @property
    def log(self) -> Path:
        return self.progress.log

    @property
    def console_log(self) -> Path:
        return self.log.with_suffix(".console.log")

    @property
    def screenshot(self) -> Path:
        """Return where the guest's screen is kept when a boot test refuses it."""
        return self.log.with_suffix(".png")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A disk that may be published; ``start_time`` is when its build began."""

    disk: Path
    virtual_size: int
    prepared: Prepared
    packages: tuple[Package, ...] | None
    engine: EngineRecord | None
    start_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A disk that is in the store: as xz, and in the other forms that the settings ask for."""

    disk: Disk
    also: Mapping[str, DiskFile]


@contextmanager
def reserved(job: Job) -> Iterator[None]:
    """Reserve the disk space of an image's build, from its start until it is recorded.

    Raises:
        Error: The spec cannot be built here, or there is too little disk space.
    """
    refuse_pointers(job.request.spec, job.context.root)
    refuse_unknown_commands(job.request.spec, _runner(job))
    refuse_foreign_commands(job.request.spec)
    if not boot_check(job.request.spec.properties).is_off:
        for firmware in job.request.firmwares or ("",):
            refuse_missing(machine_for(job.request.spec.arch, firmware), job.context.environ)
    required = needs(job.request.spec, job.base, job.folder, job.context)
    with job.reservations.reserve(required, _waiting(job)):
        yield


def _waiting(job: Job) -> Callable[[], None]:
    """Return a callback that reports once that an image waits, and ends with the run."""
    is_reported = False

    def waiting() -> None:
        nonlocal is_reported
        if not is_reported:
            name = job.request.spec.name
            job.context.console.info(
                f"{name}: waits for disk space that other images have reserved"
            )
        is_reported = True
        job.children.check()

    return waiting


def finish(job: Job) -> Finished:
    """Build an image's disk, which layers may stand on from now on; raises ``Error``."""
    spec, progress, runner = job.request.spec, job.progress, _runner(job)
    start_time = job.context.clock()
    with progress.doing(f"preparing {spec.base}", Phase.BASE):
        prepared = _prepare(job, runner)
    engine = None
    if spec.operations:
        with (
            job.machine.guest(job.children.check),
            progress.doing("customising", Phase.SETUP),
        ):
            done = customise(spec, prepared, job.folder, job.context, runner, accel=job.accel)
        prepared, engine = done.prepared, done.engine
    # In the appliance commands may have written there what mtools should not be given.
    if engine is None or engine.name == rules.NAMESPACE:
        prepared = with_esp(prepared, runner)
    disk = job.folder / "finished.qcow2"
    with progress.doing("writing the finished disk", Phase.DISK):
        virtual_size = qcow2.standalone(prepared.disk, prepared.format, disk, runner)
    return Finished(
        disk=disk,
        virtual_size=virtual_size,
        prepared=prepared,
        packages=prepared.packages,
        engine=engine,
        start_time=start_time,
    )


def store(job: Job, finished: Finished, base: BaseRecord) -> Manifest:
    """Boot-test and upload a finished disk; the manifest is uploaded last and commits the build.

    ``base`` is what the disk stands on. Raises ``Error`` when it failed. Nothing of it stays in
    the store where that may be removed, unless the manifest was on its way: it may be there, and
    another run may have released the build.
    """
    context, spec, runner = job.context, job.request.spec, _runner(job)
    key = BuildKey(
        name=spec.name,
        arch=spec.arch,
        build_id=build_id(context.clock(), job.request.fingerprint),
    )
    waiting = retry_policy(job.children, context.console)
    try:
        sent, booted = _boot_and_send(job, key, finished, waiting, runner)
        packages, boot_files = finished.packages, finished.prepared.boot_files
        if packages is None and booted:
            packages, boot_files = booted.packages, booted.boot_files
        finished = replace(finished, packages=packages)
        boot = booted.test if booted else None
        manifest = _manifest(job, key, finished, base, sent, boot, tools(runner))
        sidecars = SidecarFiles(
            log=job.log, console_log=job.console_log, packages=packages, boot_files=boot_files
        )
        with job.progress.doing("uploading the sidecar files", Phase.UPLOAD):
            send_sidecars(context.store, manifest, spec, sidecars, waiting)
    except BaseException:
        withdraw(context.store, key)
        raise
    with job.progress.doing("recording the build", Phase.UPLOAD):
        record(context.store, manifest, waiting)
    return manifest


def build_id(now: float, fingerprint: str) -> str:
    """Return a name no other build has: the time, the fingerprint, and chance."""
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    return f"{when}-{fingerprint.rpartition(':')[2][:8]}-{secrets.token_hex(4)}"


def tools(runner: Runner) -> Mapping[str, str]:
    """Return the versions of the tools that take part in a build, as far as installed."""
    versions = {"lago-images": version("lago-images"), "python": platform.python_version()}
    for program, option in _NAMED_TOOLS.items():
        if shutil.which(program, path=search_path(runner.environ)):
            try:
                # mke2fs says it on standard error.
                shell = ["sh", "-c", 'exec "$0" "$1" 2>&1', program, option]
                output = runner.capture(shell).decode(errors="replace")
            except CommandError:
                continue
            if match := _VERSION.search(output):
                versions[program] = match[0]
    return versions


def _runner(job: Job) -> Runner:
    environ = job.context.environ
    has_setpriv = sys.platform == "linux" and shutil.which(
        _DIE_TOGETHER[0], path=search_path(environ)
    )
    return Runner(
        environ={**environ, "TMPDIR": str(job.folder)},
        log=job.log,
        prefix=_DIE_TOGETHER if has_setpriv else (),
        children=job.children,
    )


def _prepare(job: Job, runner: Runner) -> Prepared:
    spec, context = job.request.spec, job.context
    match spec.base.kind:
        case BaseKind.BOOTSTRAP:
            return bootstrap.prepare(
                spec,
                job.request.fingerprint,
                job.folder,
                context,
                runner,
                origin=job.request.origin,
            )
        case BaseKind.LIBGUESTFS:
            return libguestfs.prepare(spec, job.folder, context, runner)
        case BaseKind.SIMPLE if "base-checksums" in spec.properties:
            return signed_list.prepare(spec, job.folder, context, runner)
        case BaseKind.SIMPLE:
            return simple.prepare(spec, job.folder, context, runner)
        case BaseKind.LAYER:
            if job.base is None:
                raise BuildError(f"{spec.name} stands on {spec.base.name}, which has no build")
            return layer.prepare(spec, job.base, job.folder, context, runner)


def _boot_and_send(
    job: Job, key: BuildKey, finished: Finished, waiting: RetryPolicy, runner: Runner
) -> tuple[Sent, Booted | None]:
    """Boot a finished disk while it is compressed and uploaded, which only reads it, too.

    What fails ends the other, and a disk that was uploaded has no manifest yet: it is no build.
    """
    spec, check = job.request.spec, runner.children.check
    if boot_check(spec.properties).is_off:
        job.progress.note(f"not booted: {boot_check(spec.properties).reason}")
        if finished.packages is None:
            job.context.console.info(
                f"{spec.name}: nobody looked for private keys in it: that needs a boot test"
            )
        return _send(job, key, finished, waiting, runner, check), None
    children = Children(runner.children)
    with ThreadPoolExecutor(1, thread_name_prefix="boot") as pool:
        booting = pool.submit(_boot, job, finished, replace(runner, children=children))

        def check_both() -> None:
            check()
            if booting.done():
                booting.result()

        try:
            sent = _send(job, key, finished, waiting, runner, check_both)
            return sent, booting.result()
        except BaseException:
            children.end()
            raise


def _boot(job: Job, finished: Finished, runner: Runner) -> Booted:
    """Boot and test the disk; what a quarantine holds back is a warning."""
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
    for line in verdict.warnings(held, spec.name, quarantine, today):
        job.context.console.warn(f"{spec.name}: {line}")
        job.progress.note(f"quarantined: {line}")
    return replace(booted, test=replace(booted.test, quarantined=held))


def _boot_everywhere(job: Job, finished: Finished, runner: Runner) -> Booted:
    """Boot the disk under each kind of firmware that it is for, one after the other."""
    booted: list[Booted] = []
    for number, firmware in enumerate(job.request.firmwares or ("",), start=1):
        # One of them looks inside; what was customised here has reported its packages already.
        look_inside = finished.packages is None and not booted
        doing = job.progress.doing(f"boot test {firmware}".rstrip(), Phase.BOOT)
        with (
            job.machine.guest(runner.children.check),
            doing,
            _console_of(job, firmware) as console_log,
        ):
            subject = Subject(
                disk=finished.disk,
                fmt=qcow2.FORMAT,
                arch=job.request.spec.arch,
                firmware=firmware,
                number=number,
            )
            bench = Bench(
                accel=job.accel,
                timeout=job.context.settings.boot_timeout,
                workdir=job.folder,
                runner=runner,
                clock=job.context.clock,
                console_log=console_log,
                screenshot=job.screenshot,
            )
            questions = Questions(
                look_inside=look_inside,
                again=not booted,
                logins=documented(job.request.spec.operations),
                pattern=boot_check(job.request.spec.properties).pattern,
                tests=None if booted else _own_tests(job),
            )
            booted.append(boot_test(subject, bench, questions))
    if job.request.spec.tests and not boot_check(job.request.spec.properties).has_agent:
        job.context.console.info(
            f"{job.request.spec.name}: the tests that it inherits are not run: no agent is asked"
        )
    for other in booted[1:]:
        refuse_shared_identity(booted[0], other)
    warn_of_secrets(job.request.spec, booted[0].secrets or (), job.context)
    return replace(booted[0], test=_together([each.test for each in booted]))


def _together(tests: Sequence[BootTest]) -> BootTest:
    """Make one record of a disk's boots; the first has the second start and the tests."""
    slowest = max(tests, key=lambda test: test.seconds)
    seconds = {name: taken for test in tests for name, taken in test.firmware.items()}
    checks = dict.fromkeys(name for test in tests for name in test.checks)
    if len(tests) > 1:
        checks["clones"] = None
    return replace(
        slowest,
        firmware=seconds,
        again=tests[0].again,
        checks=tuple(checks),
        tests=tests[0].tests,
    )


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


def _send(
    job: Job,
    key: BuildKey,
    finished: Finished,
    waiting: RetryPolicy,
    runner: Runner,
    check: Callable[[], None],
) -> Sent:
    """Compress and upload a disk, in its other forms beside the xz; what fails ends the rest."""
    children = Children(runner.children)
    with job.machine.compression(check), ThreadPoolExecutor(1, thread_name_prefix="also") as pool:
        also = pool.submit(_send_also, job, key, finished, replace(runner, children=children))

        def check_all() -> None:
            check()
            if also.done():
                also.result()

        try:
            disk = _send_xz(job, key, finished, waiting, runner, check_all)
            while not wait([also], timeout=_POLL).done:
                check()
            return Sent(disk=disk, also=also.result())
        except BaseException:
            children.end()
            raise


def _send_also(
    job: Job, key: BuildKey, finished: Finished, runner: Runner
) -> Mapping[str, DiskFile]:
    """Make and upload the disk in the forms that the settings ask for beside the xz."""
    also, store = {}, job.context.store
    # Of its own: what ends this does not end the image's other work.
    waiting = retry_policy(runner.children, job.context.console)
    for form in job.context.settings.publish_also:
        file, name = job.folder / f"also.{form}", key.staging.also(form)
        with job.progress.doing(f"compressing and uploading the {form}", Phase.ALSO):
            qcow2.compress(finished.disk, file, runner)
            check = runner.children.check
            also[form] = send_file(store, name, file, retry=waiting, check=check)
            file.unlink()
    return also


def _send_xz(
    job: Job,
    key: BuildKey,
    finished: Finished,
    waiting: RetryPolicy,
    runner: Runner,
    check: Callable[[], None],
) -> Disk:
    context = job.context
    step = "compressing and uploading"
    size = finished.disk.stat().st_size
    with (
        job.progress.doing(step, Phase.UPLOAD),
        context.console.progress(f"{key.name}: {step}", size) as advance,
    ):
        digests = send_disk(
            context.store,
            key,
            finished.disk,
            level=context.settings.compression_level,
            runner=runner,
            advance=advance,
            retry=waiting,
            check=check,
        )
    return Disk(
        format=qcow2.FORMAT,
        virtual_size=finished.virtual_size,
        size=digests.size,
        compressed_size=digests.compressed_size,
        sha1=digests.sha1,
        sha256=digests.sha256,
        sha512=digests.sha512,
        plain_sha256=digests.plain_sha256,
    )


def _manifest(
    job: Job,
    key: BuildKey,
    finished: Finished,
    base: BaseRecord,
    sent: Sent,
    boot: BootTest | None,
    used: Mapping[str, str],
) -> Manifest:
    request, now = job.request, job.context.clock()
    return Manifest(
        name=key.name,
        arch=key.arch,
        build_id=key.build_id,
        fingerprint=request.fingerprint,
        base=base,
        disk=sent.disk,
        commit=request.commit,
        dirty=request.dirty,
        created=int(now),
        seconds=int(now - finished.start_time),
        properties=request.spec.properties,
        boot=boot,
        packages=None if finished.packages is None else len(finished.packages),
        tools=used,
        engine=finished.engine,
        also=sent.also,
    )
