"""Making a build public: a revision is taken by creating its object, and never given back."""

import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from lago_images.errors import ConflictError, NotFoundError, RepositoryError
from lago_images.repository.check import manifest_problems, release_problems
from lago_images.repository.held import History, held
from lago_images.repository.layout import RELEASES, headers, release_key
from lago_images.repository.manifest import Manifest
from lago_images.repository.metadata import hash_file
from lago_images.repository.release import Release
from lago_images.repository.state import build_of, standing, withdrawn
from lago_images.storage.base import Stat, Store

# Whether the first commit is an ancestor of the second; None when one of them is not to be had.
IsAncestor = Callable[[str, str], bool | None]
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
) -> Outcome:
    """Make a build public under the next revision, unless it should not be.

    Args:
        store: The repository.
        manifest: The build, which is complete in the store.
        commit: What the publisher has checked out.
        known_revision: The image's newest revision when the plan was made: a later one of the
            same fingerprint is the same image built twice, and one release is enough.
        is_ancestor: Asks git. An unknown relation (a force-push took the commit away) does not
            keep a build from being released.
        now: Seconds since the epoch.

    Raises:
        RepositoryError: The build is incomplete, or holds what cannot be published.
    """
    prove(store, manifest)
    found: list[Outcome] = []

    def decide(history: History) -> Release | None:
        reason = _reason_not_to(history, manifest, commit, known_revision, is_ancestor)
        if reason:
            found.append(reason)
            return None
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

    created = create(store, manifest.name, manifest.arch, decide)
    return Outcome(verdict=Verdict.RELEASED, release=created) if created else found[-1]


def create(
    store: Store, name: str, arch: str, decide: Callable[[History], Release | None]
) -> Release | None:
    """Create the release that ``decide`` makes of an image's history; None if it makes none.

    When another publisher takes the revision first, ``decide`` is asked again with what there
    is then. Releases, withdrawals and rollbacks are all made here.
    """
    seen: dict[str, Release] = {}
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


def read_history(
    store: Store, name: str, arch: str, seen: dict[str, Release] | None = None
) -> History:
    """An image's releases and withdrawals, ascending; ``seen`` ones are not read again."""
    listed = store.list(f"{RELEASES}{name}/{arch}/")
    return _history(store, listed, {} if seen is None else seen)


def _history(store: Store, listed: Iterable[Stat], seen: dict[str, Release]) -> History:
    history = []
    for stat in listed:
        key = release_key(stat.key)
        if key is None:
            continue
        if stat.key not in seen:
            read = Release.from_json(store.get(stat.key).data, stat.key)
            if problems := release_problems(read, key):
                raise RepositoryError(f"{key} is not a release: {'; '.join(problems)}")
            seen[stat.key] = read
        history.append(seen[stat.key])
    return tuple(sorted(history, key=lambda r: r.revision))


def _refuse_retired(wanted: Release, listed: Iterable[Stat]) -> None:
    key = build_of(wanted)
    if key and key.retirement in {stat.key for stat in listed}:
        raise RepositoryError(
            f"{key.folder} cannot be released: repo gc has begun to remove it",
            hint=f"build it again: ci rebuild {wanted.name}",
        )


def prove(store: Store, manifest: Manifest) -> None:
    """Raises ``RepositoryError`` unless everything that a release would name is there."""
    key = manifest.key
    if problems := manifest_problems(manifest, key):
        raise RepositoryError(f"{key.folder} cannot be published: {'; '.join(problems)}")
    try:
        size = store.head(key.disk).size
        kept = {name: store.get(name).data for name in (key.hash, key.metadata, key.manifest)}
    except NotFoundError as error:
        raise RepositoryError(
            f"{key.folder} cannot be released, it is incomplete: {error}",
            hint=f"build it again: ci rebuild {manifest.name}",
        ) from error
    wrong = []
    if size != manifest.disk.compressed_size:
        wrong.append(f"{key.disk} has {size} bytes, not {manifest.disk.compressed_size}")
    if kept[key.hash].strip() != hash_file(manifest).strip():
        wrong.append(f"{key.hash} is not the disk's")
    if not _is_object(kept[key.metadata]):
        wrong.append(f"{key.metadata} is not a JSON object")
    if kept[key.manifest] != manifest.to_json():
        wrong.append(f"{key.manifest} is another manifest")
    if wrong:
        raise RepositoryError(
            f"{key.folder} cannot be released: {'; '.join(wrong)}",
            hint=f"build it again: ci rebuild {manifest.name}",
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
    newest = next(reversed(standing(history)), None)
    if newest is None:
        return None
    if newest.build == manifest.build_id:
        return Outcome(verdict=Verdict.ALREADY, release=newest)
    if newest.revision > known_revision and newest.fingerprint == manifest.fingerprint:
        return Outcome(verdict=Verdict.ALREADY, release=newest)
    if newest.commit != commit and is_ancestor(commit, newest.commit):
        return Outcome(verdict=Verdict.SUPERSEDED, release=newest)
    return None


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
        return Release.from_json(store.get(key).data, key).nonce == wanted.nonce
    return True


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False
