"""Withdraw a revision of an image, or go back to an older build of it, as operators do.

Both only add releases, by the same creation that publishers use, and render afterwards; so they
may be called beside running publishers, and a crash between the two is made up for by whoever
renders next. Other images may contain what is taken back: layers, by the base that their releases
bind. These are named, and taken along when that is asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lago_images.errors import RepositoryError, UsageError
from lago_images.repository.publishing.publisher import Publisher
from lago_images.repository.publishing.releasing import History, create, following
from lago_images.repository.records.layout import (
    NAME,
    RELEASES,
    BuildKey,
    ImageId,
    release_key,
    retired_copy,
)
from lago_images.repository.records.release import Release, Released
from lago_images.repository.records.state import State, read, standing, survey
from lago_images.storage.base import Store

_LIST = "lago-images repo list --all shows what is published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """Name what a withdrawal or rollback would touch.

    Attributes:
        target: The release to withdraw, or to go back to.
        build: The build that is taken back.
        layers: The offered releases of other images that contain it, the nearest first.
    """

    target: Release
    build: BuildKey
    layers: tuple[Release, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryChange:
    """Tell what became of an image.

    Attributes:
        name: The image's.
        arch: Its architecture.
        about: The revision that was withdrawn, or gone back to.
        release: The release that this made, the first of several; None when nothing was left to do.
        withdrawn: The revisions that this withdrew.
        current: What clients get now; None when the image is offered no more.
        written: The rendered files that changed.
        layers: The releases of layers that contain what was taken back, and are still offered.
        taken: The releases that this made of layers.
    """

    name: str
    arch: str
    about: int
    release: Release | None
    current: Release | None
    written: tuple[str, ...]
    withdrawn: tuple[int, ...] = ()
    layers: tuple[Release, ...] = ()
    taken: tuple[Release, ...] = ()


def look_at_yank(
    store: Store, name: str, *, revision: int | None = None, arch: str = ""
) -> Affected:
    """Find what ``yank`` would withdraw; reads only, and raises as ``yank`` does."""
    arch = arch or only_arch(store, name)
    state = read(store)
    if revision is None:
        revision = _current(state, name, arch)
    history = state.history(name, arch)
    target = _to_withdraw(history, _retired(store, name, arch), name, arch, revision)
    build = BuildKey(name=name, arch=arch, build_id=target.build or "")
    return Affected(target=target, build=build, layers=containing(state, build))


def yank(
    publisher: Publisher,
    name: str,
    *,
    reason: str,
    released: Released,
    revision: int | None = None,
    arch: str = "",
    with_layers: bool = False,
) -> HistoryChange:
    """Withdraw a revision, the newest one that is offered unless another is named.

    With it goes every other revision of the same build, and ``with_layers`` every offered layer
    that contains it. Clients are then offered what was offered before. The revisions' numbers are
    never used again, the build not released again, and its fingerprint not built again unless
    asked for. What is withdrawn already is left as it is. ``released`` is recorded.

    Raises:
        UsageError: There is no such revision, it must be named as the repository is damaged, or
            there is no reason.
    """
    if not reason.strip():
        raise UsageError("a withdrawal needs a reason", hint="say why: --reason")
    store, arch = publisher.store, arch or only_arch(publisher.store, name)
    revision = _current(read(store), name, arch) if revision is None else revision
    retired = _retired(store, name, arch)
    targets: list[Release] = []

    def decide(history: History) -> Release | None:
        if not targets:
            targets.append(_to_withdraw(history, retired, name, arch, revision))
        left = _left_of(targets[0], history, retired)
        if not left:
            return None
        return _withdrawal(left[0], history, reason, released, publisher.now())

    made: list[Release] = []
    while one := create(store, name, arch, decide):
        made.append(one)
    build = BuildKey(name=name, arch=arch, build_id=targets[0].build or "")
    taken: list[Release] = []
    if with_layers:
        why = f"it contains {name} {targets[0].revision}: {reason}"
        for layer in containing(read(store), build):
            taken.extend(_withdraw_build(publisher, layer, why, released))
    refreshed = publisher.refresh()
    return HistoryChange(
        name=name,
        arch=arch,
        about=targets[0].revision,
        release=made[0] if made else None,
        current=refreshed.state.current(name, arch),
        written=refreshed.written,
        withdrawn=tuple(one.withdraws for one in made if one.withdraws is not None),
        layers=containing(refreshed.state, build),
        taken=tuple(taken),
    )


def containing(state: State, build: BuildKey) -> tuple[Release, ...]:
    """Find the offered releases of layers that stand on a build, and the layers on these."""
    on: dict[BuildKey, list[Release]] = {}
    for image in state.images:
        for release in state.live(*image):
            if release.manifest and (base := release.manifest.base_key):
                on.setdefault(base, []).append(release)
    layers: dict[str, Release] = {}
    builds = [build]
    while builds:
        for release in on.get(builds.pop(0), ()):
            if str(release.key) not in layers and release.manifest:
                layers[str(release.key)] = release
                builds.append(release.manifest.key)
    return tuple(layers.values())


def _withdraw_build(
    publisher: Publisher, target: Release, reason: str, released: Released
) -> list[Release]:
    """Withdraw every revision of a release's build."""

    def decide(history: History) -> Release | None:
        left = _left_of(target, history, frozenset())
        if not left:
            return None
        return _withdrawal(left[0], history, reason, released, publisher.now())

    made = []
    while one := create(publisher.store, target.name, target.arch, decide):
        made.append(one)
    return made


def _left_of(target: Release, history: History, retired: frozenset[str]) -> list[Release]:
    """Find what of a build stands yet, the revision that is meant first."""
    same = [o for o in standing(history) if o.revision == target.revision or _is_same(o, target)]
    left = [o for o in same if o.revision == target.revision or _folder(o) not in retired]
    return sorted(left, key=lambda one: (one.revision != target.revision, -one.revision))


def _is_same(one: Release, other: Release) -> bool:
    return one.build is not None and one.build == other.build


def _withdrawal(
    target: Release, history: History, reason: str, released: Released, now: float
) -> Release:
    about = target.revision
    return following(
        target, history, now, image=None, withdraws=about, reason=reason, released=released
    )


def look_at_rollback(store: Store, name: str, *, to: int | None = None, arch: str = "") -> Affected:
    """Find what ``rollback`` would go back to; reads only, and raises as ``rollback`` does."""
    arch = arch or only_arch(store, name)
    state = survey(store)
    target = _to_go_back_to(state, name, arch, to)
    build = _passed_over(state, name, arch)
    return Affected(target=target, build=build, layers=_current_layers(state, build))


def rollback(
    publisher: Publisher,
    name: str,
    *,
    released: Released,
    reason: str = "",
    to: int | None = None,
    arch: str = "",
    with_layers: bool = False,
) -> HistoryChange:
    """Publish an older build again, under a new revision: caching clients then really get it.

    Args:
        publisher: Of the repository.
        name: The image's.
        released: What the operator has checked out, and who that is; it is recorded.
        reason: Why; kept in the release.
        to: The revision whose build to go back to; by default the newest that is offered and
            older than what is current.
        arch: Needed only for an image of several architectures.
        with_layers: Also roll back each layer whose current release contains what is passed over,
            to its newest older release that does not.

    Raises:
        UsageError: There is nothing to go back to, or not to that revision.
        RepositoryError: The public copy is not whole, or somebody published meanwhile.
    """
    store, arch = publisher.store, arch or only_arch(publisher.store, name)
    state = survey(store)
    target = _to_go_back_to(state, name, arch, to)
    build = _passed_over(state, name, arch)
    made = _go_back(publisher, state, target, reason, released)
    taken: list[Release | None] = []
    if with_layers:
        why = f"its base {name} went back to revision {target.revision}"
        older = (_without(state, layer, build) for layer in _current_layers(state, build))
        taken = [_go_back(publisher, state, one, why, released) for one in older if one]
    refreshed = publisher.refresh()
    if target.public in refreshed.state.retired and made is not None:
        yank(publisher, name, reason="repo gc removes its build", released=released,
             revision=made.revision, arch=arch)  # fmt: skip
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
        layers=_current_layers(refreshed.state, build),
        taken=tuple(one for one in taken if one),
    )


def _go_back(
    publisher: Publisher, state: State, target: Release, reason: str, released: Released
) -> Release | None:
    if state.stored(target) is None:
        raise RepositoryError(
            f"the public copy of revision {target.revision} of {target.name} is not whole",
            hint="lago-images repo verify names what is lost",
        )
    seen, now = state.newest(target.name, target.arch), publisher.now()

    def decide(history: History) -> Release:
        if not history or history[-1].revision != seen:
            raise RepositoryError(
                f"{target.name} was published meanwhile: its newest revision is no longer {seen}",
                hint="look at it (repo list), and roll back again if that is still wanted",
            )
        why = f"back to revision {target.revision}" + (f": {reason}" if reason else "")
        return following(target, history, now, reason=why, released=released)

    return create(publisher.store, target.name, target.arch, decide)


def _passed_over(state: State, name: str, arch: str) -> BuildKey:
    """Return the build that clients get before a rollback."""
    current = state.current(name, arch)
    build = current.build if current else None
    return BuildKey(name=name, arch=arch, build_id=build or "")


def _current_layers(state: State, build: BuildKey) -> tuple[Release, ...]:
    """Return the current releases of layers that contain a build."""
    layers = containing(state, build)
    return tuple(one for one in layers if one == state.current(one.name, one.arch))


def _without(state: State, layer: Release, build: BuildKey) -> Release | None:
    """Return the newest older release of a layer that does not contain a build; None for none."""
    tainted = {one.build for one in _of_image(containing(state, build), layer.key.image)}
    tainted |= _withdrawn_builds(state, layer.name, layer.arch)
    live = state.live(layer.name, layer.arch)
    clean = [one for one in live if one.revision < layer.revision and one.build not in tainted]
    return clean[-1] if clean else None


def _of_image(releases: Iterable[Release], image: ImageId) -> list[Release]:
    return [one for one in releases if one.key.image == image]


def only_arch(store: Store, name: str) -> str:
    """Find an image's architecture, if it has one; raises ``UsageError`` for none and several."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not an image's name", hint=_LIST)
    keys = (release_key(stat.key) for stat in store.list(f"{RELEASES}{name}/"))
    architectures = sorted({key.arch for key in keys if key})
    if not architectures:
        raise UsageError(f"{name} was never published in {store.url}", hint=_LIST)
    if len(architectures) > 1:
        shown = ", ".join(architectures)
        raise UsageError(f"{name} is published for {shown}", hint="say which: --arch")
    return architectures[0]


def _current(state: State, name: str, arch: str) -> int | None:
    """Find the revision that clients get now; None for none."""
    damaged = {key: why for key, why in state.damaged.items() if key.image == ImageId(name, arch)}
    if damaged:
        raise UsageError(
            f"which revision of {name} is meant is not known: {'; '.join(damaged.values())}",
            hint="restore it from a copy first; lago-images repo verify names all that is damaged",
        )
    current = state.current(name, arch)
    return current.revision if current else None


def _retired(store: Store, name: str, arch: str) -> frozenset[str]:
    copies = (retired_copy(stat.key) for stat in store.list(f"{RELEASES}{name}/{arch}/retired/"))
    return frozenset(copy.key.build_id for copy in copies if copy)


def _folder(release: Release) -> str:
    return release.image.folder if release.image else ""


def _to_withdraw(
    history: History, retired: frozenset[str], name: str, arch: str, revision: int | None
) -> Release:
    if revision is None:
        offered = [one for one in standing(history) if _folder(one) not in retired]
        if not offered:
            raise UsageError(f"{name} ({arch}) has no revision that is offered", hint=_LIST)
        return offered[-1]
    for release in history:
        if release.revision == revision and release.image is not None:
            return release
    raise UsageError(f"{name} ({arch}) has no release {revision}", hint=_LIST)


def _to_go_back_to(state: State, name: str, arch: str, to: int | None) -> Release:
    live, current = state.live(name, arch), state.current(name, arch)
    taken_back = _withdrawn_builds(state, name, arch)
    if to is None:
        same = [one.revision for one in live if current and one.build == current.build]
        older = [o for o in live if same and o.revision < same[0] and o.build not in taken_back]
        if not older:
            raise UsageError(f"{name} ({arch}) has no older build to go back to", hint=_LIST)
        return older[-1]
    for release in live:
        if release.revision == to and current and release.build == current.build:
            raise UsageError(f"the build of revision {to} is what clients of {name} get now")
        if release.revision == to and release.build not in taken_back:
            return release
    raise UsageError(
        f"cannot go back to revision {to} of {name}: {_why_not(state, name, arch, to)}"
    )


def _why_not(state: State, name: str, arch: str, revision: int) -> str:
    meant = [one for one in state.history(name, arch) if one.revision == revision]
    if not meant or meant[0].image is None:
        return "there is no such release"
    if revision in state.withdrawn(name, arch):
        return "it was withdrawn"
    if meant[0].build in _withdrawn_builds(state, name, arch):
        return "its build was withdrawn"
    if meant[0].public in state.retired:
        return "its build was removed by repo gc"
    return "a later release cannot be read, which may have withdrawn it"


def _withdrawn_builds(state: State, name: str, arch: str) -> frozenset[str | None]:
    revisions = state.withdrawn(name, arch)
    return frozenset(one.build for one in state.history(name, arch) if one.revision in revisions)
