"""Build one image, from its spec to a finished disk, and on to its manifest in the store."""

import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version

from lago_images.building import qcow2
from lago_images.building.bases import layer, libguestfs, signed_list, simple
from lago_images.building.bases.bootstrap import build as bootstrap
from lago_images.building.bases.prepared import Prepared
from lago_images.building.boot.boot_test import Booted
from lago_images.building.customise.engine import customise
from lago_images.building.customise.namespace import rules
from lago_images.building.customise.sysprep import refuse_foreign_commands
from lago_images.building.customise.versions import refuse_unknown_commands
from lago_images.building.esp import with_esp
from lago_images.building.gate import boot_image, refuse_unbootable, warn_of_secrets
from lago_images.building.job import Finished, Job
from lago_images.building.model import Phase
from lago_images.building.reservations import Reservations, needs
from lago_images.building.upload import (
    SidecarFiles,
    record,
    retry_policy,
    send_disk,
    send_file,
    send_sidecars,
    withdraw,
)
from lago_images.errors import BuildError, CommandError
from lago_images.host.process import Children, Runner, search_path
from lago_images.host.retry import RetryPolicy
from lago_images.host.threads import side_by_side
from lago_images.repository.records.layout import BuildKey
from lago_images.repository.records.manifest import (
    BaseRecord,
    BootTest,
    Disk,
    DiskFile,
    Manifest,
)
from lago_images.specs.boot_check import boot_check
from lago_images.specs.host_files import refuse_pointers
from lago_images.specs.model import BaseKind

# Makes the bootstraps; its version takes longer than all others' together.
_BOOTSTRAPS = "mmdebstrap"
# With the option at which each says its version.
_NAMED_TOOLS = {
    "qemu-img": "--version",
    "virt-sysprep": "--version",
    "virt-builder": "--version",
    _BOOTSTRAPS: "--version",
    "mke2fs": "-V",
    "grub-mkimage": "--version",
    "bwrap": "--version",
    "7zz": "--help",
}
_VERSION = re.compile(r"\d+(?:\.\d+)+\S*")
# Seconds between looks at what is under way.
_POLL = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A disk that is in the store: as xz, and in the other forms that the settings ask for."""

    disk: Disk
    also: Mapping[str, DiskFile]


def refuse_unbuildable(job: Job) -> None:
    """Refuse a spec that cannot be built here, as far as that is known before; raises ``Error``."""
    refuse_pointers(job.request.spec, job.context.root)
    refuse_unknown_commands(job.request.spec, job.runner())
    refuse_foreign_commands(job.request.spec)


@contextmanager
def reserved(job: Job, reservations: Reservations) -> Iterator[None]:
    """Reserve the disk space of an image's build, from its start until it is recorded.

    Raises:
        Error: The spec cannot be built or booted here, or there is too little disk space.
    """
    refuse_unbuildable(job)
    refuse_unbootable(job)
    required = needs(job.request.spec, job.base, job.folder, job.context)
    with reservations.reserve(required, _waiting(job)):
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
    spec, progress, runner = job.request.spec, job.progress, job.runner()
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
    warn_of_secrets(job, prepared.secrets)
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
    context, spec, runner = job.context, job.request.spec, job.runner()
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
        manifest = _manifest(job, key, finished, base, sent, boot, tools(runner, spec.base.kind))
        sidecars = SidecarFiles(
            log=job.log, console_log=job.console_log, packages=packages, boot_files=boot_files
        )
        with job.progress.doing("uploading its lists and logs", Phase.UPLOAD):
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


def tools(runner: Runner, base: BaseKind = BaseKind.BOOTSTRAP) -> Mapping[str, str]:
    """Return the versions of the tools that take part in a build on a base, as far as installed."""
    versions = {"lago-images": version("lago-images"), "python": platform.python_version()}
    for program, option in _NAMED_TOOLS.items():
        if program == _BOOTSTRAPS and base is not BaseKind.BOOTSTRAP:
            continue
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
        if finished.prepared.secrets is None:
            job.context.console.info(
                f"{spec.name}: nobody looked for private keys in it: that needs a boot test"
            )
        return _send(job, key, finished, waiting, runner, check), None
    children = Children(runner.children)
    with side_by_side(1, "boot") as workers:
        booting = workers.submit(boot_image, job, finished, replace(runner, children=children))

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
    with job.machine.compression(check), side_by_side(1, "also") as workers:
        also = workers.submit(_send_also, job, key, finished, replace(runner, children=children))

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
            threads=job.machine.threads,
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
