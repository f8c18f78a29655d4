"""Making a build public: a revision is taken by creating its object, and never given back."""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from lago_images.errors import ConflictError, RepositoryError
from lago_images.repository.held import History, held
from lago_images.repository.layout import RELEASES, headers, release_key
from lago_images.repository.manifest import Manifest
from lago_images.repository.proof import prove
from lago_images.repository.release import Release
from lago_images.repository.state import (
    Published,
    State,
    build_of,
    read_published,
    standing,
    withdrawn,
)
from lago_images.storage.base import Stat, Store

# Whether the first commit is an ancestor of the second; None when one of them is not to be had.
IsAncestor = Callable[[str, str], bool | None]
# Releases that were read before, by key, each with the ETag it had.
Seen = dict[str, tuple[str, Release]]
_ATTEMPTS = 1000


class Verdict(StrEnum):
    """What became of the wish to release a build."""

    RELEASED = "released"
    ALREADY = "already released"
    SUPERSEDED = "superseded by a newer commit's"
    WITHDRAWN = "withdrawn before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a build, and the release that made it so."""

    verdict: Verdict
    release: Release


def release(
    store: Store,
    manifest: Manifest,
    *,
    commit: str,
    known_revision: int,
    is_ancestor: IsAncestor,
    now: Callable[[], float],
    state: State | None = None,
) -> Outcome:
    """Make a build public under the next revision, unless it should not be.

    A commit that was published later keeps out what an older one made, also where it left the
    image as it was (a revert), and so has no release of it: the published commit is looked up
    before the revision is taken, and again after.

    Args:
        store: The repository.
        manifest: The build, which is complete in the store.
        commit: What the publisher has checked out.
        known_revision: The image's newest revision when the plan was made: a later one of the
            same fingerprint is the same image built twice, and one release is enough.
        is_ancestor: Asks git. An unknown relation (a force-push took the commit away) does not
            keep a build from being released.
        now: Seconds since the epoch.
        state: What was read before: its releases are not read again.

    Raises:
        RepositoryError: The build is incomplete, or holds what cannot be published.
    """
    prove(store, manifest)
    found: list[Outcome] = []

    def decide(history: History) -> Release | None:
        reason = _reason_not_to(history, manifest, commit, known_revision, is_ancestor)
        reason = reason or _published_since(store, history, manifest, commit, is_ancestor)
        if reason:
            found.append(reason)
            return None
        return _next(history, manifest, commit, now)

    seen = _seen(state, manifest)
    created = create(store, manifest.name, manifest.arch, decide, seen)
    if created is None:
        return found[-1]
    if back := _give_way(store, created, is_ancestor, now, seen):
        return Outcome(verdict=Verdict.SUPERSEDED, release=back)
    return Outcome(verdict=Verdict.RELEASED, release=created)


def _next(history: History, manifest: Manifest, commit: str, now: Callable[[], float]) -> Release:
    """The release that a build becomes."""
    return Release(
        name=manifest.name,
        arch=manifest.arch,
        revision=next_revision(history),
        build=manifest.build_id,
        fingerprint=manifest.fingerprint,
        commit=commit,
        published=int(now()),
        nonce=new_nonce(),
    )


def create(
    store: Store,
    name: str,
    arch: str,
    decide: Callable[[History], Release | None],
    seen: Seen | None = None,
) -> Release | None:
    """Create the release that ``decide`` makes of an image's history; None if it makes none.

    When another publisher takes the revision first, ``decide`` is asked again with what there
    is then. Releases, withdrawals and rollbacks are all made here. ``seen`` are releases that
    were read before.
    """
    seen = {} if seen is None else seen
    for _ in range(_ATTEMPTS):
        listed = list(store.list(f"{RELEASES}{name}/{arch}/"))
        wanted = decide(_history(store, listed, seen))
        if wanted is None:
            return None
        _refuse_retired(wanted, listed)
        if _created(store, wanted):
            return wanted
    raise RepositoryError(
        f"{name} ({arch}): {_ATTEMPTS} revisions in a row were taken by others",
        hint="run it again when fewer publishers are at work",
    )


def new_nonce() -> str:
    """What tells a publisher's own write from another's."""
    return secrets.token_hex(16)


def next_revision(history: History) -> int:
    return history[-1].revision + 1 if history else 1


def following(release: Release, history: History, now: float, **changes: Any) -> Release:  # noqa: ANN401 -- a release's fields
    """The release after ``history`` that is as an earlier one but for ``changes``."""
    return replace(
        release,
        revision=next_revision(history),
        published=int(now),
        nonce=new_nonce(),
        **changes,
    )


def read_history(store: Store, name: str, arch: str) -> History:
    """An image's releases and withdrawals, ascending."""
    return _history(store, store.list(f"{RELEASES}{name}/{arch}/"), {})


def _seen(state: State | None, manifest: Manifest) -> Seen:
    if state is None:
        return {}
    history = {str(one.key): one for one in state.history(manifest.name, manifest.arch)}
    return {key: (state.objects[key].etag, one) for key, one in history.items()}


def _history(store: Store, listed: Iterable[Stat], seen: Seen) -> History:
    history = []
    for stat in listed:
        key = release_key(stat.key)
        if key is None:
            continue
        if stat.key not in seen or seen[stat.key][0] != stat.etag:
            seen[stat.key] = stat.etag, Release.parse(store.get(stat.key).data, key)
        history.append(seen[stat.key][1])
    return tuple(sorted(history, key=lambda r: r.revision))


def _refuse_retired(wanted: Release, listed: Iterable[Stat]) -> None:
    key = build_of(wanted)
    if key and key.retirement in {stat.key for stat in listed}:
        raise RepositoryError(
            f"{key.folder} cannot be released: repo gc has begun to remove it",
            hint=f"build it again: ci rebuild {wanted.name}",
        )


def _reason_not_to(
    history: History,
    manifest: Manifest,
    commit: str,
    known_revision: int,
    is_ancestor: IsAncestor,
) -> Outcome | None:
    if taken := _taken_back(history, manifest, known_revision):
        return Outcome(verdict=Verdict.WITHDRAWN, release=taken)
    newest = _newest(history)
    if newest is None:
        return None
    if newest.build == manifest.build_id:
        return Outcome(verdict=Verdict.ALREADY, release=newest)
    if newest.revision > known_revision and newest.fingerprint == manifest.fingerprint:
        return Outcome(verdict=Verdict.ALREADY, release=newest)
    if newest.commit != commit and is_ancestor(commit, newest.commit):
        return Outcome(verdict=Verdict.SUPERSEDED, release=newest)
    return None


def _newest(history: History) -> Release | None:
    """What clients get, or what took the last of it back: that has the commit of what it was."""
    return next(reversed(standing(history) or history), None)


def _published_since(
    store: Store, history: History, manifest: Manifest, commit: str, is_ancestor: IsAncestor
) -> Outcome | None:
    """What a newer commit left as it was: its own release of it would be the newest."""
    newest = _newest(history)
    if newest is None or newest.fingerprint == manifest.fingerprint or newest.commit == commit:
        return None
    if not _is_older(commit, read_published(store), is_ancestor):
        return None
    return Outcome(verdict=Verdict.SUPERSEDED, release=newest)


def _give_way(
    store: Store, created: Release, is_ancestor: IsAncestor, now: Callable[[], float], seen: Seen
) -> Release | None:
    """Put back what a release replaced, if a newer commit was published at the same moment.

    Whoever publishes that commit looks for such a release after recording it, so one of the two
    sees the other.
    """
    published = read_published(store)
    if published is None or not _is_older(created.commit, published, is_ancestor):
        return None

    def decide(history: History) -> Release | None:
        offered = standing(history)
        earlier = [one for one in offered if one.revision < created.revision]
        if offered[-1:] != (created,) or not earlier:
            return None
        if earlier[-1].fingerprint == created.fingerprint:
            return None
        return following(earlier[-1], history, now(), commit=published.commit, reason="")

    return create(store, created.name, created.arch, decide, seen)


def _is_older(commit: str, published: Published | None, is_ancestor: IsAncestor) -> bool:
    if published is None or published.commit == commit:
        return False
    return bool(is_ancestor(commit, published.commit))


def _taken_back(history: History, manifest: Manifest, known_revision: int) -> Release | None:
    """What keeps a build from coming back: it was withdrawn, or its like after the plan."""
    gone = withdrawn(history)
    for earlier in history:
        if earlier.revision in gone and earlier.build == manifest.build_id:
            return earlier
    taken = held(history).get(manifest.fingerprint)
    return taken if taken and taken.revision > known_revision else None


def _created(store: Store, wanted: Release) -> bool:
    key = str(wanted.key)
    try:
        store.put(key, wanted.to_json(), expected=None, headers=headers(key))
    except ConflictError:
        # Ours after all, if the answer to an earlier try of the same request was lost.
        return Release.parse(store.get(key).data, wanted.key).nonce == wanted.nonce
    return True
