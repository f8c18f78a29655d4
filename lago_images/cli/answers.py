"""The JSON documents of ``lint`` and of ``repo refresh``, ``verify``, ``gc`` and ``provenance``.

Those of ``repo list``, ``show``, ``log`` and ``diff`` are in ``repository/browsing/documents.py``;
``docs/schemas`` has the schema of each.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from lago_images.errors import Problem
from lago_images.repository.publishing.retention import Step, Sweep
from lago_images.repository.records.layout import BuildKey, ImageId
from lago_images.repository.verifying import chain
from lago_images.repository.verifying.findings import Finding, Report
from lago_images.storage.base import Unfinished


@dataclass(frozen=True, slots=True, kw_only=True)
class LintReport:
    """All problems of specs; ``specs`` counts those that were checked."""

    SCHEMA: ClassVar[int] = 1

    specs: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The findings of a check; ``read`` is the number of bytes of disks that were read.

    ``ok`` is false when one of them is a problem.
    """

    SCHEMA: ClassVar[int] = 1

    url: str
    images: int
    versions: int
    read: int
    findings: tuple[Finding, ...]
    ok: bool

    @classmethod
    def of(cls, report: Report) -> "Verification":
        return cls(
            url=report.url,
            images=report.images,
            versions=report.versions,
            read=report.read,
            findings=report.findings,
            ok=report.ok,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The chain of an image: a step for it and each base below it. ``broken`` names links."""

    SCHEMA: ClassVar[int] = 1

    url: str
    steps: tuple[chain.Step, ...]
    broken: tuple[str, ...]
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshment:
    """The rendered files that were written and deleted; ``damaged`` are records not read."""

    SCHEMA: ClassVar[int] = 1

    written: tuple[str, ...]
    deleted: tuple[str, ...]
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTotal:
    """The amount of an image that is removed, in objects and bytes."""

    name: str
    arch: str
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedBuild:
    """A build's folder, staged or public, with its objects and why it is removed."""

    build: BuildKey
    folder: str
    objects: tuple[str, ...]
    size: int
    revisions: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The builds that one step of ``repo gc`` is about, and their bytes in all."""

    bytes: int
    images: tuple[ImageTotal, ...]
    builds: tuple[RemovedBuild, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """The builds that ``repo gc`` removes, or has removed where ``applied`` is true.

    Attributes:
        retire: Public copies that are offered no more.
        delete: Folders whose objects go.
        abort: Uploads that were begun and never finished.
        forget: Keys of records that a copy was retired, where nothing is left of it.
        waiting: When each folder that only the grace period keeps may go; seconds since the epoch.
    """

    SCHEMA: ClassVar[int] = 1

    applied: bool
    retire: Removal
    delete: Removal
    abort: tuple[Unfinished, ...]
    forget: tuple[str, ...]
    waiting: tuple[int, ...]

    @classmethod
    def of(cls, sweep: Sweep, *, applied: bool) -> "Cleaning":
        return cls(
            applied=applied,
            retire=_removal(sweep.retire),
            delete=_removal(sweep.delete),
            abort=sweep.abort,
            forget=sweep.forget,
            waiting=tuple(int(moment) for moment in sweep.waiting),
        )


def _removal(steps: tuple[Step, ...]) -> Removal:
    builds = tuple(
        RemovedBuild(
            build=step.build.key,
            folder=step.build.folder,
            objects=step.objects,
            size=step.size,
            revisions=step.revisions,
            why=step.why,
        )
        for step in steps
    )
    return Removal(
        bytes=sum(step.size for step in steps), images=tuple(totals(steps)), builds=builds
    )


def totals(steps: Iterable[Step]) -> Iterator[ImageTotal]:
    """Yield the objects and bytes of each image, by name."""
    by_image: dict[ImageId, list[Step]] = {}
    for step in steps:
        by_image.setdefault(step.build.key.image, []).append(step)
    for image, its in sorted(by_image.items()):
        objects, size = sum(len(step.objects) for step in its), sum(step.size for step in its)
        yield ImageTotal(name=image.name, arch=image.arch, objects=objects, bytes=size)
