"""The documents that ``repo list``, ``show``, ``log`` and ``diff`` print; ``docs/schemas`` has all.

Times are whole seconds since the epoch, sizes bytes. Other keys come with another ``SCHEMA``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from lago_images.repository.records.access import Access
from lago_images.repository.records.boot_files import BootChanges
from lago_images.repository.records.changes import PackageChanges, PropertyChange, Upstream
from lago_images.repository.records.log import EventKind
from lago_images.repository.records.manifest import BaseRecord, BootTest, Disk, DiskFile
from lago_images.repository.records.outdated import FoundUpstream
from lago_images.repository.records.release import ObjectDigest, PackageDiff
from lago_images.repository.rendering.commands import Commands
from lago_images.repository.rendering.relatives import Relative


class ImageState(StrEnum):
    """The state of an image, or of one revision: offered, or why not."""

    CURRENT = "current"
    OFFERED = "offered"
    WITHDRAWN = "withdrawn"
    # repo gc removes it, or has removed it.
    RETIRED = "retired"
    # A later record cannot be read, which may have withdrawn it.
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One revision of an image.

    Attributes:
        reason: Why it was withdrawn, or what a rollback was for; else empty.
        version: The name that lago has for it.
        built: When its build was made.
        published: When it became public.
        commit: Of the specs, as its build was made; also after a rollback.
        actor: The CI's name for who released it; ``user@host`` outside CI.
        run: The URL of the CI's run; empty outside CI.
        packages: How many are installed; None where that is not known.
        outdated: How many of them have another version in a newer build of the same system in this
            repository; None where that was not asked for or is not known.
        package_changes: What clients got anew with it; None where nothing was offered before, or
            that is not known.
        upstream: What a build would get from outside today that this one has otherwise; None where
            that was not asked for, or its spec is not here as it was built.
        recorded: What the repository's newest record of that says of a current revision; None where
            there is none.
        also: The disk's other forms that are public, such as ``qcow2``.
        access: How people log in; None where that was not recorded.
        objects: The files of its public copy by name, each with its SHA-256.
        folder: Where they are, below the repository's URL.
    """

    name: str
    arch: str
    revision: int
    state: ImageState
    reason: str
    version: str
    built: int
    published: int
    commit: str
    dirty: bool
    actor: str
    run: str
    build: str
    fingerprint: str
    base: BaseRecord
    disk: Disk
    also: Mapping[str, DiskFile]
    packages: int | None
    outdated: int | None = None
    upstream: Upstream | None = None
    recorded: FoundUpstream | None = None
    boot: BootTest | None
    package_changes: PackageDiff | None
    access: Access | None
    objects: Mapping[str, ObjectDigest]
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The images of a repository: of each the newest revision, or every one that was asked for."""

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a list of images"

    repository: str
    images: tuple[Revision, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePage:
    """All that is known of one image.

    Attributes:
        base_url: Where clients find the repository; empty where that was not published.
        properties: Of the spec, as what clients get was built, else the newest revision.
        revisions: The newest first.
        bases: What clients get, else its newest revision, was built on: the nearest first, down to
            what is not of this repository.
        layers: The images that are offered and were built on it, each with those on that one.
        use: Shell commands that get what is current, as the image's page has them.
    """

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a page of an image"

    repository: str
    base_url: str
    name: str
    arch: str
    properties: Mapping[str, str]
    revisions: tuple[Revision, ...]
    bases: tuple[Relative, ...]
    layers: tuple[Relative, ...]
    use: tuple[Commands, ...]

    @property
    def main(self) -> Revision | None:
        """Return the revision that ``main_revision`` chooses."""
        return main_revision(self.revisions)


def main_revision(revisions: Sequence[Revision]) -> Revision | None:
    """Return what clients get of an image, else its newest revision; None without any.

    ``revisions`` are those with a build, the newest first.
    """
    current = (each for each in revisions if each.state is ImageState.CURRENT)
    return next(current, next(iter(revisions), None))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One event: ``about`` is the revision that was released, withdrawn or rolled back to.

    ``revision`` is the number of the record itself, which a withdrawal takes, too. ``commit`` is
    that of the published bytes; of a withdrawal, what the operator had checked out.
    """

    name: str
    arch: str
    kind: EventKind
    revision: int
    about: int
    published: int
    actor: str
    commit: str
    dirty: bool
    run: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The events of a repository or of one image, the newest first."""

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a log"

    repository: str
    events: tuple[LogEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of two builds that are compared; of a list of packages alone only ``source`` is known.

    Attributes:
        source: Where it was read: a revision of an image, or a path.
        size: Of the compressed disk.
    """

    source: str
    revision: int | None = None
    build: str | None = None
    commit: str | None = None
    built: int | None = None
    size: int | None = None
    virtual_size: int | None = None
    base: BaseRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The differences from ``old`` to ``new``.

    Attributes:
        packages: None where the packages of one of them are not known.
        boot_files: None where one of them was built before they were recorded, or its guest did
            not tell them.
        properties: None where the spec of one of them is not known.
        commands: Of the spec, as a unified diff with a line around each change; empty for the same,
            and None where those of one of them are not known.
        is_other_base: Whether name or bytes of the base differ; None where one is not known.
    """

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a comparison of two builds"

    name: str
    arch: str
    old: Side
    new: Side
    packages: PackageChanges | None
    boot_files: BootChanges | None
    properties: tuple[PropertyChange, ...] | None
    commands: tuple[str, ...] | None
    is_other_base: bool | None
