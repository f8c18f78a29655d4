"""Prepare ``simple:`` bases: a disk at a URL, or in the repository."""

from pathlib import Path

from lago_images.building import downloads, qcow2
from lago_images.building.bases.prepared import Prepared, enlarge
from lago_images.building.downloads import Downloader
from lago_images.building.model import Context
from lago_images.disks.decompress import LARGEST
from lago_images.disks.qcow2_header import read_header
from lago_images.disks.unpack import Checksum, ChecksumError, disk_format, unpack
from lago_images.errors import Problem, SpecError
from lago_images.host.http import Client
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import BaseRecord
from lago_images.specs.bases import UNCHECKED
from lago_images.specs.host_folder import ForbiddenPathError, HostFolder, why
from lago_images.specs.model import Spec
from lago_images.specs.properties import size_bytes

DOWNLOADS = "downloads"
_TABLES = 64 * 2**20


def prepare(spec: Spec, workdir: Path, context: Context, runner: Runner) -> Prepared:
    """Fetch and unpack a disk, checked against ``base-checksum``.

    Raises:
        SpecError: A URL without a checksum, or a path outside the repository.
        BuildError: The disk could not be fetched, is damaged, or depends on another file.
    """
    checksum = _checksum(spec)
    disk = workdir / "base.disk"
    if "://" in spec.base.name:
        if checksum is None:
            raise _spec_error(spec, UNCHECKED)
        digest = fetch(spec.base.name, checksum, disk, context, runner, largest=largest(spec))
    else:
        source = _local(spec, context.root)
        digest = unpack(
            source,
            disk,
            expected=checksum,
            label=spec.base.name,
            largest=largest(spec),
            check=runner.children.check,
        )
    record = BaseRecord(ref=str(spec.base), digest=str(digest))
    return finished(spec, disk, record, label=spec.base.name, runner=runner)


def largest(spec: Spec) -> int:
    """Return the bytes that a base's file may have: little more than its disk, which can only grow.

    A qcow2 has tables besides, and cloud images may have been written to more than once.
    """
    size = size_bytes(spec.properties.get("size", ""))
    return LARGEST if size is None else min(LARGEST, size + size // 8 + _TABLES)


def fetch(
    url: str, checksum: Checksum, disk: Path, context: Context, runner: Runner, *, largest: int
) -> Checksum:
    """Download a file once, and unpack the disk in it; neither may be larger than ``largest``.

    A file in the cache that is damaged is downloaded again; one that was just downloaded and is
    not what it should be is an error, and forgotten.
    """
    downloader = Downloader(
        folder=context.cache / DOWNLOADS,
        console=context.console,
        client=Client(environ=context.environ),
        largest=min(largest, downloads.LARGEST),
    )
    key = f"{checksum.algorithm}-{checksum.digits}"
    cached = downloader.has(key)
    try:
        return unpack(
            downloader.fetch(url, key),
            disk,
            expected=checksum,
            label=url,
            largest=largest,
            check=runner.children.check,
        )
    except ChecksumError:
        downloader.drop(key)
        if not cached:
            raise
    context.console.warn(f"the copy of {url} in {downloader.folder} was damaged")
    return fetch(url, checksum, disk, context, runner, largest=largest)


def finished(spec: Spec, disk: Path, record: BaseRecord, *, label: str, runner: Runner) -> Prepared:
    """Take what was unpacked, if it is a disk that depends on no other file, as large as asked.

    Raises:
        SpecError: It is larger than the spec's ``size``.
        BuildError: It depends on another file.
        CommandError: It is damaged.
    """
    form = disk_format(disk, label)
    if form == qcow2.FORMAT and not read_header(disk, label).is_plain:
        # Also a disk with snapshots of its own could not grow.
        plain = disk.with_name("plain.qcow2")
        qcow2.convert(disk, form, plain, runner, doing=f"converting {label}")
        plain.replace(disk)
    facts = qcow2.info(disk, form, runner, doing=f"reading {label}")
    prepared = Prepared(disk=disk, format=form, record=record)
    return enlarge(spec, prepared, runner, facts=facts)


def _checksum(spec: Spec) -> Checksum | None:
    text = spec.properties.get("base-checksum")
    return Checksum(algorithm="sha256", digits=text.removeprefix("sha256:")) if text else None


def _local(spec: Spec, root: Path) -> Path:
    try:
        return Path(HostFolder(root).resolve(spec.base.name))
    except OSError as error:
        raise _spec_error(spec, f"{spec.base.name} cannot be read: {why(error)}") from error
    except ForbiddenPathError as error:
        raise _spec_error(spec, f"{spec.base.name} {error}") from error


def _spec_error(spec: Spec, message: str) -> SpecError:
    return SpecError([Problem(spec.path, spec.base.line, message)])
