"""Withdraw a revision of an image, or go back to an older build of it, as operators do.

Both only add a release, by the same creation that publishers use, and render afterwards; so they
may be called beside running publishers, and a crash between the two is made up for by whoever
renders next.
"""

from dataclasses import dataclass

from lago_images.errors import RepositoryError, UsageError
from lago_images.repository.publishing.publisher import Publisher
from lago_images.repository.publishing.releasing import History, create, following, prove
from lago_images.repository.records.layout import NAME, RELEASES, release_key, retired_build
from lago_images.repository.records.release import Release
from lago_images.repository.records.state import State, build_of, read, standing
from lago_images.storage.base import Store

_LIST = "lago-images repo list --all shows what is published"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryChange:
    """What became of an image.

    Attributes:
        name: The image's.
        arch: Its architecture.
        about: The revision that was withdrawn, or gone back to.
        release: The release that this made, the first of several; None when nothing was left to do.
        withdrawn: The revisions that this withdrew.
        current: What clients get now; None when the image is offered no more.
        written: The rendered files that changed.
    """

    name: str
    arch: str
    about: int
    release: Release | None
    current: Release | None
    written: tuple[str, ...]
    withdrawn: tuple[int, ...] = ()


def yank(
    publisher: Publisher, name: str, *, reason: str, revision: int | None = None, arch: str = ""
) -> HistoryChange:
    """Withdraw a revision, the newest one that is offered unless another is named.

    With it goes every other revision of the same build. Clients are then offered what was
    offered before. The revisions' numbers are never used again, the build not released again,
    and its fingerprint not built again unless asked for. What is withdrawn already is left as it
    is.

    Raises:
        UsageError: There is no such revision, or it must be named as the repository is damaged.
    """
    store, arch = publisher.store, arch or only_arch(publisher.store, name)
    revision = _current(store, name, arch) if revision is None else revision
    retired = _retired(store, name, arch)
    targets: list[Release] = []

    def decide(history: History) -> Release | None:
        if not targets:
            targets.append(_to_withdraw(history, retired, name, arch, revision))
        left = _left_of(targets[0], history, retired)
        return _withdrawal(left[0], history, reason, publisher.now()) if left else None

    made: list[Release] = []
    while one := create(store, name, arch, decide):
        made.append(one)
    refreshed = publisher.refresh()
    return HistoryChange(
        name=name,
        arch=arch,
        about=targets[0].revision,
        release=made[0] if made else None,
        current=refreshed.state.current(name, arch),
        written=refreshed.written,
        withdrawn=tuple(one.withdraws for one in made if one.withdraws is not None),
    )


def _left_of(target: Release, history: History, retired: frozenset[str]) -> list[Release]:
    """Find what of a build stands yet, the revision that is meant first."""
    same = {target.build} - retired
    offered = standing(history)
    found = [one for one in offered if one.revision == target.revision or one.build in same]
    return sorted(found, key=lambda one: (one.revision != target.revision, -one.revision))


def _withdrawal(target: Release, history: History, reason: str, now: float) -> Release:
    about = target.revision
    return following(
        target, history, now, build=None, fingerprint="", withdraws=about, reason=reason
    )


def rollback(
    publisher: Publisher, name: str, *, reason: str = "", to: int | None = None, arch: str = ""
) -> HistoryChange:
    """Publish an older build again, under a new revision: caching clients then really get it.

    Args:
        publisher: Of the repository.
        name: The image's.
        reason: Why; kept in the release.
        to: The revision whose build to go back to; by default the newest that is offered and
            older than what is current.
        arch: Needed only for an image of several architectures.

    Raises:
        UsageError: There is nothing to go back to, or not to that revision.
        RepositoryError: The build is not whole, or somebody published meanwhile.
    """
    store, arch = publisher.store, arch or only_arch(publisher.store, name)
    state = read(store)
    target = _to_go_back_to(state, name, arch, to)
    manifest = state.manifest(target)
    if manifest is None:
        raise RepositoryError(f"revision {target.revision} of {name} has no whole build")
    prove(store, manifest)
    seen, now = state.newest(name, arch), publisher.now()
    made = create(store, name, arch, lambda history: _back_to(target, history, seen, reason, now))
    refreshed = publisher.refresh()
    if build_of(target) in refreshed.state.retired and made is not None:
        yank(publisher, name, reason="repo gc removes its build", revision=made.revision, arch=arch)
        raise RepositoryError(
            f"repo gc began to remove the build of revision {target.revision} at the same moment",
            hint=f"what was current still is; build it again: ci rebuild {name}",
        )
    return HistoryChange(
        name=name,
        arch=arch,
        about=target.revision,
        release=made,
        current=refreshed.state.current(name, arch),
        written=refreshed.written,
    )


def _back_to(target: Release, history: History, seen: int, reason: str, now: float) -> Release:
    """Make the release that goes back to ``target``'s build, if ``seen`` is still the newest."""
    if not history or history[-1].revision != seen:
        raise RepositoryError(
            f"{target.name} was published meanwhile: its newest revision is no longer {seen}",
            hint="look at it (repo list), and roll back again if that is still wanted",
        )
    return following(
        target,
        history,
        now,
        # That of what is passed over: older commits that finish late must not replace it.
        commit=standing(history)[-1].commit,
        reason=f"back to revision {target.revision}" + (f": {reason}" if reason else ""),
    )


def only_arch(store: Store, name: str) -> str:
    """Find an image's architecture, if it has one; raises ``UsageError`` for none and several."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not an image's name", hint=_LIST)
    keys = (release_key(stat.key) for stat in store.list(f"{RELEASES}{name}/"))
    found = sorted({key.arch for key in keys if key})
    if not found:
        raise UsageError(f"{name} was never published in {store.url}", hint=_LIST)
    if len(found) > 1:
        raise UsageError(f"{name} is published for {', '.join(found)}", hint="say which: --arch")
    return found[0]


def _current(store: Store, name: str, arch: str) -> int | None:
    """Find the revision that clients get now; None for none."""
    try:
        current = read(store).current(name, arch)
    except RepositoryError as error:
        raise UsageError(
            f"which revision of {name} is meant cannot be told: {error.message}",
            hint=f"say which: --revision; {error.hint or 'repo verify lists all there is'}",
        ) from error
    return current.revision if current else None


def _retired(store: Store, name: str, arch: str) -> frozenset[str]:
    keys = (retired_build(stat.key) for stat in store.list(f"{RELEASES}{name}/{arch}/retired/"))
    return frozenset(key.build_id for key in keys if key)


def _to_withdraw(
    history: History, retired: frozenset[str], name: str, arch: str, revision: int | None
) -> Release:
    if revision is None:
        offered = [one for one in standing(history) if one.build not in retired]
        if not offered:
            raise UsageError(f"{name} ({arch}) has no revision that is offered", hint=_LIST)
        return offered[-1]
    for release in history:
        if release.revision == revision and release.build is not None:
            return release
    raise UsageError(f"{name} ({arch}) has no release {revision}", hint=_LIST)


def _to_go_back_to(state: State, name: str, arch: str, to: int | None) -> Release:
    live, current = state.live(name, arch), state.current(name, arch)
    gone = _withdrawn_builds(state, name, arch)
    if to is None:
        same = [one.revision for one in live if current and one.build == current.build]
        older = [o for o in live if same and o.revision < same[0] and o.build not in gone]
        if not older:
            raise UsageError(f"{name} ({arch}) has no older build to go back to", hint=_LIST)
        return older[-1]
    for release in live:
        if release.revision == to and current and release.build == current.build:
            raise UsageError(f"the build of revision {to} is what clients of {name} get now")
        if release.revision == to and release.build not in gone:
            return release
    raise UsageError(
        f"cannot go back to revision {to} of {name}: {_why_not(state, name, arch, to)}"
    )


def _why_not(state: State, name: str, arch: str, revision: int) -> str:
    found = [one for one in state.history(name, arch) if one.revision == revision]
    if not found or found[0].build is None:
        return "there is no such release"
    if revision in state.withdrawn(name, arch):
        return "it was withdrawn"
    if found[0].build in _withdrawn_builds(state, name, arch):
        return "its build was withdrawn"
    if build_of(found[0]) in state.retired:
        return "its build was removed by repo gc"
    return "its build is not whole"


def _withdrawn_builds(state: State, name: str, arch: str) -> frozenset[str | None]:
    gone = state.withdrawn(name, arch)
    return frozenset(one.build for one in state.history(name, arch) if one.revision in gone)
