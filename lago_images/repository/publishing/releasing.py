"""Release builds, so that no order of publishers ends with an older commit's image offered.

This is promise 6. This module keeps it, with the order of steps in ``jobs.publish``:
release, record the commit, list, look at what was released meanwhile. ``a`` is an older commit and
``b`` a newer one when git says that ``a`` is an ancestor of ``b``; clocks have no say. P publishes
``a``, Q publishes ``b``, at any time and any number of each, and the image differs between the two.

What the argument rests on:

1. A revision is taken by creating its object, which must not exist, and is never given back. So
   the releases of an image are one sequence, and whoever adds to it has decided with all of it in
   view: a publisher that was overtaken lists again and decides again (``create``).
2. What is read or listed after a write has ended shows that write.
3. ``state/published.json`` names ``b`` only when all that the plan for ``b`` asked for is released,
   and never goes back from ``b`` to ``a`` (``record_commit``).
4. Rendered files follow from the listing, and a rendering of an older listing never overwrites one
   of a newer (``publisher``). So only the sequence is to be argued: clients get the newest release
   in it that stands.

**Q releases the image.** If P comes second, it sees Q's release and leaves it (``_objection``),
also where an operator took Q's back and nothing else stands, or went back to an older build:
withdrawals and rollbacks stand for the commit of what they take away (``deciding_commit``). If P
comes first, Q's release is the newest.

**Q leaves the image as it is**, because ``b`` reverts ``a`` and what stands is right. The sequence
then tells nothing of ``b``; the published commit does. P reads it, creates its release, and reads
it again; Q records ``b``, lists, and looks for such a release. One of the two sees the other:

- Q records before P reads first: P releases nothing.
- Q records between P's two reads: P sees it at the second, and gives way (``_give_way``): what
  stood before is released again.
- Q records after P's second read: P's release exists before Q lists, and Q sees it
  (``replaced_by_older``): the build that ``b`` wants is released again.

Where both undo, the second finds the first's release in the sequence and adds none. What was
released again carries ``b``: for whoever comes even later, Q has released the image.

**A publisher that stops** for a while, wherever, is one of these orders. One that dies before it
creates a release has done nothing; what one has created is rendered by whoever renders next. Only
two deaths leave P's release standing for longer: P's after creating it and before giving way, when
Q has listed already; and Q's after recording ``b`` and before releasing again. Then the next run of
``b`` or of a newer commit ends it: a plan that is made then finds another fingerprint released than
its own, and a job that is run again with its old plan looks for such releases although it has
nothing to release.

**A lost answer.** A write that is tried again conflicts with itself. A release is known by its
nonce, the published commit by being ``b`` already, and rendering starts over. A request that
arrives after its sender gave up is still conditional: it adds what a slower publisher would have
added, at most once.

Nothing rests on planning, whose plan may be hours old: that it keeps an image whose release is of a
newer commit, or was taken back, only saves building in vain.

Not promised: an order of commits on different branches, or whose relation git does not know (a
force-push took one away); that ``b`` protects what it leaves as it is before all of it is published
without a failure; and that an image is taken away of which ``b`` has no spec.

**The public copy.** It is made between listing and creating, in a folder that no other publisher
writes, and is proved before the release names it. A publisher whose release was not created removes
its copy; a copy that a crash left is named by nothing, and ``repo gc`` removes it.

``tests/unit/jobs/test_publish.py`` runs two publishers in every order, and kills them.
"""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from lago_images.errors import ConflictError, RepositoryError, TamperedError
from lago_images.repository.publishing.copying import Judged, PublicCopy
from lago_images.repository.publishing.package_changes import package_changes
from lago_images.repository.publishing.publisher import ATTEMPTS, Pause, pause
from lago_images.repository.records.gaps import gaps
from lago_images.repository.records.layout import (
    PUBLISHED,
    RELEASES,
    ImageId,
    LossKey,
    ReleaseKey,
    headers,
    loss_key,
    release_key,
    retired_copy,
)
from lago_images.repository.records.loss import is_given_up
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.parsing import SchemaError
from lago_images.repository.records.release import BaseBinding, Release, Released
from lago_images.repository.records.standing import (
    History,
    deciding_commit,
    standing,
    taken_back,
    withdrawn,
)
from lago_images.repository.records.state import PublishedCommit, State, read_published
from lago_images.repository.statements.making import Statements
from lago_images.storage.base import Stat, Store

# Whether the first commit is an ancestor of the second; None when one of them is not to be had.
IsAncestor = Callable[[str, str], bool | None]
# Releases that were read before, by key, each with the ETag it had.
Seen = dict[str, tuple[str, Release]]
_MOST_REVISIONS_LOST = 1000


class Verdict(StrEnum):
    """Name what became of the wish to release a build."""

    RELEASED = "released"
    ALREADY = "already released"
    SUPERSEDED = "superseded by a newer commit's"
    WITHDRAWN = "withdrawn before"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOutcome:
    """Hold what became of a build, and the release that made it so."""

    verdict: Verdict
    release: Release


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Hold what a publisher decides by.

    Attributes:
        released: What it has checked out, and who it is.
        known_revision: The image's newest revision when the plan was made: a later one of the
            same fingerprint is the same image built twice, and one release is enough.
        is_ancestor: Asks git. An unknown relation (a force-push took the commit away) does not
            keep a build from being released.
        now: Seconds since the epoch.
        statements: Makes those about the build; None to publish none.
    """

    released: Released
    known_revision: int
    is_ancestor: IsAncestor
    now: Callable[[], float]
    statements: Statements | None = None


def release(
    store: Store, judged: Judged, decision: Decision, *, state: State | None = None
) -> ReleaseOutcome:
    """Make a staged build public under the next revision, unless it should not be.

    ``state`` is what was read before: its releases are not read again.

    Raises:
        TamperedError: The build, or the base that it was built on, is not what was judged.
        RepositoryError: The build is incomplete, holds what cannot be published, or its base is
            not offered.
    """
    manifest = judged.manifest
    copy = PublicCopy(store=store, judged=judged, statements=decision.statements)

    def make(history: History) -> Release:
        return Release(
            name=manifest.name,
            arch=manifest.arch,
            revision=_next_revision(history),
            image=copy.image(_bound_base(store, manifest)),
            released=decision.released,
            published=int(decision.now()),
            nonce=_new_nonce(),
        )

    try:
        created, outcome = _release(store, manifest, make, decision, state)
    except (RepositoryError, TamperedError):
        # Raised instead of creating it. After any other failure the release may be there.
        copy.remove()
        raise
    if not created:
        copy.remove()
    return outcome


def release_again(
    store: Store, earlier: Release, decision: Decision, *, state: State | None = None
) -> ReleaseOutcome:
    """Offer the public copy of an earlier release again, unless it should not be.

    Raises ``RepositoryError`` for an image whose releases cannot be read.
    """
    if earlier.manifest is None:
        raise RepositoryError(f"{earlier.key} is a withdrawal: nothing of it can be released")

    def make(history: History) -> Release:
        return following(earlier, history, decision.now(), released=decision.released, reason="")

    return _release(store, earlier.manifest, make, decision, state)[1]


def _release(
    store: Store,
    manifest: Manifest,
    make: Callable[[History], Release],
    decision: Decision,
    state: State | None,
) -> tuple[bool, ReleaseOutcome]:
    """Create the release that ``make`` makes, unless something stands against it.

    Returns whether it was created, and what became of the wish.
    """
    objections: list[ReleaseOutcome] = []

    def decide(history: History) -> Release | None:
        if objection := _objection(store, history, manifest, decision):
            objections.append(objection)
            return None
        return make(history)

    history = state.history(*manifest.key.image) if state else ()
    keys = {str(each.key): each for each in history}
    seen = {key: (state.objects[key].etag, each) for key, each in keys.items()} if state else {}
    created = create(store, manifest.name, manifest.arch, decide, seen)
    if created is None:
        return False, objections[-1]
    if restored := _give_way(store, created, decision, seen):
        return True, ReleaseOutcome(verdict=Verdict.SUPERSEDED, release=restored)
    return True, ReleaseOutcome(verdict=Verdict.RELEASED, release=created)


def _bound_base(store: Store, manifest: Manifest) -> BaseBinding | None:
    """Find the offered release that a layer was built on; None for other images.

    Raises:
        TamperedError: The layer was built on other bytes than those that are offered.
        RepositoryError: The base is not offered.
    """
    wanted = manifest.base_key
    if wanted is None:
        return None
    # Listed anew: the base may have been withdrawn or retired since this run read the repository.
    listed = list(store.list(f"{RELEASES}{wanted.name}/{wanted.arch}/"))
    retired = {copy for stat in listed if (copy := retired_copy(stat.key))}
    history = _history(store, listed, {})
    lost = _lost_up_to(wanted.image, listed, history)
    for release in reversed(standing(history)):
        image = release.image
        if image is None or image.build != wanted.build_id or image.public in retired:
            continue
        if release.revision < lost:
            break
        sha256 = image.manifest.disk.sha256
        if manifest.base.digest != f"sha256:{sha256}":
            raise TamperedError(
                f"{manifest.name} was built on {manifest.base.digest}; the build "
                f"{wanted.build_id} of {wanted.name}, as it is released, has sha256:{sha256}",
                hint=f"build it again: lago-images ci rebuild {manifest.name}",
            )
        return BaseBinding(
            name=wanted.name,
            arch=wanted.arch,
            build=wanted.build_id,
            revision=release.revision,
            sha256=sha256,
        )
    raise RepositoryError(
        f"{manifest.name} stands on the build {wanted.build_id or 'unknown'} of {wanted.name}, "
        "which is not offered",
        hint=f"build it again: lago-images ci rebuild {manifest.name}",
    )


def record_commit(
    store: Store, commit: str, *, is_ancestor: IsAncestor, wait: Pause = pause
) -> bool:
    """Remember the commit published last; False if one at least as new is remembered.

    Whoever records a commit then lists the repository, and releases again what
    ``replaced_by_older`` finds. A remembered commit that is no descendant of this one, or that
    nobody has any more (a force-push), is replaced.

    Raises ``RepositoryError`` when other publishers were faster, every time.
    """
    for attempt in range(ATTEMPTS):
        recorded = read_published(store)
        if recorded and (recorded.commit == commit or is_ancestor(commit, recorded.commit)):
            return False
        try:
            store.put(
                PUBLISHED,
                PublishedCommit.to_json(commit),
                expected=recorded.etag if recorded else None,
                headers=headers(PUBLISHED),
            )
        except ConflictError:
            # Perhaps by an earlier try of this very write, whose answer was lost: the next turn
            # then reads our own commit.
            wait(attempt)
        else:
            return True
    raise RepositoryError(f"{PUBLISHED} in {store.url} was changed by others, every time")


def replaced_by_older(
    state: State,
    image: ImageId,
    fingerprint: str,
    *,
    commit: str,
    known_revision: int,
    is_ancestor: IsAncestor,
) -> Release | None:
    """Find the release that clients are to get, where they get one that an older commit released.

    Args:
        state: What was listed after ``commit`` was recorded.
        image: Its name and architecture.
        fingerprint: What ``commit`` makes of it.
        commit: The one that was published.
        known_revision: The image's newest revision when the plan was made: only what was
            released later can have come in between.
        is_ancestor: Asks git.
    """
    current = state.current(*image)
    if current is None or current.revision <= known_revision:
        return None
    # An operator's withdrawal or rollback that came since is not undone.
    if fingerprint in {current.fingerprint, *taken_back(state.history(*image))}:
        return None
    decided = deciding_commit(current, state.history(*image))
    if decided != commit and not is_ancestor(decided, commit):
        return None
    wanted = [each for each in state.live(*image) if each.fingerprint == fingerprint]
    return wanted[-1] if wanted else None


def create(
    store: Store,
    name: str,
    arch: str,
    decide: Callable[[History], Release | None],
    seen: Seen | None = None,
) -> Release | None:
    """Create the release that ``decide`` makes of an image's history; None if it makes none.

    When another publisher takes the revision first, ``decide`` is asked again with the history as
    it is then. Releases, withdrawals and rollbacks are all made here. ``seen`` are releases that
    were read before.

    Raises ``RepositoryError`` when a release is damaged and nobody gave it up, the build is
    retired, or other publishers were faster, every time.
    """
    seen = {} if seen is None else seen
    for _ in range(_MOST_REVISIONS_LOST):
        listed = list(store.list(f"{RELEASES}{name}/{arch}/"))
        history = _history(store, listed, seen)
        wanted = decide(history)
        if wanted is None:
            return None
        _refuse_retired(wanted, listed)
        # Above a record that was given up, too: its number is taken.
        number = max(wanted.revision, _newest_taken(listed) + 1)
        wanted = replace(wanted, revision=number)
        wanted = replace(wanted, package_changes=package_changes(store, history, wanted))
        if _create_object(store, wanted):
            return wanted
    raise RepositoryError(
        f"{name} ({arch}): {_MOST_REVISIONS_LOST} revisions in a row were taken by others",
        hint="run it again when fewer publishers are at work",
    )


def following(release: Release, history: History, now: float, **changes: Any) -> Release:  # noqa: ANN401 -- a release's fields
    """Make the release after ``history`` that is as an earlier one but for ``changes``."""
    return replace(
        release,
        revision=_next_revision(history),
        published=int(now),
        nonce=_new_nonce(),
        **changes,
    )


def read_history(store: Store, name: str, arch: str) -> History:
    """Read an image's releases and withdrawals, ascending by revision."""
    return _history(store, store.list(f"{RELEASES}{name}/{arch}/"), {})


def _objection(
    store: Store, history: History, manifest: Manifest, decision: Decision
) -> ReleaseOutcome | None:
    """Find what stands against releasing a build; None for nothing."""
    known_revision, is_ancestor = decision.known_revision, decision.is_ancestor
    commit = decision.released.commit
    if taken := _taken_back(history, manifest, known_revision):
        return ReleaseOutcome(verdict=Verdict.WITHDRAWN, release=taken)
    # What clients get, or what took the last of it back.
    newest = next(reversed(standing(history) or history), None)
    if newest is None:
        return None
    same = newest.fingerprint == manifest.fingerprint
    # A job that is run again, or another run that built the same while this one did.
    if newest.build == manifest.build_id or (same and newest.revision > known_revision):
        return ReleaseOutcome(verdict=Verdict.ALREADY, release=newest)
    # A newer commit that left the image as it was has no release of it, but is published.
    decided = deciding_commit(newest, history)
    if decided != commit and (
        is_ancestor(commit, decided)
        or (not same and _is_older(commit, read_published(store), is_ancestor))
    ):
        return ReleaseOutcome(verdict=Verdict.SUPERSEDED, release=newest)
    return None


def _give_way(store: Store, created: Release, decision: Decision, seen: Seen) -> Release | None:
    """Release again what a release replaced, if a newer commit was recorded at the same moment."""
    published = read_published(store)
    commit = created.released.commit
    if published is None or not _is_older(commit, published, decision.is_ancestor):
        return None

    def decide(history: History) -> Release | None:
        offered, image = standing(history), created.key.image
        # What is lost, or was given up, may have withdrawn all before it.
        lost = max((gap.last for gap in gaps(image, (r.revision for r in history))), default=0)
        earlier = [each for each in offered if lost < each.revision < created.revision]
        # Somebody released or withdrew since: it is theirs to say what is offered.
        if offered[-1:] != (created,) or not earlier:
            return None
        if earlier[-1].fingerprint == created.fingerprint:
            return None
        # For whoever comes even later, the newer commit has released the image.
        released = replace(created.released, commit=published.commit)
        return following(earlier[-1], history, decision.now(), released=released, reason="")

    return create(store, created.name, created.arch, decide, seen)


def _is_older(commit: str, published: PublishedCommit | None, is_ancestor: IsAncestor) -> bool:
    if published is None or published.commit == commit:
        return False
    return bool(is_ancestor(commit, published.commit))


def _taken_back(history: History, manifest: Manifest, known_revision: int) -> Release | None:
    """Find what keeps a build from coming back: it was withdrawn, or its like after the plan."""
    withdrawn_revisions = withdrawn(history)
    for earlier in history:
        if earlier.revision in withdrawn_revisions and earlier.build == manifest.build_id:
            return earlier
    taken = taken_back(history).get(manifest.fingerprint)
    return taken if taken and taken.revision > known_revision else None


def _history(store: Store, listed: Iterable[Stat], seen: Seen) -> History:
    """Read the releases that are listed; a damaged one is left out where its loss is accepted."""
    stats = tuple(listed)
    accepted = [loss for stat in stats if (loss := loss_key(stat.key))]
    history = []
    for stat in stats:
        key = release_key(stat.key)
        if key is None:
            continue
        # An ETag stands for the bytes: what was read under the same one is not read again.
        if stat.key not in seen or seen[stat.key][0] != stat.etag:
            release = _read(store, key, accepted)
            if release is None:
                continue
            seen[stat.key] = stat.etag, release
        history.append(seen[stat.key][1])
    return tuple(sorted(history, key=lambda r: r.revision))


def _read(store: Store, key: ReleaseKey, accepted: Iterable[LossKey]) -> Release | None:
    """Read a release; return None for a damaged one whose very bytes an operator gave up."""
    data = store.get(str(key)).data
    try:
        return Release.parse(data, key)
    except SchemaError:
        raise
    except RepositoryError:
        if not is_given_up(store, key, accepted, data):
            raise
        return None


def _newest_taken(listed: Iterable[Stat]) -> int:
    keys = (release_key(stat.key) for stat in listed)
    return max((key.revision for key in keys if key), default=0)


def _lost_up_to(image: ImageId, listed: Iterable[Stat], history: History) -> int:
    """Return the newest revision whose record is missing, or was given up; 0 for none."""
    keys = (release_key(stat.key) for stat in listed)
    taken = {key.revision for key in keys if key}
    given_up = taken - {release.revision for release in history}
    return max([*given_up, *(gap.last for gap in gaps(image, taken))], default=0)


def _refuse_retired(wanted: Release, listed: Iterable[Stat]) -> None:
    copy = wanted.public
    if copy and copy.retirement in {stat.key for stat in listed}:
        raise RepositoryError(
            f"{copy.folder} cannot be released: repo gc has begun to remove it",
            hint=f"build it again: lago-images ci rebuild {wanted.name}",
        )


def _create_object(store: Store, wanted: Release) -> bool:
    """Take the revision; tells whether it is ours."""
    key = str(wanted.key)
    try:
        store.put(key, wanted.to_json(), expected=None, headers=headers(key))
    except ConflictError:
        # Ours after all, if the answer to an earlier try of the same request was lost.
        return Release.parse(store.get(key).data, wanted.key).nonce == wanted.nonce
    return True


def _next_revision(history: History) -> int:
    return history[-1].revision + 1 if history else 1


def _new_nonce() -> str:
    """Make what tells a publisher's own write from another's."""
    return secrets.token_hex(16)
