"""Hand on a base: a disk that may be modified, as large as its spec asks, and its facts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lago_images.building import qcow2
from lago_images.console import human_size
from lago_images.errors import Problem, SpecError
from lago_images.host.process import Runner
from lago_images.repository.records.boot_files import BootFiles
from lago_images.repository.records.changes import Package
from lago_images.repository.records.manifest import BaseRecord
from lago_images.repository.records.state import StoredBuild
from lago_images.specs.model import Spec
from lago_images.specs.properties import size_bytes

__all__ = ["FinishedBase", "LayerBase", "Package", "Prepared", "enlarge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A disk in the work directory.

    Attributes:
        disk: The disk file, which may be modified; a layer's may stand on its base's of this run.
        format: ``qcow2`` or ``raw``.
        record: Its origin, for the manifest; None where that is a build of this run, which is not
            recorded yet.
        packages: What is installed on it, sorted; None where that is not known yet.
        boot_files: What it starts with; None where that is not known yet.
        secrets: Files with private keys or identities, each with its path in the guest; None where
            that is not known yet.
        fingerprint: Of the image that it is, for a layer's base; empty for others.
    """

    disk: Path
    format: str
    record: BaseRecord | None
    packages: tuple[Package, ...] | None = None
    boot_files: BootFiles | None = None
    secrets: tuple[str, ...] | None = None
    fingerprint: str = ""

    @property
    def base(self) -> str:
        """Return what identifies the base: a layer's by its fingerprint, others by their digest.

        It is the same whether the base is built in this run or was published before.
        """
        return self.fingerprint or (self.record.digest if self.record else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedBase:
    """A base that this run builds: its disk is finished, and the build need not be recorded yet.

    Attributes:
        name: The base's.
        disk: Its disk, a plain qcow2 which is only read.
    """

    name: str
    disk: Path
    fingerprint: str


# What a layer stands on: a build in the store, or one of this run.
LayerBase = StoredBuild | FinishedBase


def enlarge(
    spec: Spec, prepared: Prepared, runner: Runner, *, facts: Mapping[str, Any] | None = None
) -> Prepared:
    """Make a base's disk as large as the property ``size`` says, when there is one.

    Only the disk grows. Its last partition and file system grow when the guest starts, in guests
    that do so (ours, and cloud images), or by ``virt-builder --size``.

    Args:
        spec: Has the property.
        prepared: The base's disk.
        runner: Starts qemu-img.
        facts: ``qemu-img info`` of the disk, where it was asked already.

    Raises:
        SpecError: The base is larger already.
    """
    text = spec.properties.get("size")
    size = size_bytes(text) if text else None
    if size is None:
        return prepared
    disk = str(prepared.disk)
    if facts is None:
        facts = qcow2.info(prepared.disk, prepared.format, runner, doing=f"reading {disk}")
    now = int(facts["virtual-size"])
    if size < now:
        base = f"{human_size(now)} ({now} bytes)"
        message = f"size={text} is less than the base's {base}: a disk can only grow"
        raise SpecError([Problem(spec.path, spec.lines.get("size"), message)])
    if size > now:
        runner.run(
            ["qemu-img", "resize", "-q", "-f", prepared.format, disk, str(size)],
            doing="enlarging the disk",
        )
    return prepared
