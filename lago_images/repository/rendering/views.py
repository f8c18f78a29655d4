"""Show an image on pages, feeds and documents: its history, and the fate of each record."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from lago_images.repository.records.fields import line
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.log import Event, EventKind, events
from lago_images.repository.records.outdated import Outdated
from lago_images.repository.records.release import Release, ReleasedImage
from lago_images.repository.records.state import State
from lago_images.repository.rendering.index import listing_mark

# The last second that a date of four digits can tell.
_LATEST = 253_402_300_799
_GITHUB_RUN = re.compile(r"(https://[^/\s]+/[^/\s]+/[^/\s]+)/actions/runs/[0-9]+")
# A port is ssh's own, or none.
_CLONE = re.compile(
    r"(?:https|ssh)://([a-z0-9.-]+)(?::22)?/(\w[\w.-]*(?:/\w[\w.-]*?)+?)(?:\.git)?/?", re.ASCII
)
# What is in the names of hosts, and the page of a commit below a repository's there.
_FORGES = {
    "github": "commit",
    "gitlab": "-/commit",
    "codeberg": "commit",
    "forgejo": "commit",
    "gitea": "commit",
    "bitbucket.org": "commits",
}
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_WEB = re.compile(r"https?://\S+")


class Status(StrEnum):
    """Name what became of a revision."""

    CURRENT = "current"
    OFFERED = "offered"
    WITHDRAWN = "withdrawn"
    RETIRED = "retired"
    BLOCKED = "not offered"


class Offer(StrEnum):
    """Name what clients get of an image."""

    OFFERED = "offered"
    ROLLED_BACK = "rolled back"
    FORMER = "newest withdrawn"
    WITHDRAWN = "withdrawn"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRecord:
    """One record of a history.

    Attributes:
        event: What happened.
        image: What was made public; None for a withdrawal.
        status: Of what was made public; None for a withdrawal.
        withdrawal: The record that took it back.
    """

    event: Event
    image: ReleasedImage | None
    status: Status | None
    withdrawal: Release | None

    @property
    def release(self) -> Release:
        return self.event.record

    @property
    def is_offered(self) -> bool:
        """Return whether its files are there for everybody."""
        return self.status in (Status.CURRENT, Status.OFFERED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownImage:
    """An image that was released at least once.

    Attributes:
        image: Its name and architecture.
        records: The newest first.
        newest: What clients get; where nothing is offered, what was released last.
        offer: Whether they get it.
        reason: Why they get something older, or nothing; empty where that is not so.
        outdated: What is recorded that a build would get otherwise than what they get, be it
            nothing any more; None for no record.
    """

    image: ImageId
    records: tuple[ShownRecord, ...]
    newest: ShownRecord
    offer: Offer
    reason: str
    outdated: Outdated | None = None

    @property
    def is_outdated(self) -> bool:
        return self.outdated is not None and self.outdated.upstream.is_outdated

    @property
    def built(self) -> ReleasedImage:
        if self.newest.image is None:
            raise ValueError(self.newest)
        return self.newest.image

    @property
    def is_offered(self) -> bool:
        return self.newest.is_offered

    @property
    def is_hidden(self) -> bool:
        return self.built.manifest.properties.get("hidden") == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A repository, as all that is rendered for people and scripts shows it.

    Attributes:
        state: What it is shown from.
        images: All images, sorted; those without a readable release are left out.
        mark: What no other set of releases has: see ``index.listing_mark``.
        full_mark: What no other set of releases and of records of what is outdated has.
    """

    state: State
    images: tuple[ShownImage, ...]
    mark: str
    full_mark: str

    @classmethod
    def of(cls, state: State) -> "Shown":
        images = (_shown_image(state, image) for image in state.images)
        mark = listing_mark(state)
        return cls(
            state=state,
            images=tuple(filter(None, images)),
            mark=mark,
            full_mark=with_records(mark, state, state.images),
        )


def with_records(mark: str, state: State, images: Iterable[ImageId]) -> str:
    """Make of a mark of releases that of a file that shows what is outdated in images, too.

    The argument of ``index.listing_mark`` holds for these records as for releases: the number of
    the newest one of a revision only grows, and where another revision is current there are other
    releases.
    """
    newest = (state.outdated[image] for image in images if image in state.outdated)
    parts = sorted(str(key) if record else f"{key} is damaged" for key, record in newest)
    # Where nothing is recorded the file is the same as without any of this.
    return hashlib.sha256("\n".join([mark, *parts]).encode()).hexdigest() if parts else mark


def _shown_image(state: State, image: ImageId) -> ShownImage | None:
    """Show one image; None where no release of it can be read."""
    history, live = state.history(*image), state.live(*image)
    withdrawals = {each.withdraws: each for each in history if each.withdraws is not None}
    statuses = _statuses(state, history, live, withdrawals)
    records = tuple(
        ShownRecord(
            event=event,
            image=event.record.image,
            status=statuses.get(event.record.revision),
            withdrawal=withdrawals.get(event.record.revision),
        )
        for event in reversed(events(history))
    )
    built = [record for record in records if record.image]
    if not built:
        return None
    newest = next((record for record in built if record.status is Status.CURRENT), built[0])
    offer, reason = _offer(newest, built[0])
    _, outdated = state.outdated.get(image, (None, None))
    return ShownImage(
        image=image,
        records=records,
        newest=newest,
        offer=offer,
        reason=reason,
        outdated=outdated,
    )


def _statuses(
    state: State,
    history: tuple[Release, ...],
    live: tuple[Release, ...],
    withdrawals: Mapping[int, Release],
) -> dict[int, Status]:
    """Return the status of each revision that names a build."""
    offered = {release.revision for release in live}
    newest = max(offered, default=0)
    statuses = {}
    for release in history:
        if release.image is None:
            continue
        status = Status.BLOCKED
        if release.revision in withdrawals:
            status = Status.WITHDRAWN
        elif release.public in state.retired:
            status = Status.RETIRED
        elif release.revision in offered:
            is_newest = release.revision == newest
            status = Status.CURRENT if is_newest else Status.OFFERED
        statuses[release.revision] = status
    return statuses


def _offer(newest: ShownRecord, last: ShownRecord) -> tuple[Offer, str]:
    """Return what clients get, and why, from the statuses and the last release."""
    withdrawal = last.withdrawal
    reason = withdrawal.reason if withdrawal else ""
    if newest.status is Status.RETIRED:
        return Offer.RETIRED, ""
    if newest.status is not Status.CURRENT:
        return Offer.WITHDRAWN, reason
    if newest is not last:
        return Offer.FORMER, f"revision {last.release.revision}: {reason}"
    if newest.event.kind is EventKind.ROLLED_BACK:
        return Offer.ROLLED_BACK, newest.release.reason
    return Offer.OFFERED, ""


def moment(seconds: int) -> str:
    """Return a time in UTC as RFC 3339 has it."""
    return datetime.fromtimestamp(min(seconds, _LATEST), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(seconds: int) -> str:
    """Return the day of a time, in UTC."""
    return moment(seconds)[:10]


def commit_url(release: Release) -> str:
    """Return where the release's commit can be looked at; empty where that is not known.

    GitHub's run, which a release names, has the repository in its URL. Of others, as Jenkins' or a
    person's, it is the clone's; its host's name tells what a commit's page is called there.
    """
    run, commit = _GITHUB_RUN.match(release.released.run), release.commit
    if not _COMMIT.fullmatch(commit):
        return ""
    if run:
        return f"{run[1]}/commit/{commit}"
    if clone := _CLONE.fullmatch(release.released.repository):
        for forge, page in _FORGES.items():
            if forge in clone[1]:
                return f"https://{clone[1]}/{clone[2]}/{page}/{commit}"
    return ""


def run_url(release: Release) -> str:
    """Return the page of the CI's run that made a release; empty where it has none."""
    run = release.released.run
    # Of other schemes, as javascript:, a link in a page is code that runs in it.
    return run if _WEB.fullmatch(run) and run == line(run) else ""
