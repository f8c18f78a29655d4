"""Decide what is removed, so that at no instant something that is needed is missing.

A build goes in three steps, each of which may be the last one before a crash:

1. It is *retired*: a record is created under ``releases/``. From then on no rendering offers it
   and no publisher releases it, whatever releases name it.
2. The rendered files are rendered again, without it.
3. When the record is older than the grace period, so that no client and no job that had read of
   the build is still at work, its objects are deleted, the manifest first.

Releases are never deleted: the numbers of revisions are taken for good. An upload without a
manifest is no build, so nothing can offer it: it is deleted when nothing of it is younger than the
grace period.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lago_images.repository.records.layout import RELEASES, BuildKey, ImageId, owner, retired_build
from lago_images.repository.records.manifest import canonical
from lago_images.repository.records.state import State, build_of, standing
from lago_images.settings import Settings
from lago_images.specs.model import BaseKind
from lago_images.storage.base import Stat, Unfinished

DAY = 86_400
# From a plan to its publication, in seconds.
LONGEST_RUN = DAY
SCHEMA = 1
_OF_A_BUILD = "build:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept: the newest ``revisions`` of each image, two at least, and what is younger.

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
        """In seconds."""
        return self.grace_days * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is done to one build: it is retired, or its objects are deleted.

    Attributes:
        objects: What is there of it now, the manifest first.
        size: Bytes of all of them.
        revisions: Those that named it; none for a build that was never released.
        why: In words.
    """

    build: BuildKey
    objects: tuple[str, ...]
    size: int
    revisions: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What is to be removed.

    Attributes:
        retire: Builds to offer no more; their objects go when the grace period is over.
        delete: Builds whose objects go now.
        abort: Uploads that were begun and never finished.
        forget: Records of the retirement of builds that are gone and were never released.
        waiting: When each build may be removed that is kept by the grace period alone, in order;
            seconds since the epoch.
    """

    retire: tuple[Step, ...]
    delete: tuple[Step, ...]
    abort: tuple[Unfinished, ...]
    forget: tuple[str, ...]
    waiting: tuple[float, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.retire or self.delete or self.abort or self.forget)


def plan(state: State, unfinished: Iterable[Unfinished], retention: Retention, now: float) -> Sweep:
    """Plan what retention lets go; touches nothing.

    Args:
        state: What is in the repository.
        unfinished: The uploads that were begun and not finished; those outside builds' folders are
            another application's, and left alone.
        retention: What is kept.
        now: Seconds since the epoch.
    """
    folders = _folders(state)
    named = _named(state)
    wanted = _kept(state, folders, retention, now)
    kept = _with_bases(state, wanted)
    bases = _with_bases(state, wanted - state.retired) - wanted
    before = now - retention.grace
    retire: list[Step] = []
    delete: list[Step] = []
    for key, objects in sorted(folders.items()):
        if key in kept and key not in state.retired:
            continue
        revisions = named.get(key, ())
        steps, why = retire, _why(state, key, revisions)
        if key in state.retired:
            # A layer may have been built on it while it was being retired.
            if key in bases or state.objects[key.retirement].modified >= before:
                continue
            steps, why = delete, "retired, and the grace period is over"
        elif key not in state.manifests and key not in state.unreadable:
            steps, why = delete, "an upload that never became a build"
        steps.append(
            Step(
                build=key,
                objects=tuple(stat.key for stat in objects),
                size=sum(stat.size for stat in objects),
                revisions=revisions,
                why=why,
            )
        )
    return Sweep(
        retire=tuple(retire),
        delete=tuple(delete),
        abort=tuple(each for each in unfinished if each.begun < before and owner(each.key)),
        forget=tuple(_forgotten(state, folders, named, now - 2 * retention.grace)),
        waiting=tuple(sorted(_waiting(state, folders, named, bases, retention, now))),
    )


def _waiting(
    state: State,
    folders: Mapping[BuildKey, tuple[Stat, ...]],
    named: Mapping[BuildKey, tuple[int, ...]],
    bases: set[BuildKey],
    retention: Retention,
    now: float,
) -> Iterator[float]:
    """Find when what is retired or was never released is older than the grace period."""
    for key, objects in folders.items():
        if key in bases or (key in named and key not in state.retired):
            continue
        if key in state.retired:
            due = state.objects[key.retirement].modified + retention.grace
        else:
            run = LONGEST_RUN if key in state.manifests else 0
            due = max(stat.modified for stat in objects) + retention.grace + run
        if due >= now:
            yield due


def retirement(step: Step, now: float) -> bytes:
    """Make the record that retires a build."""
    return canonical({"schema": SCHEMA, "retired": int(now), "reason": step.why})


def _kept(
    state: State, folders: Mapping[BuildKey, tuple[Stat, ...]], retention: Retention, now: float
) -> set[BuildKey]:
    """Find what retention keeps, and what is too young to be judged."""
    young, named = now - retention.grace, _named(state)
    # What waits may be in a plan that was made when it was not yet older than the grace period.
    waiting = {key: young - LONGEST_RUN for key in state.manifests if key not in named}
    kept = {
        key
        for key, objects in folders.items()
        if max(stat.modified for stat in objects) >= waiting.get(key, young)
    }
    for image in state.images:
        kept |= _kept_of(state, image, retention, now)
    return kept


def _kept_of(state: State, image: ImageId, retention: Retention, now: float) -> set[BuildKey]:
    live = state.live(*image)
    # Two at least: when the newest is withdrawn at this moment, the image is still offered.
    newest = live[-max(2, retention.revisions) :]
    recent = now - max(retention.days * DAY, retention.grace)
    kept = {build_of(one) for one in live if one in newest or one.published >= recent}
    # Damaged ones are the operator's to judge: repo verify tells of them.
    kept |= {k for r in standing(state.history(*image)) if (k := build_of(r)) in state.incomplete}
    # What was withdrawn is kept for the grace period, as evidence.
    withdrawals = {r.withdraws: r.published for r in state.history(*image) if r.withdraws}
    kept |= {
        build_of(one)
        for one in state.history(*image)
        if withdrawals.get(one.revision, 0) >= now - retention.grace
    }
    return {key for key in kept if key is not None}


def _with_bases(state: State, kept: set[BuildKey]) -> set[BuildKey]:
    """Add what layers stand on, down to the ground."""
    found, open_ = set(kept), list(kept)
    while open_:
        manifest = state.manifests.get(open_.pop())
        if manifest is None or not manifest.base.digest.startswith(_OF_A_BUILD):
            continue
        base = BuildKey(
            name=manifest.base.ref.removeprefix(f"{BaseKind.LAYER}:"),
            arch=manifest.arch,
            build_id=manifest.base.digest.removeprefix(_OF_A_BUILD),
        )
        if base not in found:
            found.add(base)
            open_.append(base)
    return found


def _folders(state: State) -> dict[BuildKey, tuple[Stat, ...]]:
    """Group what is under ``builds/``. What is in no build's folder is not ours to remove."""
    found: dict[BuildKey, list[Stat]] = {}
    for key, stat in state.objects.items():
        if build := owner(key):
            found.setdefault(build, []).append(stat)
    return {
        build: tuple(sorted(stats, key=lambda stat: (stat.key != build.manifest, stat.key)))
        for build, stats in found.items()
    }


def _named(state: State) -> dict[BuildKey, tuple[int, ...]]:
    """Find the revisions that name each build."""
    found: dict[BuildKey, tuple[int, ...]] = {}
    for history in state.releases.values():
        for release in history:
            if key := build_of(release):
                found[key] = (*found.get(key, ()), release.revision)
    return found


def _why(state: State, key: BuildKey, revisions: tuple[int, ...]) -> str:
    if not revisions:
        return "never released" if key in state.manifests else "never released, and damaged"
    shown = ", ".join(str(number) for number in revisions)
    gone = state.withdrawn(key.name, key.arch)
    how = "withdrawn" if gone.issuperset(revisions) else "beyond retention"
    return f"revision {shown} is {how}" if len(revisions) == 1 else f"revisions {shown} are {how}"


def _forgotten(
    state: State,
    folders: Mapping[BuildKey, tuple[Stat, ...]],
    named: Mapping[BuildKey, tuple[int, ...]],
    before: float,
) -> Iterator[str]:
    """Find records that nothing rests on: of builds that are gone and that no release names."""
    for key, stat in state.objects.items():
        build = retired_build(key) if key.startswith(RELEASES) else None
        if build and build not in folders and build not in named and stat.modified < before:
            yield key
