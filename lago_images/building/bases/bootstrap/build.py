"""Bootstrap a Debian: its signed packages become a disk, without an appliance."""

import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lago_images.building.bases.bootstrap.debian import Recipe, has_cloud_init, host_mirrors, recipe
from lago_images.building.bases.bootstrap.disk import write_disk
from lago_images.building.bases.bootstrap.guest_files import Guest, make_guest
from lago_images.building.bases.bootstrap.layout import Layout
from lago_images.building.bases.prepared import Prepared
from lago_images.building.boot_files import from_answer
from lago_images.building.customise import identities
from lago_images.building.customise.sysprep import warn_of_secrets
from lago_images.building.model import Context
from lago_images.building.packages import digest, parse_dpkg_status
from lago_images.building.scratch import private, refuse_nodev, refuse_noexec
from lago_images.errors import BuildError, CommandError, ToolMissingError
from lago_images.host.process import Runner
from lago_images.host.tools import AS_ROOT
from lago_images.repository.records.boot_files import BootFiles
from lago_images.repository.records.manifest import BaseRecord
from lago_images.specs.bases import has_uefi
from lago_images.specs.model import Spec
from lago_images.specs.properties import size_bytes

DEFAULT_SIZE = 6 * 2**30
# Package scripts ask for the host's name: it is the guest's there, not the builder's.
_NAMED = ("sh", "-c", 'hostname "$0" && exec "$@"')
_NAMES = 'echo {name} >"$1/etc/hostname"; echo 127.0.1.1 {name} >"$1/etc/hosts"'
# The guest's own shell: what it finds there behind a link is the guest's. Its /dev is the host's.
_IN_GUEST = ("sh", "-c", 'mount --rbind /dev "$0/dev" && exec chroot "$0" /bin/sh')
# A package's files keep their times, which do not change from one bootstrap to the next. Only root
# may make devices, and no guest needs those: the kernel's own file system is mounted over them.
_SETTLE = """
set -eu
cd "$0"
find . -xdev -path './dev/*' -delete
touch --no-dereference dev
epoch=$(find . -xdev ! -newermt "@$1" -printf '%T@\\n' | sort -n | tail -n 1)
epoch=${epoch%%.*}
[ "${epoch:-0}" -gt "$2" ] || epoch=$2
find . -xdev -newermt "@$1" -exec touch --no-dereference --date="@$epoch" {} +
echo "$epoch"
"""
# How this host's administrator has apt reach its mirrors, which holds for a bootstrap too.
_APT = re.compile(
    r"^(Acquire::(?:(?:https?|ftp)::(?:Proxy(?:-Auto-Detect)?|CaInfo|Verify-Peer|Timeout)(?:::\S+)?"
    r"|Retries|Check-Valid-Until|Check-Date|ForceIPv[46])) (\"[^\"]*\";)$",
    re.MULTILINE,
)


def disk_size(spec: Spec) -> int:
    """Return the virtual disk's bytes: the property ``size``, which has been checked, or 6 GiB."""
    return size_bytes(spec.properties.get("size", "")) or DEFAULT_SIZE


def prepare(
    spec: Spec, fingerprint: str, workdir: Path, context: Context, runner: Runner
) -> Prepared:
    """Bootstrap a release's packages into a bootable disk, without an appliance.

    Args:
        spec: Has the base.
        fingerprint: The image's; the disk's identifiers are made of it.
        workdir: Where the disk is made.
        context: Its console, clock and settings.
        runner: Starts the tools.

    Raises:
        SpecError: There is no such release.
        BuildError: The bootstrap failed, or does not fit on the disk.
        HostError: The work directory's file system is mounted with noexec or nodev.
    """
    todo = recipe(spec, host_mirrors(runner))
    layout = Layout(
        size=disk_size(spec),
        has_uefi=has_uefi(spec.properties),
        identity=fingerprint,
        distribution=todo.release.distribution.name,
    )
    user = () if os.geteuid() == 0 else AS_ROOT
    disk = workdir / "base.raw"
    guest = Guest(
        title=todo.release.title,
        hostname=_hostname(spec),
        layout=layout,
        has_cloud_init=has_cloud_init(spec),
    )
    context.console.info(f"{spec.name}: bootstrapping {todo.release.title}")
    refuse_noexec(workdir)
    with private(workdir / "bootstrap") as folder:
        rootfs = folder / "rootfs"
        start_time = int(context.clock())
        try:
            with _apt_settings(workdir, runner) as settings:
                _debootstrap(todo, rootfs, settings, runner, guest.hostname)
            packages = parse_dpkg_status((rootfs / "var/lib/dpkg/status").read_text("utf-8"))
            warn_of_secrets(spec, _remove_identities(rootfs, runner), context)
            make_guest(rootfs, guest)
            boot_files = _boot_files(rootfs, runner)
            epoch = _settle_times(rootfs, start_time, todo, runner, user)
            write_disk(rootfs, disk, layout, workdir, runner, epoch=epoch, user=user)
        finally:
            _remove(rootfs, runner, user)
    record = BaseRecord(ref=str(spec.base), digest=digest(packages), detail=todo.detail)
    return Prepared(
        disk=disk, format="raw", record=record, packages=packages, boot_files=boot_files
    )


def _settle_times(
    rootfs: Path, start_time: int, todo: Recipe, runner: Runner, user: tuple[str, ...]
) -> int:
    """Give all that this bootstrap wrote the time of the newest file that a package brought.

    Returns:
        That time, in seconds since the epoch.
    """
    argv = [*user, "sh", "-c", _SETTLE, str(rootfs), str(start_time - 1), str(todo.release.date)]
    return int(runner.capture(argv, doing="setting the files' times"))


def _debootstrap(todo: Recipe, rootfs: Path, settings: Path, runner: Runner, hostname: str) -> None:
    # fmt: off
    argv = [
        *_namespaces(), "--uts", *_NAMED, hostname, "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        f"--components={todo.release.distribution.components.replace(' ', ',')}",
        f"--architectures={todo.arch}",
        f"--include={','.join(todo.packages)}",
        f"--aptopt={settings}",
        *_keyring(todo),
        # One write of the finished folder follows; until then nothing needs to be durable.
        "--dpkgopt=force-unsafe-io",
        f"--essential-hook={_NAMES.format(name=hostname)}",
        todo.release.codename,
        str(rootfs),
        *todo.sources,
    ]
    # fmt: on
    try:
        # The initrd, /etc/shadow and Python's compiled modules keep it in place of the time of day.
        times = {"SOURCE_DATE_EPOCH": str(todo.release.date)}
        runner.run(argv, env=times, doing=f"bootstrapping {todo.release.title}")
    except CommandError as error:
        refuse_nodev(rootfs.parent)
        raise BuildError(
            f"bootstrapping {todo.release.title} failed: {_reason(error)}",
            hint="mirror= in the spec names another mirror; the log has apt's whole output",
        ) from error


def _namespaces() -> tuple[str, ...]:
    """Return a command's prefix that gives it mounts of its own, and root's rights."""
    return ("unshare", "--mount") if os.geteuid() == 0 else AS_ROOT


def _remove_identities(rootfs: Path, runner: Runner) -> list[str]:
    """Remove what package scripts made once for all machines; returns the secrets that are left."""
    calls = "remove_identities >&2\nsecrets | sort -u"
    return _in_guest(calls, rootfs, runner, doing="removing identities")


def _boot_files(rootfs: Path, runner: Runner) -> BootFiles | None:
    return from_answer(_in_guest("boot_files", rootfs, runner, doing="listing the boot files"))


def _in_guest(calls: str, rootfs: Path, runner: Runner, *, doing: str) -> list[str]:
    """Call functions of ``finish.sh`` in the guest; returns the lines that they print."""
    script = f"{identities.finish_script()}\n{calls}\n"
    argv = [*_namespaces(), *_IN_GUEST, str(rootfs)]
    # A path of the guest is of whatever bytes its packages chose.
    out = runner.capture(argv, stdin=script.encode(), doing=doing)
    return out.decode(errors="replace").splitlines()


def _keyring(todo: Recipe) -> tuple[str, ...]:
    """Return the archive's keys besides those in trusted.gpg.d; mmdebstrap finds its mirrors'."""
    # Where apt does not look by itself: the keys may be of another distribution than the host.
    keyring = Path(todo.release.distribution.keyring)
    return (f"--keyring={keyring}",) if todo.sources and keyring.exists() else ()


@contextmanager
def _apt_settings(folder: Path, runner: Runner) -> Generator[Path]:
    """Write apt's settings, for nobody else to read: a proxy of the host's may have a password."""
    lines = ['Acquire::Languages "none";', *_host_settings(runner)]
    settings = folder / "apt.conf"
    try:
        settings.touch(mode=0o600, exist_ok=False)
        settings.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        yield settings
    finally:
        settings.unlink(missing_ok=True)


def _host_settings(runner: Runner) -> list[str]:
    try:
        out = runner.capture(["apt-config", "dump", "Acquire"], doing="reading apt's settings")
    except ToolMissingError:
        return []
    return [f"{m[1]} {m[2]}" for m in _APT.finditer(out.decode(errors="replace"))]


def _reason(error: CommandError) -> str:
    """Return the line that explains most: apt's or mmdebstrap's error."""
    errors = [line for line in error.tail if line.startswith(("E: ", "Err:"))]
    return (errors or list(error.tail) or [error.message])[0]


def _hostname(spec: Spec) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", spec.name.lower()).strip("-")[:63] or "debian"


def _remove(rootfs: Path, runner: Runner, user: tuple[str, ...]) -> None:
    """Remove the folder, whose files belong to other users when unshared."""
    if not rootfs.exists():
        return
    if user:
        runner.run([*user, "rm", "-rf", "--one-file-system", str(rootfs)])
    else:
        shutil.rmtree(rootfs)
