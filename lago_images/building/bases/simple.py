"""Prepare ``simple:`` bases: a disk at a URL, or in the repository."""

from pathlib import Path

from lago_images.building.bases.prepared import Prepared, enlarge
from lago_images.building.downloads import Downloader
from lago_images.building.model import Context
from lago_images.building.qcow2 import info
from lago_images.disks.unpack import Checksum, ChecksumError, disk_format, unpack
from lago_images.errors import Problem, SpecError
from lago_images.host.http import Client
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import BaseRecord
from lago_images.specs.host_files import ForbiddenPathError, HostFolder, why
from lago_images.specs.model import Spec

DOWNLOADS = "downloads"


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
            raise _wrong(spec, "a simple: base at a URL needs #base-checksum=sha256:…")
        found = fetch(spec.base.name, checksum, disk, context)
    else:
        source = _local(spec, context.root)
        found = unpack(source, disk, expected=checksum, what=spec.base.name)
    record = BaseRecord(ref=str(spec.base), digest=str(found))
    return finished(spec, disk, record, what=spec.base.name, runner=runner)


def fetch(url: str, checksum: Checksum, disk: Path, context: Context) -> Checksum:
    """Download a file once, and unpack the disk in it.

    A file in the cache that is damaged is downloaded again; one that was just downloaded and is
    not what it should be is an error, and forgotten.
    """
    downloader = Downloader(
        folder=context.cache / DOWNLOADS,
        console=context.console,
        client=Client(environ=context.environ),
    )
    key = f"{checksum.algorithm}-{checksum.digits}"
    cached = downloader.has(key)
    try:
        return unpack(downloader.fetch(url, key), disk, expected=checksum, what=url)
    except ChecksumError:
        downloader.drop(key)
        if not cached:
            raise
    context.console.warn(f"the copy of {url} in {downloader.folder} was damaged")
    return fetch(url, checksum, disk, context)


def finished(spec: Spec, disk: Path, record: BaseRecord, *, what: str, runner: Runner) -> Prepared:
    """Take what was unpacked, if it is a disk that depends on no other file, as large as asked.

    Raises:
        SpecError: It is larger than the spec's ``size``.
        BuildError: It depends on another file.
        CommandError: It is damaged.
    """
    form = disk_format(disk, what)
    facts = info(disk, form, runner, doing=f"reading {what}")
    prepared = Prepared(disk=disk, format=form, record=record)
    return enlarge(spec, prepared, runner, facts=facts)


def _checksum(spec: Spec) -> Checksum | None:
    text = spec.properties.get("base-checksum")
    return Checksum(algorithm="sha256", digits=text.removeprefix("sha256:")) if text else None


def _local(spec: Spec, root: Path) -> Path:
    try:
        return Path(HostFolder(root).resolve(spec.base.name))
    except OSError as error:
        raise _wrong(spec, f"{spec.base.name} cannot be read: {why(error)}") from error
    except ForbiddenPathError as error:
        raise _wrong(spec, f"{spec.base.name} {error}") from error


def _wrong(spec: Spec, what: str) -> SpecError:
    return SpecError([Problem(spec.path, spec.base.line, what)])
