"""Prepare ``layer:`` bases: another image of this repository."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from lago_images.building import downloads, qcow2
from lago_images.building.bases.prepared import FinishedBase, LayerBase, Prepared, enlarge
from lago_images.building.model import Context
from lago_images.disks.decompress import PIECE, DamagedError, decompress
from lago_images.disks.unpack import ChecksumError, disk_format
from lago_images.errors import BuildError
from lago_images.host import space
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import BaseRecord, Disk
from lago_images.repository.records.state import StoredBuild
from lago_images.specs.model import Spec

LAYERS = "layers"


def prepare(
    spec: Spec, base: LayerBase, workdir: Path, context: Context, runner: Runner
) -> Prepared:
    """Make a disk with what is on the base image's, for the layer's commands.

    On a base of this run it stands on the base's own disk and has what differs, which is nothing
    yet; a base from the store is unpacked.

    Args:
        spec: The layer.
        base: The base's build in the store, or its disk from this run.
        workdir: Where the disk is made.
        context: Its store and cache.
        runner: Starts qemu-img.

    Raises:
        BuildError: The base in the store is not what its manifest says.
        StorageError: The store could not be read.
    """
    disk = workdir / "base.qcow2"
    if isinstance(base, FinishedBase):
        qcow2.create_on(base.disk, disk, runner, doing=f"starting from the disk of {base.name}")
        made = Prepared(disk=disk, format=qcow2.FORMAT, record=None, fingerprint=base.fingerprint)
        return enlarge(spec, made, runner)
    _fetch(base, disk, context, runner)
    actual, expected = disk_format(disk, base.folder.disk), base.manifest.disk.format
    if actual != expected:
        raise BuildError(f"{base.folder.disk} is {actual}, not {expected}")
    prepared = Prepared(
        disk=disk,
        format=actual,
        record=record(spec, base),
        fingerprint=base.manifest.fingerprint,
    )
    return enlarge(spec, prepared, runner)


def record(spec: Spec, base: StoredBuild) -> BaseRecord:
    """Return what a layer's manifest says of its base."""
    return BaseRecord(
        ref=str(spec.base),
        digest=f"sha256:{base.manifest.disk.sha256}",
        build=base.manifest.build_id,
        revision=base.revision,
        detail=f"sha512:{base.manifest.disk.sha512}",
    )


def _fetch(stored: StoredBuild, disk: Path, context: Context, runner: Runner) -> None:
    """Decompress the base's disk, from the cache or the store, with all checks."""
    key, expected = stored.folder.disk, stored.manifest.disk
    folder = context.cache / LAYERS
    kept = folder / f"sha256-{expected.sha256}"
    space.demand(disk.parent, expected.size, f"unpacking {key}")
    with downloads.locked(kept):
        if kept.exists():
            try:
                _unpack(kept, disk, expected, key, runner)
            except DamagedError:
                context.console.warn(f"the copy of {key} in {folder} was damaged")
                kept.unlink()
            else:
                downloads.touch(kept)
                return
        space.demand(folder, expected.compressed_size, f"downloading {key}")
        _download(stored, disk, kept, context, runner)
    downloads.prune(folder, keep=kept)


def _download(
    stored: StoredBuild, disk: Path, kept: Path, context: Context, runner: Runner
) -> None:
    key, expected = stored.folder.disk, stored.manifest.disk
    with tempfile.TemporaryDirectory(prefix=".new-", dir=kept.parent) as folder:
        new = Path(folder) / kept.name
        with context.console.progress(f"downloading {key}", expected.compressed_size) as advance:
            context.store.download(key, new, advance=advance)
        _unpack(new, disk, expected, key, runner)
        # In the cache's own file system, so that nobody finds half of it, whenever this ends.
        new.replace(kept)


def _unpack(packed: Path, disk: Path, expected: Disk, key: str, runner: Runner) -> None:
    def pieces() -> Iterator[bytes]:
        with packed.open("rb") as file:
            while piece := file.read(PIECE):
                runner.children.check()
                yield piece

    digests = decompress(pieces(), disk, largest=expected.size, label=key)
    for name in ("compressed_size", "sha256", "sha512", "size", "sha1"):
        if getattr(digests, name) != getattr(expected, name):
            disk.unlink()
            raise ChecksumError(
                f"{key} is not what its manifest says: its {name} is {getattr(digests, name)}, "
                f"not {getattr(expected, name)}",
                hint="lago-images repo verify --deep reports what else is wrong in the repository",
            )
