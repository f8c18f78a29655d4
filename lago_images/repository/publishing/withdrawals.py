"""Withdraw a revision of an image, or go back to an older build of it, as operators do.

Both only add releases, by the same creation that publishers use, and render afterwards; so they
may be called beside running publishers, and a crash between the two is made up for by whoever
renders next. Other images may contain what is taken back: layers, by the base that their releases
bind. These are named, and taken along when that is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lago_images.errors import RepositoryError, UsageError
from lago_images.repository.publishing.publisher import Publisher, Refreshed
from lago_images.repository.publishing.releasing import create, following
from lago_images.repository.records.layout import (
    NAME,
    RELEASES,
    BuildKey,
    ImageId,
    release_key,
)
from lago_images.repository.records.release import Release, Released
from lago_images.repository.records.standing import History, standing
from lago_images.repository.records.state import State, read, survey
from lago_images.specs.choosing import did_you_mean
from lago_images.storage.base import Store

_LIST = "lago-images repo list --state any shows every image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """Name what a withdrawal or rollback would touch.

    Attributes:
        target: The release to withdraw, or to go back to.
        build: The build that is taken back.
        layers: The offered releases of other images that contain it, the nearest first.
        withdrawn: The revisions that would be withdrawn, that which is meant first.
        current: The revision that clients would get; None when the image would be offered no more.
        state: The repository that this was found in.
    """

    target: Release
    build: BuildKey
    layers: tuple[Release, ...]
    withdrawn: tuple[int, ...] = ()
    current: int | None
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryChange:
    """The outcome of a withdrawal or rollback for one image.

    Attributes:
        name: The image's.
        arch: Its architecture.
        about: The revision that was withdrawn, or rolled back to.
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
    arch = arch_of(store, name, arch)
    state = read(store)
    target = _to_withdraw(state, name, arch, revision)
    build = BuildKey(name=name, arch=arch, build_id=target.build or "")
    left = _of_build(state, state.history(name, arch), target)
    kept = [each.revision for each in state.live(name, arch) if each not in left]
    return Affected(
        target=target,
        build=build,
        layers=containing(state, build),
        withdrawn=tuple(each.revision for each in left),
        current=kept[-1] if kept else None,
        state=state,
    )


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
    affected = look_at_yank(publisher.store, name, revision=revision, arch=arch)
    target = affected.target
    withdrawals = _withdraw(publisher, target, reason, released, affected.state)
    taken: list[Release] = []
    if with_layers:
        why = f"it contains {name} {target.revision}: {reason}"
        # Read again: a layer may have been released on it since.
        for layer in containing(read(publisher.store), affected.build):
            taken += _withdraw(publisher, layer, why, released, affected.state)
    refreshed = publisher.refresh()
    layers = containing(refreshed.state, affected.build)
    return _change(affected, refreshed, withdrawals, taken, layers)


def containing(state: State, build: BuildKey) -> tuple[Release, ...]:
    """Find the offered releases of layers that stand on a build, and the layers on these."""
    on: dict[BuildKey, list[Release]] = {}
    for image in state.images:
        for release in state.live(*image):
            if release.manifest and (base := release.manifest.base_key):
                on.setdefault(base, []).append(release)
    # Breadth first, so that the nearest come first; a layer on two of them is named once.
    layers: dict[str, Release] = {}
    builds = [build]
    while builds:
        for release in on.get(builds.pop(0), ()):
            if str(release.key) not in layers and release.manifest:
                layers[str(release.key)] = release
                builds.append(release.manifest.key)
    return tuple(layers.values())


def _withdraw(
    publisher: Publisher,
    target: Release,
    reason: str,
    released: Released,
    state: State,
) -> list[Release]:
    """Withdraw the revision of a release, and every other that offers its build."""

    def decide(history: History) -> Release | None:
        left = _of_build(state, history, target)
        if not left:
            return None
        about, now = left[0].revision, publisher.now()
        return following(
            left[0], history, now, image=None, withdraws=about, reason=reason, released=released
        )

    # One release for each revision, each decided with all before it in view: a publisher may
    # release the build again between two of them.
    withdrawals: list[Release] = []
    while withdrawal := create(publisher.store, target.name, target.arch, decide):
        withdrawals.append(withdrawal)
    return withdrawals


def _of_build(state: State, history: History, target: Release) -> list[Release]:
    """Return what stands in a history of a release and of all others that offer its build.

    The revision that is meant comes first: a crash after it leaves what was asked for.
    """
    left = [
        release
        for release in standing(history)
        if release.revision == target.revision
        or (release.build == target.build and release.public not in state.retired)
    ]
    return sorted(left, key=lambda each: (each.revision != target.revision, -each.revision))


def _change(
    affected: Affected,
    refreshed: Refreshed,
    releases: Sequence[Release],
    taken: Sequence[Release],
    layers: Sequence[Release],
) -> HistoryChange:
    """Return the outcome for an image, from the releases that were made and their rendering."""
    target = affected.target
    return HistoryChange(
        name=target.name,
        arch=target.arch,
        about=target.revision,
        release=releases[0] if releases else None,
        current=refreshed.state.current(target.name, target.arch),
        written=refreshed.written,
        withdrawn=tuple(each.withdraws for each in releases if each.withdraws is not None),
        layers=tuple(layers),
        taken=tuple(taken),
    )


def look_at_rollback(store: Store, name: str, *, to: int | None = None, arch: str = "") -> Affected:
    """Find what ``rollback`` would go back to; reads only, and raises as ``rollback`` does."""
    arch = arch_of(store, name, arch)
    # Not `read`: only a survey lists the public copies, and so tells which of them are whole.
    state = survey(store)
    target, current = _to_go_back_to(state, name, arch, to), state.current(name, arch)
    build = BuildKey(name=name, arch=arch, build_id=(current and current.build) or "")
    return Affected(
        target=target,
        build=build,
        layers=_current_layers(state, build),
        current=state.newest(name, arch) + 1,
        state=state,
    )


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
    affected = look_at_rollback(publisher.store, name, to=to, arch=arch)
    target, state = affected.target, affected.state
    releases = _go_back(publisher, state, target, reason, released)
    taken: list[Release] = []
    for layer in affected.layers if with_layers else ():
        if older := older_without(state, layer, affected.build):
            why = f"its base {name} went back to revision {target.revision}"
            taken += _go_back(publisher, state, older, why, released)
    refreshed = publisher.refresh()
    # A sweep that listed before our release was created could not know that the copy is needed.
    if target.public in refreshed.state.retired:
        yank(publisher, name, reason="repo gc removes its build", released=released,
             revision=releases[0].revision, arch=target.arch)  # fmt: skip
        raise RepositoryError(
            f"repo gc began to remove the build of revision {target.revision} at the same moment",
            hint=f"what was current still is; build it again: lago-images ci rebuild {name}",
        )
    layers = _current_layers(refreshed.state, affected.build)
    return _change(affected, refreshed, releases, taken, layers)


def _go_back(
    publisher: Publisher, state: State, target: Release, reason: str, released: Released
) -> list[Release]:
    """Release the build of an older release again; returns that release alone."""
    if state.stored(target) is None:
        raise RepositoryError(
            f"the public copy of revision {target.revision} of {target.name} is not whole",
            hint="lago-images repo verify names what is lost",
        )
    seen, now = state.newest(target.name, target.arch), publisher.now()

    def decide(history: History) -> Release:
        # What was released since may be the very repair, and the operator has not seen it.
        if not history or history[-1].revision != seen:
            raise RepositoryError(
                f"{target.name} was published meanwhile: its newest revision is no longer {seen}",
                hint="lago-images repo list shows it; roll back again if that is still wanted",
            )
        why = f"back to revision {target.revision}" + (f": {reason}" if reason else "")
        return following(target, history, now, reason=why, released=released)

    release = create(publisher.store, target.name, target.arch, decide)
    return [release] if release else []


def _current_layers(state: State, build: BuildKey) -> tuple[Release, ...]:
    """Return the current releases of layers that contain a build."""
    layers = containing(state, build)
    return tuple(layer for layer in layers if layer == state.current(*layer.key.image))


def older_without(state: State, layer: Release, build: BuildKey) -> Release | None:
    """Return the newest older release of a layer that does not contain a build; None for none."""
    image = layer.key.image
    tainted = {each.build for each in containing(state, build) if each.key.image == image}
    tainted |= _withdrawn_builds(state, *image)
    older = (each for each in state.live(*image) if each.revision < layer.revision)
    clean = [each for each in older if each.build not in tainted]
    return clean[-1] if clean else None


def arch_of(store: Store, name: str, arch: str = "") -> str:
    """Return the architecture that is meant of an image: ``arch``, else the only one it has.

    Raises ``UsageError`` for an image that was never published, and for several without ``arch``.
    """
    # It becomes part of a list's prefix: with a slash it would reach below another image's.
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not an image's name", hint=_LIST)
    keys = (release_key(stat.key) for stat in store.list(f"{RELEASES}{name}/"))
    architectures = sorted({key.arch for key in keys if key})
    if not architectures:
        published = {key.name for stat in store.list(RELEASES) if (key := release_key(stat.key))}
        hint = did_you_mean(name, published, _LIST)
        raise UsageError(f"{name} was never published in {store.url}", hint=hint)
    if arch:
        return arch
    if len(architectures) > 1:
        shown = ", ".join(architectures)
        raise UsageError(f"{name} is published for {shown}", hint="say which: --arch")
    return architectures[0]


def _to_withdraw(state: State, name: str, arch: str, revision: int | None) -> Release:
    """Find the release that is to be withdrawn; what clients get now if no revision is named."""
    if revision is None:
        # It is above all that is damaged, which may have withdrawn what is below.
        if current := state.current(name, arch):
            return current
        image, unknown = ImageId(name, arch), state.damaged_unaccepted.items()
        if damaged := [why for key, why in unknown if key.image == image]:
            raise UsageError(
                f"which revision of {name} is meant is not known: {'; '.join(damaged)}",
                hint="restore it from a copy first; lago-images repo verify names all damage",
            )
        raise UsageError(f"{name} ({arch}) has no revision that is offered", hint=_shown(name))
    for release in state.history(name, arch):
        if release.revision == revision and release.image is not None:
            return release
    raise UsageError(f"{name} ({arch}) has no release {revision}", hint=_shown(name))


def _to_go_back_to(state: State, name: str, arch: str, to: int | None) -> Release:
    live, current = state.live(name, arch), state.current(name, arch)
    taken_back = _withdrawn_builds(state, name, arch)
    if to is None:
        same = [release.revision for release in live if current and release.build == current.build]
        older = [o for o in live if same and o.revision < same[0] and o.build not in taken_back]
        if not older:
            raise UsageError(f"{name} ({arch}) has no older build to go back to", hint=_shown(name))
        return older[-1]
    for release in live:
        if release.revision == to and current and release.build == current.build:
            raise UsageError(f"the build of revision {to} is what clients of {name} get now")
        if release.revision == to and release.build not in taken_back:
            return release
    raise UsageError(
        f"cannot go back to revision {to} of {name}: {_why_not(state, name, arch, to)}",
        hint=_shown(name),
    )


def _shown(name: str) -> str:
    return f"lago-images repo show {name} shows its revisions, and what became of each"


def _why_not(state: State, name: str, arch: str, revision: int) -> str:
    meant = [release for release in state.history(name, arch) if release.revision == revision]
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
    return frozenset(
        release.build for release in state.history(name, arch) if release.revision in revisions
    )
