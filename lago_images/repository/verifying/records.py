"""Check the records behind the published files: all are read anew, and believed least.

Unlike ``state.read`` this trusts no cache: it is for finding all that is wrong at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from lago_images.console import first_of, human_size
from lago_images.errors import NotFoundError, RepositoryError, StorageError
from lago_images.host.threads import side_by_side
from lago_images.repository.records import layout
from lago_images.repository.records.layout import (
    BUILDS,
    IMAGES,
    RELEASES,
    STATE,
    BuildFolder,
    BuildKey,
    ImageId,
    LossKey,
    OutdatedKey,
    ReleaseKey,
    loss_key,
    outdated_key,
    owner,
    release_key,
    retired_copy,
    staged_build,
)
from lago_images.repository.records.loss import AcceptedLoss, accepted_losses, covers
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.outdated import (
    NewestRecord,
    Outdated,
    about,
    by_image,
    newest_records,
)
from lago_images.repository.records.parsing import SchemaError, size_problem
from lago_images.repository.records.reading import THREADS
from lago_images.repository.records.release import Release, ReleasedImage
from lago_images.repository.records.standing import standing
from lago_images.repository.records.state import (
    State,
    histories,
    is_complete,
    lost_copies,
    read_published,
)
from lago_images.repository.rendering.index import conflicting_aliases
from lago_images.repository.rendering.lago import version_name
from lago_images.repository.rendering.views import day
from lago_images.repository.verifying.findings import (
    RESTORE,
    RESTORE_RECORD,
    RESTORE_WITH_OTHERS,
    WENT_BACK,
    Finding,
    lost_record,
    note,
    problem,
    restore_or_withdraw,
    yank,
)
from lago_images.storage.base import Store
from lago_images.storage.s3.multipart import lists_uploads

_SEVERAL, _SHOWN = 2, 3
_RESTORE_ALL = (
    f"first restore them all from a copy of {RELEASES}, then verify again: until then no revision "
    "before one of them is offered, and what else is wrong may come of that"
)
_GC = "lago-images repo gc removes it when the grace period is over"
_NO_GC = (
    "restore what is missing in the history first: until then lago-images repo gc removes nothing"
)
_KEPT = "restore the damaged release first: until then lago-images repo gc keeps it"
_LEAVE = "leave it, or move it elsewhere: lago-images does not use it"
_T = TypeVar("_T")


def examine(store: Store) -> tuple[State, list[Finding]]:
    """Read the state as far as it can be read, and find all that is wrong with its records.

    Raises ``SchemaError`` for a repository of another version of lago-images.
    """
    findings: list[Finding] = []
    # Releases first: the public copy of a release that was listed is listed too.
    listed = {stat.key: stat for stat in store.list(RELEASES)}
    listed |= {s.key: s for s in store.list() if not s.key.startswith(RELEASES)}
    accepted = _read_all(
        ((name, at) for name in listed if (at := loss_key(name))),
        lambda name, key: _loss(store, name, key),
        findings,
    )
    losses = {loss.key: loss for loss in accepted}
    places = [(name, place) for name in listed if (place := release_key(name))]
    releases = _read_all(places, lambda name, place: _release(store, name, place, losses), findings)
    readable = {release.key for release in releases}
    manifests = _read_all(
        ((name, key) for name in listed if (key := staged_build(name))),
        lambda name, key: _manifest(store, name, key),
        findings,
    )
    damaged = {key: f"{key} cannot be read" for _, key in places if key not in readable}
    state = State(
        releases=histories(releases),
        damaged=damaged,
        objects=listed,
        published=None,
        retired=frozenset(copy for name in listed if (copy := retired_copy(name))),
        accepted=accepted_losses(store, listed, damaged) & losses.keys(),
        staged={manifest.key: manifest for manifest in manifests},
        incomplete=frozenset(m.key for m in manifests if not is_complete(m, listed)),
    )
    state = replace(state, lost=frozenset(lost_copies(state)))
    state = replace(state, outdated=_outdated(store, state, findings))
    try:
        read_published(store)
    except RepositoryError as error:
        findings.append(problem(layout.PUBLISHED, error.message, error.hint or RESTORE))
    findings += [
        *_histories_wrong(state, losses),
        *_aliases(state),
        *_orphans(state),
        *_strangers(listed),
    ]
    return state, _restored_together(findings)


def _restored_together(findings: list[Finding]) -> list[Finding]:
    """Say once, first, what to restore where several records are lost."""
    lost = [each.where for each in findings if each.repair == RESTORE_RECORD]
    if len(lost) < _SEVERAL:
        return findings
    message = f"several records are lost: {first_of(lost, _SHOWN)}"
    others = (
        replace(each, repair=RESTORE_WITH_OTHERS) if each.repair == RESTORE_RECORD else each
        for each in findings
    )
    return [lost_record(RELEASES, message, _RESTORE_ALL), *others]


def images(state: State) -> dict[BuildFolder, ReleasedImage]:
    """Return what the releases bind, by public copy."""
    every = (release.image for history in state.releases.values() for release in history)
    return {image.public: image for image in every if image}


def against_index(state: State, revisions: dict[ImageId, int]) -> Iterator[Finding]:
    """Find revisions that clients know already and that the history does not have."""
    for image, revision in sorted(revisions.items()):
        newest = state.newest(*image)
        if revision > newest:
            message = f"{image}: revision {revision} is published, the history ends at {newest}"
            yield lost_record(
                layout.INDEX,
                message,
                f"{WENT_BACK}; else every client that has revision {revision} keeps it",
            )


def without_gc(state: State, findings: Iterable[Finding]) -> list[Finding]:
    """Return findings of which none waits for ``repo gc`` while it clears nothing."""
    repair = _NO_GC if state.missing_unaccepted else _GC
    return [replace(each, repair=repair) if each.repair == _GC else each for each in findings]


def unfinished(store: Store, before: float) -> Iterator[Finding]:
    """Find the uploads that were begun before a time, in seconds since the epoch.

    A store that cannot list them is no worse for it.
    """
    try:
        for upload in (*store.unfinished(BUILDS), *store.unfinished(IMAGES)):
            if upload.begun < before and owner(upload.key):
                yield note(upload.key, "an upload of it was broken off", _GC)
    except StorageError as error:
        if lists_uploads(error):
            yield note(BUILDS, f"unfinished uploads are not known: {error.message}")


def _read_all(
    keys: Iterable[tuple[str, BuildKey | ReleaseKey | OutdatedKey | LossKey]],
    read: Callable[..., _T | Finding | None],
    findings: list[Finding],
) -> list[_T]:
    records: list[_T] = []
    with side_by_side(THREADS, "records") as workers:
        for outcome in workers.map(lambda pair: read(*pair), list(keys)):
            if isinstance(outcome, Finding):
                findings.append(outcome)
            elif outcome is not None:
                records.append(outcome)
    return records


def _outdated(store: Store, state: State, findings: list[Finding]) -> dict[ImageId, NewestRecord]:
    """Read all records of what is outdated; return those that count."""
    keys = ((name, key) for name in state.objects if (key := outdated_key(name)))
    records = _read_all(keys, lambda name, key: _record(store, state, name, key), findings)
    newest = newest_records(state.objects, state.current)
    return by_image(newest, {record.key: record for record in records})


def _record(store: Store, state: State, name: str, key: OutdatedKey) -> Outdated | Finding | None:
    """Read one; nothing but itself rests on it."""
    repair = "remove it: lago-images ci publish --outdated makes a new one"
    if wrong := size_problem(state.objects[name]):
        return note(name, f"it is not read: {wrong}", repair)
    try:
        record = Outdated.parse(store.get(name).data, key)
    # Removed since it was listed, as repo gc may do.
    except NotFoundError:
        return None
    except RepositoryError as error:
        return note(name, error.message, repair)
    releases = (r for r in state.history(key.name, key.arch) if r.key == key.release)
    if any(about(release, record) for release in releases):
        return record
    return note(name, f"it is about build {record.build}, and {key.release} is not", repair)


def _release(
    store: Store, name: str, key: ReleaseKey, losses: Mapping[LossKey, AcceptedLoss]
) -> Release | Finding:
    data = b""
    try:
        data = store.get(name).data
        return Release.parse(data, key)
    except SchemaError:
        raise
    except RepositoryError as error:
        covering = covers(losses, key)
        loss = losses[covering] if covering else None
        # Other bytes than those that somebody looked at are another loss.
        if loss and loss.is_of(data):
            return _accepted(name, error.message, loss)
        return lost_record(name, error.message, RESTORE_RECORD)


def _loss(store: Store, name: str, key: LossKey) -> AcceptedLoss | Finding | None:
    try:
        return AcceptedLoss.parse(store.get(name).data, key)
    # Removed since it was listed, by hand.
    except NotFoundError:
        return None
    except SchemaError:
        raise
    except RepositoryError as error:
        return problem(name, error.message, RESTORE)


def _accepted(where: str, what: str, loss: AcceptedLoss) -> Finding:
    by = loss.by.actor or "somebody"
    message = f"{what}; accepted as lost by {by} on {day(loss.accepted)}: {loss.reason}"
    return note(where, message, "none: no revision before it is offered")


def _manifest(store: Store, name: str, key: BuildKey) -> Manifest | Finding | None:
    try:
        data = store.get(name).data
        manifest = Manifest.parse(data, key)
    # Removed since it was listed, as builders and repo gc may do at any time.
    except NotFoundError:
        return None
    except RepositoryError as error:
        # Nothing public rests on what is staged.
        return note(name, error.message, _GC)
    if manifest.to_json() != data:
        return note(name, "it is not written as builders write it: it is not released", _GC)
    return manifest


def _histories_wrong(state: State, losses: Mapping[LossKey, AcceptedLoss]) -> Iterator[Finding]:
    for gap in state.missing:
        until = "" if gap.first == gap.last else f", as are all up to revision {gap.last}"
        message = f"the history has a gap: it is missing{until}"
        if accepted := covers(losses, gap):
            yield _accepted(str(gap.key), message, losses[accepted])
        else:
            yield lost_record(str(gap.key), message, RESTORE_RECORD)
    for image in state.images:
        history = state.history(*image)
        yield from _withdrawals(history, losses)
        yield from _copies(state, history)
        yield from _bases(state, image)
        yield from _versions(history)
        yield from _uncommitted(state, image)


def _aliases(state: State) -> Iterator[Finding]:
    """Name the aliases that rendering leaves out: users of them get another image, or none."""
    for image, conflicts in sorted(conflicting_aliases(state).items()):
        for alias, other in conflicts.items():
            message = f"{image} is not offered under its alias {alias!r}, which means {other}"
            repair = f"take the alias out of its spec, or withdraw {other}: lago-images repo yank"
            yield note(layout.INDEX, message, repair)


def _withdrawals(
    history: tuple[Release, ...], losses: Mapping[LossKey, AcceptedLoss]
) -> Iterator[Finding]:
    known = {release.revision for release in history}
    for release in history:
        withdraws = release.withdraws
        if withdraws is None:
            continue
        lost = ReleaseKey(name=release.name, arch=release.arch, revision=withdraws)
        is_earlier = withdraws < release.revision
        # What is accepted is told once, by the loss itself.
        if not is_earlier or (withdraws not in known and not covers(losses, lost)):
            message = f"it withdraws revision {withdraws}, which is missing"
            yield lost_record(str(release.key), message, RESTORE)


def _copies(state: State, history: tuple[Release, ...]) -> Iterator[Finding]:
    """Compare the public copies of releases, object by object, with the listing."""
    revisions: dict[BuildFolder, list[int]] = {}
    newest: dict[BuildFolder, Release] = {}
    for release in standing(history):
        if release.public and release.public not in state.retired:
            revisions.setdefault(release.public, []).append(release.revision)
            newest[release.public] = release
    for copy, release in newest.items():
        for file, expected in release.image.objects.items() if release.image else ():
            name = copy.folder + file
            # The listing has no digests; `verify --deep` reads the bytes of what is offered.
            stat = state.objects.get(name)
            if stat is None:
                repair = restore_or_withdraw(copy, revisions[copy], "lost")
                yield problem(name, f"{release.key} names it, and it is missing", repair)
            elif stat.size != expected.size:
                message = f"tampered: it has {stat.size} bytes, not {expected.size}"
                yield problem(name, message, restore_or_withdraw(copy, revisions[copy], "tampered"))


def _bases(state: State, image: ImageId) -> Iterator[Finding]:
    """Find offered layers whose base is not offered any more, or has other bytes."""
    for release in state.live(*image):
        base = release.image and release.image.base
        if not base:
            continue
        where, history = str(release.key), state.history(base.name, base.arch)
        repair = (
            f"lago-images repo yank {release.name} --arch {release.arch} "
            f"--revision {release.revision} --reason 'its base was withdrawn'"
        )
        # By the build, not the revision: a rollback offers the same build under a new one.
        if base.build not in {release.build for release in standing(history)}:
            message = f"it is offered, and its base {base.name} {base.revision} was withdrawn"
            yield problem(where, message, repair)
        for earlier in history:
            same = earlier.revision == base.revision and earlier.manifest is not None
            if same and earlier.manifest and earlier.manifest.disk.sha256 != base.sha256:
                yield problem(
                    where, f"tampered: its base is not what {earlier.key} released", repair
                )


def _versions(history: tuple[Release, ...]) -> Iterator[Finding]:
    """Find lago versions that mean two contents."""
    # lago keeps what it downloaded under the version's name, and never asks for that again: nobody
    # would notice two contents of one name.
    seen: dict[str, Release] = {}
    for release in standing(history):
        if release.manifest is None:
            continue
        name = version_name(release, release.manifest)
        other = seen.setdefault(name, release)
        if other is not release:
            message = f"version {name} is also that of revision {other.revision}"
            repair = yank(other.name, other.arch, other.revision, reason="a version of two builds")
            yield problem(str(release.key), message, repair)


def _uncommitted(state: State, image: ImageId) -> Iterator[Finding]:
    """Find an image of which no commit has the files that clients get now."""
    # Of an older revision nothing can be done any more: it stays what it was built from.
    release = state.current(*image)
    if release and release.dirty:
        message = "it was built from files that were not committed"
        repair = f"commit them; then lago-images ci rebuild {release.name}"
        yield note(str(release.key), message, repair)


def _orphans(state: State) -> Iterator[Finding]:
    # All of these are notes: crashes and slow builders leave such things, and repo gc knows them.
    released, bound = state.released_builds, images(state)
    damaged = {key.image for key in state.damaged}
    sizes: dict[BuildFolder, int] = {}
    for name, stat in state.objects.items():
        if folder := owner(name):
            sizes[folder] = sizes.get(folder, 0) + stat.size
            if folder in bound and name.removeprefix(folder.folder) not in bound[folder].objects:
                yield note(name, "no release names it", "remove it if it is not yours")
    for folder, size in sorted(sizes.items()):
        if folder in state.retired:
            yield note(folder.folder, f"it is retired and not yet deleted: {human_size(size)}", _GC)
        elif folder.root == IMAGES and folder not in bound:
            repair = _KEPT if folder.key.image in damaged else _GC
            yield note(folder.folder, f"a copy that no release names: {human_size(size)}", repair)
        elif folder.root == BUILDS and folder.key not in released:
            message = _why_staged(state, folder)
            if message:
                yield note(folder.folder, f"{message}: {human_size(size)}", _GC)


def _why_staged(state: State, folder: BuildFolder) -> str:
    if folder.manifest not in state.objects:
        return "an upload without a manifest"
    if folder.key in state.incomplete:
        return "never released, and incomplete"
    return "built and never released" if folder.key in state.staged else ""


def _strangers(listed: Iterable[str]) -> Iterator[Finding]:
    for name in sorted(listed):
        if name.startswith((BUILDS, IMAGES)):
            known = owner(name) is not None
        elif name.startswith(RELEASES):
            known = any(read(name) for read in (release_key, retired_copy, outdated_key, loss_key))
        else:
            known = layout.is_rendered(name) or name.startswith(STATE)
        if not known:
            where = name if name.isprintable() else ascii(name)
            yield note(where, "nothing of lago-images' has this name", _LEAVE)
