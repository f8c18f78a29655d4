"""The records behind the published files: every release and manifest, read anew and believed least.

Unlike ``state.read`` this stops at nothing, and trusts no cache: it is for finding all that is
wrong at once.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lago_images.console import human_size
from lago_images.errors import NotFoundError, RepositoryError, StorageError
from lago_images.repository.records import layout
from lago_images.repository.records.layout import (
    BUILDS,
    RELEASES,
    STATE,
    BuildKey,
    ImageId,
    ReleaseKey,
    build_key,
    owner,
    release_key,
    retired_build,
)
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.reading import THREADS
from lago_images.repository.records.release import Release
from lago_images.repository.records.state import (
    State,
    build_of,
    histories,
    is_complete,
    read_published,
    standing,
)
from lago_images.repository.rendering.lago import version_name
from lago_images.repository.verifying.findings import Finding, note, problem, yank
from lago_images.storage.base import Store
from lago_images.storage.s3.multipart import lists_uploads

_RESTORE = "restore it from a copy"
_GC = "lago-images repo gc removes it when the grace period is over"
_T = TypeVar("_T")


def examine(store: Store) -> tuple[State, list[Finding]]:
    """The state as far as it can be read, and all that is wrong with what it is read from."""
    findings: list[Finding] = []
    # Releases first: the build of a release that was listed is there to be listed.
    listed = {stat.key: stat for stat in store.list(RELEASES)}
    listed |= {s.key: s for s in store.list() if not s.key.startswith(RELEASES)}
    retired = frozenset(key for name in listed if (key := retired_build(name)))
    releases = _read_all(
        ((name, place) for name in listed if (place := release_key(name))),
        lambda name, place: _release(store, name, place),
        findings,
    )
    manifests = _read_all(
        ((n, key) for n in listed if (key := build_key(n)) and key not in retired),
        lambda name, key: _manifest(store, name, key),
        findings,
    )
    state = State(
        releases=histories(releases),
        manifests={manifest.key: manifest for manifest in manifests},
        incomplete=frozenset(m.key for m in manifests if not is_complete(m, listed)),
        unreadable={},
        objects=listed,
        published=None,
        retired=retired,
    )
    try:
        read_published(store)
    except RepositoryError as error:
        findings.append(problem(layout.PUBLISHED, error.message, error.hint or _RESTORE))
    findings += [*_histories_wrong(state), *_orphans(state), *_strangers(listed)]
    return state, findings


def against_index(state: State, revisions: dict[ImageId, int]) -> Iterator[Finding]:
    """Whether clients were already told of revisions that the history does not have."""
    for image, revision in sorted(revisions.items()):
        newest = state.newest(*image)
        if revision > newest:
            what = f"{image}: revision {revision} is published, the history ends at {newest}"
            yield problem(
                layout.INDEX,
                what,
                "the repository went back in time: restore releases/ from a newer copy; else every "
                f"client that has revision {revision} keeps it",
            )


def unfinished(store: Store, before: float) -> Iterator[Finding]:
    """The uploads of disks that were begun before a time, in seconds since the epoch.

    A store that cannot list them is no worse for it.
    """
    try:
        for upload in store.unfinished(BUILDS):
            if upload.begun < before and owner(upload.key):
                yield note(upload.key, "an upload of it was broken off", _GC)
    except StorageError as error:
        if lists_uploads(error):
            yield note(BUILDS, f"unfinished uploads are not known: {error.message}")


def _read_all(
    keys: Iterable[tuple[str, BuildKey | ReleaseKey]],
    read: Callable[..., _T | Finding | None],
    findings: list[Finding],
) -> list[_T]:
    found: list[_T] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for one in pool.map(lambda pair: read(*pair), list(keys)):
            if isinstance(one, Finding):
                findings.append(one)
            elif one is not None:
                found.append(one)
    return found


def _release(store: Store, name: str, key: ReleaseKey) -> Release | Finding:
    try:
        return Release.parse(store.get(name).data, key)
    except RepositoryError as error:
        return problem(name, error.message, f"{_RESTORE}: no run reads this repository before")


def _manifest(store: Store, name: str, key: BuildKey) -> Manifest | Finding | None:
    try:
        return Manifest.parse(store.get(name).data, key)
    except NotFoundError:
        return None
    except RepositoryError as error:
        # Whether it matters shows where a release names it.
        return note(name, error.message, _GC)


def _histories_wrong(state: State) -> Iterator[Finding]:
    for image in state.images:
        history = state.history(*image)
        yield from _numbers(history, state.objects.keys())
        yield from _builds(state, history)
        yield from _versions(state, history)


def _numbers(history: tuple[Release, ...], listed: Iterable[str]) -> Iterator[Finding]:
    """Revisions begin at 1 and leave none out: each is taken by creating the next."""
    there = set(listed)
    known = {release.revision for release in history}
    for number in range(1, history[-1].revision):
        key = ReleaseKey(name=history[0].name, arch=history[0].arch, revision=number)
        if str(key) not in there:
            yield problem(str(key), "the history has a gap: it is not there", _RESTORE)
    for release in history:
        withdraws = release.withdraws
        if withdraws is not None and (withdraws >= release.revision or withdraws not in known):
            what = f"it withdraws revision {withdraws}, which is not there"
            yield problem(str(release.key), what, _RESTORE)


def _builds(state: State, history: tuple[Release, ...]) -> Iterator[Finding]:
    for release in standing(history):
        key, where = build_of(release), str(release.key)
        if key is None or key in state.retired:
            continue
        command = yank(release.name, release.arch, release.revision, reason="lost")
        repair = f"restore {key.folder} from a copy; or withdraw it: {command}"
        manifest = state.manifests.get(key)
        if manifest is None:
            yield problem(where, f"its manifest {key.manifest} is lost or damaged", repair)
        elif key in state.incomplete:
            yield problem(where, f"disk, hash or metadata in {key.folder} is lost", repair)
        elif manifest.fingerprint != release.fingerprint:
            yield problem(where, f"its fingerprint is not that of {key.manifest}", repair)


def _versions(state: State, history: tuple[Release, ...]) -> Iterator[Finding]:
    """A lago version never means two contents."""
    seen: dict[str, Release] = {}
    for release in standing(history):
        manifest = state.manifest(release)
        if manifest is None:
            continue
        name = version_name(release, manifest)
        other = seen.setdefault(name, release)
        if other is not release:
            what = f"version {name} is also that of revision {other.revision}"
            repair = yank(other.name, other.arch, other.revision, reason="a version of two builds")
            yield problem(str(release.key), what, repair)


def _orphans(state: State) -> Iterator[Finding]:
    named = {build_of(one) for history in state.releases.values() for one in history}
    sizes: dict[BuildKey, int] = {}
    for name, stat in state.objects.items():
        if key := owner(name):
            sizes[key] = sizes.get(key, 0) + stat.size
    for key, size in sorted(sizes.items()):
        if key in state.retired:
            yield note(key.folder, f"it is retired and still there: {human_size(size)}", _GC)
        elif key.manifest not in state.objects and key not in named:
            yield note(key.folder, f"an upload without a manifest: {human_size(size)}", _GC)
        elif key in state.incomplete and key not in named:
            yield note(key.folder, f"never released, and incomplete: {human_size(size)}", _GC)
        elif key in state.manifests and key not in named:
            yield note(key.folder, f"built and never released: {human_size(size)}", _GC)


def _strangers(listed: Iterable[str]) -> Iterator[Finding]:
    for name in sorted(listed):
        if name.startswith(BUILDS):
            known = owner(name) is not None
        elif name.startswith(RELEASES):
            known = release_key(name) is not None or retired_build(name) is not None
        else:
            rendered = name in layout.RENDERED or name.startswith(("index-", "key-"))
            known = rendered or name.startswith(STATE)
        if not known:
            yield note(name, "nothing of lago-images' has this name", "remove it if it is yours")
