"""The document of how a run ended: what ``build`` and ``ci build``, ``publish``, ``rebuild`` print.

The table that ends a run for people shows the same facts.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from lago_images.building.model import Result
from lago_images.errors import Error
from lago_images.jobs.publish import PublicationOutcome
from lago_images.planning.model import Plan
from lago_images.repository.browsing.queries import packages_of
from lago_images.repository.publishing.releasing import ReleaseOutcome, Verdict
from lago_images.repository.records.changes import compare_known
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.state import State
from lago_images.repository.verifying.findings import Finding
from lago_images.storage.base import Store


class RunOutcome(StrEnum):
    """What became of an image; the first four are how its publication ended."""

    RELEASED = str(Verdict.RELEASED)
    ALREADY = str(Verdict.ALREADY)
    SUPERSEDED = str(Verdict.SUPERSEDED)
    WITHDRAWN = str(Verdict.WITHDRAWN)
    UNPUBLISHED = "not published"
    # Where nothing was to be published.
    BUILT = "built"
    FAILED = "failed"
    # Its base failed, so that it was not tried.
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The difference to what clients got before.

    Attributes:
        is_new: Nothing was offered before; the rest is 0 or None then.
        size: Bytes that the compressed disk grew by.
        size_before: Its bytes before.
        added: How many packages came; None where the packages of one are not known, and so the
            other two.
        removed: How many went.
        upgraded: How many have another version.
    """

    is_new: bool = False
    size: int = 0
    size_before: int = 0
    added: int | None = None
    removed: int | None = None
    upgraded: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """What became of one image.

    Attributes:
        revision: What it is public as; None where it is not.
        build: The build's id; None where there is none.
        size: Bytes of its compressed disk.
        seconds: For which it was built; None where no result says so.
        step: What was being done when it failed.
        error: Why it was not built or not published; empty where it was.
        base: The image whose failure kept this one from being tried; empty for none.
        log: The log's file, on the machine that built it; None where there is none.
        changes: None where nothing was released, or that is not known.
    """

    name: str
    arch: str
    outcome: RunOutcome
    revision: int | None
    build: str | None
    size: int | None
    seconds: float | None
    step: str
    error: str
    base: str
    log: str | None
    changes: Changes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run ended: ``ok`` is false where an image failed or something is wrong.

    Attributes:
        repository: The URL of the store.
        catalogue: Where people see what was published; empty where nothing was to be published.
        images: Those that were to be built or published, in the order of their builds.
        written: The rendered files that changed.
        findings: What a check of the published files found wrong.
    """

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a report of a run"

    ok: bool
    repository: str
    catalogue: str
    images: tuple[ImageReport, ...]
    written: tuple[str, ...]
    findings: tuple[Finding, ...]


def image_reports(
    store: Store,
    plan: Plan,
    results: Iterable[Result],
    publication: PublicationOutcome | None,
    before: State | None = None,
) -> tuple[ImageReport, ...]:
    """Report what became of each image of a run.

    Args:
        store: Where the lists of packages are, for what changed.
        plan: What was to be done.
        results: How the builds ended.
        publication: How the publication ended; None where there was none.
        before: The repository before the run; None where it was not read.
    """
    by_name = {result.name: result for result in results}
    ended = publication or PublicationOutcome(outcomes={}, missing=(), written=())
    names = dict.fromkeys([*by_name, *ended.outcomes, *ended.missing, *ended.failed])
    arches = {image.name: image.arch for image in plan.images}
    return tuple(
        _image_report(
            name,
            arches,
            by_name.get(name),
            publication,
            _changes(store, ended.outcomes.get(name), before),
        )
        for name in names
    )


def _image_report(
    name: str,
    arches: Mapping[str, str],
    result: Result | None,
    publication: PublicationOutcome | None,
    changes: Changes | None,
) -> ImageReport:
    released = publication.outcomes.get(name) if publication else None
    manifest = _manifest(result, released)
    return ImageReport(
        name=name,
        arch=manifest.arch if manifest else result.arch if result else arches.get(name, ""),
        outcome=_outcome(result, released, is_publication=publication is not None),
        revision=released.release.revision if released else None,
        build=manifest.build_id if manifest else None,
        size=manifest.disk.compressed_size if manifest else None,
        seconds=round(result.seconds, 3) if result else None,
        step=result.step if result else "",
        error=_error(name, result, publication),
        base=result.skipped if result else "",
        log=str(result.log) if result and result.log else None,
        changes=changes,
    )


def _manifest(result: Result | None, released: ReleaseOutcome | None) -> Manifest | None:
    """Return that of what is public now, else that of what was built."""
    public = released.release.manifest if released else None
    return public or (result.manifest if result else None)


def _outcome(
    result: Result | None, released: ReleaseOutcome | None, *, is_publication: bool
) -> RunOutcome:
    if released:
        return RunOutcome(released.verdict)
    if result and result.skipped:
        return RunOutcome.SKIPPED
    if result and not result.ok:
        return RunOutcome.FAILED
    return RunOutcome.UNPUBLISHED if is_publication else RunOutcome.BUILT


def _error(name: str, result: Result | None, publication: PublicationOutcome | None) -> str:
    if result and result.error:
        return result.error
    if publication and name in publication.failed:
        return publication.failed[name]
    if publication and name in publication.missing:
        return publication.why_missing(name)
    return ""


def _changes(store: Store, outcome: ReleaseOutcome | None, before: State | None) -> Changes | None:
    """Compare a release with what clients got; None where that is not known."""
    if before is None or outcome is None or outcome.verdict is not Verdict.RELEASED:
        return None
    release = outcome.release
    old, new = before.current(release.name, release.arch), release.manifest
    if old is None or old.manifest is None or new is None:
        return Changes(is_new=True)
    size = old.manifest.disk.compressed_size
    grown = new.disk.compressed_size - size
    # The images are published: a list that cannot be read is no failure of the run.
    with suppress(Error):
        packages = compare_known(packages_of(store, old), packages_of(store, release))
        if packages is not None:
            return Changes(
                size=grown,
                size_before=size,
                added=len(packages.added),
                removed=len(packages.removed),
                upgraded=len(packages.upgraded),
            )
    return Changes(size=grown, size_before=size)
