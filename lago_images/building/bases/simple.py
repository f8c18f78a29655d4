"""``simple:`` bases: a disk at a URL, or in the repository."""

from pathlib import Path

from lago_images.building.bases.model import Prepared
from lago_images.building.bases.size import enlarge
from lago_images.building.download import Downloader
from lago_images.building.model import Context
from lago_images.building.unpack import Checksum, ChecksumError, disk_format, unpack
from lago_images.errors import Problem, SpecError
from lago_images.host.http import Client
from lago_images.host.process import Runner
from lago_images.repository.manifest import BaseRecord
from lago_images.spec.model import Spec

DOWNLOADS = "downloads"
_DIGITS = {"sha256": 64, "sha512": 128}


def prepare(spec: Spec, workdir: Path, context: Context, runner: Runner) -> Prepared:
    """Fetch and unpack a disk, checked against ``base-checksum``.

    Raises:
        SpecError: A URL without a checksum, or a path outside the repository.
        BuildError: The disk could not be had, is damaged, or depends on another file.
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
    return enlarge(spec, finished(disk, record, what=spec.base.name, runner=runner), runner)


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


def finished(disk: Path, record: BaseRecord, *, what: str, runner: Runner) -> Prepared:
    """What was unpacked, if it is a disk that depends on no other file."""
    form = disk_format(disk, what)
    runner.capture(
        ["qemu-img", "info", "-f", form, "--output", "json", str(disk)], doing=f"reading {what}"
    )
    return Prepared(disk=disk, format=form, record=record)


def _checksum(spec: Spec) -> Checksum | None:
    text = spec.properties.get("base-checksum")
    if not text:
        return None
    algorithm, _, digits = text.partition(":")
    if _DIGITS.get(algorithm) != len(digits):
        raise _wrong(spec, "base-checksum is sha256: and 64 digits, or sha512: and 128")
    return Checksum(algorithm=algorithm, digits=digits.lower())


def _local(spec: Spec, root: Path) -> Path:
    try:
        real = (root / spec.base.name).resolve(strict=True)
    except OSError as error:
        raise _wrong(spec, f"{spec.base.name} cannot be read: {error.strerror}") from error
    if not real.is_relative_to(root.resolve()):
        raise _wrong(spec, f"{spec.base.name} leads out of the repository")
    if not real.is_file():
        raise _wrong(spec, f"{spec.base.name} is not a regular file")
    return real


def _wrong(spec: Spec, what: str) -> SpecError:
    return SpecError([Problem(spec.path, spec.base.line, what)])
