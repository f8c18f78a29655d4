"""Decide what is removed, so that at no instant something that is needed is missing.

A public copy goes in three steps, each of which may be the last one before a crash:

1. It is *retired*: a record is created under ``releases/``. From then on no rendering offers it
   and no publisher releases it, whatever releases name it.
2. The rendered files are rendered again, without it.
3. When the record is older than the grace period, so that no client and no job that had read of
   the copy is still at work, its objects are deleted, the manifest first.

A copy that no release names goes the same way: its publisher may only be slow. Releases are never
deleted: the numbers of revisions are taken for good.

What is staged is named by no published file. It is deleted when nothing of it is younger than the
grace period, whether it was released or not, the manifest first: a build without one does not
exist. A build that waits to be promoted is kept for the length of a run longer, and with it the
staged builds that it stands on.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lago_images.repository.records.gaps import Gap
from lago_images.repository.records.layout import (
    BUILDS,
    IMAGES,
    BuildFolder,
    BuildKey,
    ImageId,
    ReleaseKey,
    outdated_key,
    owner,
    retired_copy,
)
from lago_images.repository.records.manifest import canonical
from lago_images.repository.records.release import Release
from lago_images.repository.records.standing import standing
from lago_images.repository.records.state import State
from lago_images.settings import Settings
from lago_images.storage.base import Stat, Unfinished

DAY = 86_400
# From a plan to its publication, in seconds.
LONGEST_RUN = DAY
SCHEMA = 1
# The objects of each folder, and the revisions that name it.
Folders = Mapping[BuildFolder, tuple[Stat, ...]]
Named = Mapping[BuildFolder, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The retention rule: of each image the newest ``revisions``, two at least, and younger ones.

    ``days`` are counted from a revision's publication. Within ``grace_days`` nothing is judged.
    """

    revisions: int
    days: int
    grace_days: int

    @classmethod
    def of(cls, settings: Settings) -> "Retention":
        return cls(
            revisions=settings.keep_revisions,
            days=settings.keep_days,
            grace_days=settings.grace_days,
        )

    @property
    def grace(self) -> int:
        """Return the grace period in seconds."""
        return self.grace_days * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Name one folder of a build to retire, or to delete the objects of.

    Attributes:
        build: The folder, staged or public.
        objects: Its objects now, the manifest first.
        size: Bytes of all of them.
        revisions: Those that name a public copy.
        why: In words.
    """

    build: BuildFolder
    objects: tuple[str, ...]
    size: int
    revisions: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A build's folder that may be removed when its grace period is over; seconds of the epoch."""

    build: BuildFolder
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The builds that are to be removed.

    Attributes:
        retire: Public copies to offer no more; their objects go when the grace period is over.
        delete: Folders whose objects go now.
        abort: Uploads that were begun and never finished.
        forget: Records that nothing rests on any more: of the retirement of copies that were
            deleted and that no release names, and of what is outdated in revisions that can not
            be offered again.
        waiting: The folders that only the grace period keeps, in the order in which they may go.
        missing: Releases that are lost: what they named or withdrew is not known, so nothing goes.
    """

    retire: tuple[Step, ...]
    delete: tuple[Step, ...]
    abort: tuple[Unfinished, ...]
    forget: tuple[str, ...]
    waiting: tuple[Waiting, ...] = ()
    missing: tuple[Gap, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.retire or self.delete or self.abort or self.forget)


def plan(state: State, unfinished: Iterable[Unfinished], retention: Retention, now: float) -> Sweep:
    """Plan what retention lets go; touches nothing.

    Args:
        state: A survey of the repository.
        unfinished: The uploads that were begun and not finished; those outside builds' folders are
            another application's, and left alone.
        retention: What is kept.
        now: Seconds since the epoch.
    """
    if missing := state.missing_unaccepted:
        return Sweep(retire=(), delete=(), abort=(), forget=(), missing=missing)
    before = now - retention.grace
    copies, staged = _folders(state, IMAGES), _folders(state, BUILDS)
    named = _named(state)
    retire, delete = _copies(state, copies, named, retention, now)
    return Sweep(
        retire=tuple(retire),
        delete=(*delete, *_staged(state, staged, before)),
        abort=tuple(each for each in unfinished if each.begun < before and owner(each.key)),
        # Of a copy that a crash left: when it is deleted, nothing rests on its record. One whose
        # objects were deleted while it was named stays retired for ever.
        forget=(
            *(
                key
                for key, stat in state.objects.items()
                if (copy := retired_copy(key))
                and copy not in copies
                and copy not in named
                and stat.modified < now - 2 * retention.grace
            ),
            *_past(state, before),
        ),
        waiting=tuple(
            sorted(
                _waiting(state, copies, staged, retention, now),
                key=lambda each: (each.until, each.build.folder),
            )
        ),
    )


def _past(state: State, before: float) -> Iterator[str]:
    """Find the records of what was outdated in revisions that are withdrawn or retired for good.

    That of a revision which may be current again stays: its number must never mean two records.
    """
    for name, stat in state.objects.items():
        key = outdated_key(name)
        if key and stat.modified < before and _ended(state, key.release) < before:
            yield name


def _ended(state: State, key: ReleaseKey) -> float:
    """Return when a revision was withdrawn or retired; infinity while it may be current again."""
    for release in state.history(key.name, key.arch):
        if release.withdraws == key.revision:
            return state.objects[str(release.key)].modified
        if release.key == key and release.public in state.retired:
            return state.objects[release.public.retirement].modified
    return math.inf


def _waiting(
    state: State, copies: Folders, staged: Folders, retention: Retention, now: float
) -> Iterator[Waiting]:
    """Find what is staged or retired and becomes older than the grace period."""
    waiting = {manifest.key.staging for manifest in state.unreleased()}
    for folder, objects in staged.items():
        run = LONGEST_RUN if folder in waiting else 0
        due = max(stat.modified for stat in objects) + retention.grace + run
        if due >= now:
            yield Waiting(build=folder, until=due)
    for copy in copies.keys() & state.retired:
        due = state.objects[copy.retirement].modified + retention.grace
        if due >= now:
            yield Waiting(build=copy, until=due)


def _copies(
    state: State,
    folders: Folders,
    named: Named,
    retention: Retention,
    now: float,
) -> tuple[list[Step], list[Step]]:
    """Return the public copies to retire, and those to delete."""
    before = now - retention.grace
    # A slow publisher may be about to release a copy that nothing names yet.
    young = {f for f, objects in folders.items() if max(s.modified for s in objects) >= before}
    wanted = young.union(*(_kept_of(state, image, retention, now) for image in state.images))
    # What a lost release names is not known: the operator restores it first, or accepts its loss,
    # and even then judges by hand what no release names.
    damaged = {key.image for key in state.damaged} | {gap.image for gap in state.missing}
    wanted |= {folder for folder in folders if folder.key.image in damaged}
    kept = _with_bases(state, wanted)
    bases = _with_bases(state, wanted - state.retired) - wanted
    retire: list[Step] = []
    delete: list[Step] = []
    for copy, objects in sorted(folders.items()):
        revisions = named.get(copy, ())
        if copy not in state.retired:
            if copy not in kept:
                retire.append(_step(copy, objects, _why(state, copy.key, revisions), revisions))
        # A layer may have been released on it while it was being retired.
        elif copy not in bases and state.objects[copy.retirement].modified < before:
            why = "retired, and the grace period is over"
            delete.append(_step(copy, objects, why, revisions))
    return retire, delete


def _staged(state: State, folders: Folders, before: float) -> Iterator[Step]:
    """Return the staged builds, and uploads that never became one, to delete."""
    waiting = {manifest.key.staging for manifest in state.unreleased()}
    kept = {
        folder
        for folder, objects in folders.items()
        # A build that waits may be in a plan that was made while it was young.
        if max(stat.modified for stat in objects)
        >= (before - LONGEST_RUN if folder in waiting else before)
    }
    bases = [folder.key for folder in kept & waiting]
    while bases:
        manifest = state.staged.get(bases.pop())
        base = manifest and manifest.base_key
        if base and base.staging not in kept:
            kept.add(base.staging)
            bases.append(base)
    released = state.released_builds
    for folder, objects in sorted(folders.items()):
        if folder not in kept:
            why = "staged, and released since"
            if folder.key not in released:
                why = _why_staged(state, folder.key)
            yield _step(folder, objects, why)


def _step(
    folder: BuildFolder, objects: tuple[Stat, ...], why: str, revisions: tuple[int, ...] = ()
) -> Step:
    return Step(
        build=folder,
        objects=tuple(stat.key for stat in objects),
        size=sum(stat.size for stat in objects),
        revisions=revisions,
        why=why,
    )


def retirement(step: Step, now: float) -> bytes:
    """Make the record that retires a build."""
    return canonical({"schema": SCHEMA, "retired": int(now), "reason": step.why})


def _kept_of(state: State, image: ImageId, retention: Retention, now: float) -> set[BuildFolder]:
    """Return the public copies of an image that retention keeps."""
    history, live = state.history(*image), state.live(*image)
    # Two at least: when the newest is withdrawn at this moment, the image is still offered.
    newest = live[-max(2, retention.revisions) :]
    recent = now - max(retention.days * DAY, retention.grace)
    kept = _public(release for release in live if release in newest or release.published >= recent)
    # Damaged ones are the operator's to judge: repo verify names them.
    kept |= _public(standing(history)) & state.lost
    # What was withdrawn is kept for the grace period, as evidence.
    withdrawals = {r.withdraws: r.published for r in history if r.withdraws}
    evidence = now - retention.grace
    return kept | _public(r for r in history if withdrawals.get(r.revision, 0) >= evidence)


def _public(releases: Iterable[Release]) -> set[BuildFolder]:
    return {release.public for release in releases if release.public}


def _with_bases(state: State, kept: Iterable[BuildFolder]) -> set[BuildFolder]:
    """Add the public copies of what layers stand on, down to the ground."""
    copies = {copy: release for history in state.releases.values() for release in history
              if (copy := release.public)}  # fmt: skip
    of_build: dict[BuildKey, set[BuildFolder]] = {}
    for copy, release in copies.items():
        if release.manifest:
            of_build.setdefault(release.manifest.key, set()).add(copy)
    result, waiting = set(kept), list(kept)
    while waiting:
        layer = copies.get(waiting.pop())
        base = layer and layer.manifest and layer.manifest.base_key
        more = of_build.get(base, set()) - result if base else set()
        result |= more
        waiting.extend(more)
    return result


def _folders(state: State, root: str) -> Folders:
    """Group the objects below a root. What is in no build's folder is not ours to remove."""
    folders: dict[BuildFolder, list[Stat]] = {}
    for key, stat in state.objects.items():
        folder = owner(key)
        if folder and folder.root == root:
            folders.setdefault(folder, []).append(stat)
    return {
        # The manifest first: what a crash leaves of the others is taken for a build by nobody.
        folder: tuple(sorted(stats, key=lambda stat: (stat.key != folder.manifest, stat.key)))
        for folder, stats in folders.items()
    }


def _named(state: State) -> Named:
    """Find the revisions that name each public copy."""
    named: dict[BuildFolder, tuple[int, ...]] = {}
    for history in state.releases.values():
        for release in history:
            if copy := release.public:
                named[copy] = (*named.get(copy, ()), release.revision)
    return named


def _why(state: State, key: BuildKey, revisions: tuple[int, ...]) -> str:
    if not revisions:
        return "a copy that no release names"
    shown = ", ".join(str(number) for number in revisions)
    taken_back = state.withdrawn(key.name, key.arch)
    how = "withdrawn" if taken_back.issuperset(revisions) else "beyond retention"
    return f"revision {shown} is {how}" if len(revisions) == 1 else f"revisions {shown} are {how}"


def _why_staged(state: State, key: BuildKey) -> str:
    if key in state.staged:
        return "never released"
    damaged = key in state.unreadable
    return "never released, and damaged" if damaged else "an upload that never became a build"
