"""``lago-images try`` and ``run``: look into an image before it is published, or after."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from lago_images.building.boot import machines, terminal
from lago_images.building.model import Result
from lago_images.cli.answers import TriedDisk
from lago_images.cli.completion import spec_names
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.interruption import BUILD_AGAIN, advising
from lago_images.cli.invocation import Invocation, command, finish
from lago_images.cli.output import show_results, speaker
from lago_images.cli.run_report import image_reports
from lago_images.cli.targets import FILE, FOLDER, refuse_unwritable_beside, writable
from lago_images.console import Console, human_size
from lago_images.errors import UsageError
from lago_images.host import kvm
from lago_images.host.process import Runner
from lago_images.host.redaction import command_line
from lago_images.host.workdir import default_scratch, workdir
from lago_images.jobs import trial
from lago_images.jobs.plan import tree_of
from lago_images.repository.records.guest_tests import tally
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.state import StoredBuild
from lago_images.specs.choosing import is_pattern
from lago_images.specs.folder import spec_names as read_names
from lago_images.specs.properties import FIRMWARES
from lago_images.storage.base import Store

# QEMU is told the format: it would guess it from the first bytes, which the guest of a raw disk may
# have written (CVE-2008-2004).
_FORMATS = {".img": "raw", ".raw": "raw"}
# Where a published disk is unpacked, below the folder for temporary files.
_RUN, _DISK = "RUN", "disk"


@click.command("try")
@click.argument("name", shell_complete=spec_names)
@click.option(
    "--output",
    type=FILE,
    help="The disk's file. [default: NAME.qcow2 in the current folder]",
)
@click.option("--force", is_flag=True, help="Replace the disk's file if it exists.")
@click.option(
    "--keep",
    type=FOLDER,
    callback=writable,
    help="Write here what lago-images repo diff compares: manifest, packages, boot files, spec.",
)
@click.option("--logs", type=FOLDER, callback=writable, help="Keep each image's log here.")
@click.option("--require-kvm", is_flag=True, default=None, help="Refuse to build without KVM.")
@FORMAT
@click.pass_obj
def try_(
    invocation: Invocation,
    name: str,
    output: Path | None,
    force: bool,
    keep: Path | None,
    logs: Path | None,
    require_kvm: bool | None,
    form: str,
) -> None:
    """Build and boot an image without publishing, and leave its disk.

    Bases that are not published as they are now are built, too. The repository is only read.
    """
    if is_pattern(name):
        raise UsageError(
            f"{name} is a pattern, and try makes the disk of one image",
            hint=f"lago-images build {shlex.quote(name)} --repo-dir FOLDER builds several",
        )
    target = _target(name, output, force=force)
    invocation.override(require_kvm=require_kvm, publish_also=())
    with workdir(default_scratch(invocation.environ), invocation.console) as folder:
        workspace = invocation.workspace(logs=logs, aside=folder)
        # As they are now: somebody may go on writing while it is built.
        specs = tree_of(workspace).specs
        with advising(BUILD_AGAIN):
            plan, results = trial.build_only(workspace, name)
        show_results(workspace.console, results, speaker(workspace.console, form))
        built = next((r.manifest for r in results if r.name == name and r.manifest), None)
        disk = None
        if built is not None:
            stored = StoredBuild(manifest=built, folder=built.key.staging)
            disk = trial.unpack(workspace.store, stored, target)
            if keep is not None:
                trial.keep(workspace.store, stored, specs[name], keep)
        if form == "json":
            tried = TriedDisk(
                disk=str(disk.path) if disk else None,
                format=disk.format if disk else None,
                kept=str(keep.absolute()) if disk and keep else None,
                images=image_reports(workspace.store, plan, results, None),
                ok=disk is not None,
            )
            click.echo(document(tried))
        elif disk:
            click.echo(disk.path)
        after = _next(invocation, workspace.store, disk, built, keep) if disk and built else ()
        for line in (*after, *_tests(results, name)):
            workspace.console.info(line)
    finish(succeeded=built is not None)


def _tests(results: Sequence[Result], name: str) -> Iterator[str]:
    """Yield how the tests of an image ended, if any were run."""
    for result in results:
        boot = result.manifest.boot if result.manifest else None
        told = tally(boot.tests, boot.quarantined) if boot else tally(result.tests)
        if told and result.name == name:
            yield told


def _next(
    invocation: Invocation,
    store: Store,
    disk: trial.FinishedDisk,
    built: Manifest,
    kept: Path | None,
) -> Iterator[str]:
    """Yield what starts a disk, and what compares its build with what clients get now, if any."""
    yield f"next: {_run(disk, built)}"
    revision = trial.offered(store, built.key.image) if kept else None
    if kept and revision is not None:
        words = ("repo", "diff", built.name, str(revision), _argument(kept))
        compare = command(invocation.root, invocation.overrides.get("repository"), *words)
        yield f"what changed since revision {revision}: {compare}"


def _run(disk: trial.FinishedDisk, built: Manifest) -> str:
    """Return the command that starts a disk as it was tested."""
    words = ["lago-images", "run", _argument(disk.path)]
    if disk.arch != machines.host():
        words += ["--arch", disk.arch]
    tested = trial.tested_firmware(built)
    if tested in FIRMWARES and tested != machines.machine_for(disk.arch).firmware:
        words += ["--firmware", tested]
    return shlex.join(words)


def _argument(path: Path) -> str:
    """Return a path as it is shortest from the current folder; never as a number or option."""
    whole = path.absolute()
    below = os.path.relpath(whole) if whole.is_relative_to(Path.cwd()) else str(whole)
    return f"./{below}" if below.isdecimal() or below.startswith("-") else below


def _target(name: str, output: Path | None, *, force: bool) -> Path:
    """Return the disk's file; raises ``UsageError`` where it cannot be written, or exists."""
    # The name may be a mistyped path; it is no reason to write elsewhere than here.
    target = (output or Path(f"{Path(name).name}.qcow2")).absolute()
    if target.exists() and not force:
        raise UsageError(f"{target} exists", hint="--force replaces it, --output names another")
    refuse_unwritable_beside(target, "the disk's file")
    return target


@click.command()
@click.argument("name", metavar="NAME|DISK")
@click.option("--arch", default=machines.host(), help="Of a disk in a file. [default: this host's]")
@click.option(
    "--firmware",
    type=click.Choice(FIRMWARES),
    help="The machine's. [default: one that the image was tested with, else the usual one]",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only show the command that starts it, and what would be unpacked for that.",
)
@click.pass_obj
def run(invocation: Invocation, name: str, arch: str, firmware: str | None, dry_run: bool) -> None:
    """Start an image on this terminal; what it writes is thrown away.

    DISK is the file of a disk, such as lago-images try leaves; NAME is a published image. The
    guest's serial console is the terminal: Ctrl-A X ends it.
    """
    console, file = invocation.console, Path(name)
    accel = kvm.detect(Runner(environ=invocation.environ))
    with ExitStack() as stack:
        scratch = default_scratch(invocation.environ)
        if file.is_file():
            fmt = _FORMATS.get(file.suffix, "qcow2")
            trial.refuse_no_disk(file, fmt)
            disk = trial.FinishedDisk(path=file.absolute(), format=fmt, arch=arch)
        else:
            store = invocation.store()
            specs = invocation.root / invocation.settings.specs
            known = read_names(specs) if specs.is_dir() else []
            built = trial.published(store, name, known)
            firmware = firmware or trial.tested_firmware(built.manifest)
            if dry_run:
                disk = _unpacked_later(built, scratch, console)
            else:
                scratch = stack.enter_context(workdir(scratch, console))
                disk = trial.unpack(store, built, scratch / _DISK)
        machine = machines.machine_for(disk.arch, firmware or "")
        argv = terminal.command(machine, disk.path, disk.format, accel)
        if dry_run:
            click.echo(command_line(argv))
            return
        console.info("starting it; Ctrl-A X ends it, and what it wrote is thrown away")
        code = terminal.start(argv, machine, scratch, invocation.environ)
    finish(succeeded=code == 0)


def _unpacked_later(built: StoredBuild, scratch: Path, console: Console) -> trial.FinishedDisk:
    """Return where a run would unpack a published disk, and say from what and how large."""
    disk = built.manifest.disk
    path = scratch / _RUN / _DISK
    console.info(
        f"a run unpacks {built.folder.disk} ({human_size(disk.compressed_size)}) into {path} "
        f"({human_size(disk.size)}, a disk of {human_size(disk.virtual_size)} to its guest) and "
        f"removes it at its end; {_RUN} stands for a folder of its own"
    )
    return trial.FinishedDisk(path=path, format=disk.format, arch=built.manifest.arch)
