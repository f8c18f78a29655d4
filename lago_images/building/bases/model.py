"""What a base hands on: a disk that may be modified, and what is known of it."""

from dataclasses import dataclass
from pathlib import Path

from lago_images.repository.manifest import BaseRecord, Manifest


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Package:
    """One installed package, as the guest's own package manager names it."""

    name: str
    version: str
    arch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A disk in the work directory.

    Attributes:
        disk: The disk file; it has no backing file and may be modified.
        format: ``qcow2`` or ``raw``.
        record: What it was made from.
        packages: What is installed on it, sorted; None where that is not known yet.
    """

    disk: Path
    format: str
    record: BaseRecord
    packages: tuple[Package, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBase:
    """The image that a layer stands on.

    Attributes:
        manifest: The base's build.
        disk: The base's decompressed disk from this run, which is only read; None to take it
            from the store.
    """

    manifest: Manifest
    disk: Path | None = None
