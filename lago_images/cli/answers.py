"""The JSON documents of the commands that have no module of their own for them.

That of a run is in ``run_report.py``; those of ``repo list``, ``show``, ``log`` and ``diff`` are in
``repository/browsing/documents.py``. ``docs/schemas`` has the schema of each.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lago_images.building.caches import LIMITS, PURPOSES, Kind
from lago_images.building.caches import Entry as CacheEntry
from lago_images.ci.report.markdown import Entry, ImageOutcome, Report
from lago_images.cli.run_report import ImageReport
from lago_images.errors import Problem
from lago_images.host.doctor import Check
from lago_images.planning.model import Action, Reason
from lago_images.repository.publishing.retention import Step, Sweep
from lago_images.repository.publishing.withdrawals import Affected, HistoryChange
from lago_images.repository.records.changes import PackageChanges
from lago_images.repository.records.gaps import Gap
from lago_images.repository.records.layout import BuildKey, ImageId
from lago_images.repository.records.release import Release
from lago_images.repository.rendering.commands import Commands
from lago_images.repository.verifying import chain
from lago_images.repository.verifying.findings import Finding
from lago_images.repository.verifying.findings import Report as Verified
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
    def of(cls, report: Verified) -> "Verification":
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
class ReleaseName:
    """A release, and what it did: ``withdraws`` is the revision that it takes back.

    Attributes:
        build: What it offers; None for a withdrawal.
        reason: Why it withdraws, or goes back; else empty.
    """

    name: str
    arch: str
    revision: int
    build: str | None
    withdraws: int | None
    reason: str

    @classmethod
    def of(cls, release: Release) -> "ReleaseName":
        return cls(
            name=release.name,
            arch=release.arch,
            revision=release.revision,
            build=release.build,
            withdraws=release.withdraws,
            reason=release.reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LossAcceptance:
    """What ``repo accept-loss`` found lost, and the records that it made of its acceptance.

    Attributes:
        lost: What is lost, in words.
        accepted: The keys of the records; none in a dry run.
    """

    SCHEMA: ClassVar[int] = 1

    lost: tuple[str, ...]
    accepted: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalPreview:
    """What ``repo yank`` or ``rollback`` would take: a dry run.

    Attributes:
        target: The release to withdraw, or to go back to.
        withdrawn: The revisions that would be withdrawn, that which is meant first.
        current: The revision that clients would get; None when the image would be offered no more.
        layers: Releases that are offered and contain what would be taken back.
    """

    SCHEMA: ClassVar[int] = 1

    target: ReleaseName
    withdrawn: tuple[int, ...]
    current: int | None
    layers: tuple[ReleaseName, ...]

    @classmethod
    def of(cls, affected: Affected) -> "WithdrawalPreview":
        return cls(
            target=ReleaseName.of(affected.target),
            withdrawn=affected.withdrawn,
            current=affected.current,
            layers=_names(affected.layers),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """What ``repo yank`` or ``rollback`` did.

    Attributes:
        about: The revision that was withdrawn, or gone back to.
        release: The first release that was made; None when nothing was left to do.
        withdrawn: The revisions that were withdrawn.
        current: What clients get now; None when the image is offered no more.
        written: The rendered files that changed.
        layers: Releases that contain what was taken back, and are still offered.
        taken: The releases that were made of layers.
    """

    SCHEMA: ClassVar[int] = 1

    name: str
    arch: str
    about: int
    release: ReleaseName | None
    withdrawn: tuple[int, ...]
    current: ReleaseName | None
    written: tuple[str, ...]
    layers: tuple[ReleaseName, ...]
    taken: tuple[ReleaseName, ...]

    @classmethod
    def of(cls, changed: HistoryChange) -> "Withdrawal":
        return cls(
            name=changed.name,
            arch=changed.arch,
            about=changed.about,
            release=_name(changed.release),
            withdrawn=changed.withdrawn,
            current=_name(changed.current),
            written=changed.written,
            layers=_names(changed.layers),
            taken=_names(changed.taken),
        )


def _name(release: Release | None) -> ReleaseName | None:
    return None if release is None else ReleaseName.of(release)


def _names(releases: Iterable[Release]) -> tuple[ReleaseName, ...]:
    return tuple(ReleaseName.of(release) for release in releases)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedImage:
    """What a report of CI says of an image.

    Attributes:
        error: What went wrong; empty where nothing did.
        step: What was being done then.
        size: Bytes of the new build's compressed disk; None where there is none.
        size_before: Of the build that was public when the plan was made.
        packages: Between the two; None where that is not known.
        log: Its URL, or that of the run; empty for none.
    """

    name: str
    arch: str
    action: Action
    reasons: tuple[Reason, ...]
    outcome: ImageOutcome
    error: str
    step: str
    size: int | None
    size_before: int | None
    packages: PackageChanges | None
    log: str

    @classmethod
    def of(cls, entry: Entry) -> "ReportedImage":
        planned, result = entry.planned, entry.result
        return cls(
            name=planned.name,
            arch=planned.arch,
            action=planned.action,
            reasons=planned.reasons,
            outcome=entry.outcome,
            error="" if entry.is_good else entry.error,
            step=result.step if result else "",
            size=entry.after.disk.compressed_size if entry.after else None,
            size_before=entry.before.disk.compressed_size if entry.before else None,
            packages=entry.changes,
            log=entry.log,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What ``ci report`` says of a plan; ``ok`` is false where an image did not end well."""

    SCHEMA: ClassVar[int] = 1

    head: str | None
    run: str
    images: tuple[ReportedImage, ...]
    ok: bool

    @classmethod
    def of(cls, report: Report) -> "PlanReport":
        return cls(
            head=report.plan.head,
            run=report.run,
            images=tuple(ReportedImage.of(entry) for entry in report.entries),
            ok=report.is_good,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """What ``doctor`` looked at; ``ok`` is false when something is missing."""

    SCHEMA: ClassVar[int] = 1

    checks: tuple[Check, ...]
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedDisk:
    """Where ``try`` left an image's disk; ``disk`` and ``format`` are None where it failed.

    Attributes:
        kept: The folder of ``--keep``, for ``repo diff``; None without one, and where it failed.
        images: The image, and those of its bases that were built for it.
    """

    SCHEMA: ClassVar[int] = 1

    disk: str | None
    format: str | None
    kept: str | None
    images: tuple[ImageReport, ...]
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What ``serve`` serves, and where; ``use`` has shell commands for this machine."""

    SCHEMA: ClassVar[int] = 1

    url: str
    repository: str
    name: str
    use: tuple[Commands, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """The files that ``init`` wrote below ``folder``, and those that it left as they were."""

    SCHEMA: ClassVar[int] = 1

    folder: str
    written: tuple[str, ...]
    kept: tuple[str, ...]


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
class WaitingBuild:
    """A build's folder, staged or public, and when it may be removed, in seconds of the epoch."""

    build: BuildKey
    folder: str
    until: int


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
        waiting: What only the grace period keeps, in the order in which it may go.
        missing: Lost revisions of images: nothing is removed until they are restored.
    """

    SCHEMA: ClassVar[int] = 1

    applied: bool
    retire: Removal
    delete: Removal
    abort: tuple[Unfinished, ...]
    forget: tuple[str, ...]
    waiting: tuple[WaitingBuild, ...]
    missing: tuple[Gap, ...] = ()

    @classmethod
    def of(cls, sweep: Sweep, *, applied: bool) -> "Cleaning":
        return cls(
            applied=applied,
            retire=_removal(sweep.retire),
            delete=_removal(sweep.delete),
            abort=sweep.abort,
            forget=sweep.forget,
            waiting=tuple(
                WaitingBuild(build=each.build.key, folder=each.build.folder, until=int(each.until))
                for each in sweep.waiting
            ),
            missing=sweep.missing,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKind:
    """How much of a kind is kept, in bytes, and at most; ``used`` is when something of it was."""

    kind: Kind
    purpose: str
    entries: int
    size: int
    limit: int
    used: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheContent:
    """What builds keep on this machine to use again, and their logs, below ``folder``."""

    SCHEMA: ClassVar[int] = 1

    folder: str
    kinds: tuple[CacheKind, ...]
    entries: tuple[CacheEntry, ...]

    @classmethod
    def of(
        cls, folder: Path, found: Iterable[CacheEntry], only: Collection[Kind]
    ) -> "CacheContent":
        """Take the entries of the kinds in ``only``; of all where that is empty."""
        wanted = [kind for kind in Kind if not only or kind in only]
        entries = tuple(entry for entry in found if entry.kind in wanted)
        its = {kind: [entry for entry in entries if entry.kind == kind] for kind in wanted}
        kinds = (
            CacheKind(
                kind=kind,
                purpose=PURPOSES[kind],
                entries=len(its[kind]),
                size=sum(entry.size for entry in its[kind]),
                limit=LIMITS[kind],
                used=max((entry.used for entry in its[kind]), default=None),
            )
            for kind in wanted
        )
        return cls(folder=str(folder), kinds=tuple(kinds), entries=entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheClearing:
    """What ``cache clear`` removed, and what it left because another run writes it."""

    SCHEMA: ClassVar[int] = 1

    folder: str
    removed: tuple[CacheEntry, ...]
    left: tuple[CacheEntry, ...]
