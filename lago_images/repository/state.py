"""What is in a repository, read once: the value that every decision and rendering starts from."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lago_images.errors import NotFoundError, RepositoryError
from lago_images.repository import cache as caching
from lago_images.repository.check import manifest_problems, release_problems
from lago_images.repository.layout import (
    BUILDS,
    PUBLISHED,
    RELEASES,
    BuildKey,
    ReleaseKey,
    build_key,
    release_key,
)
from lago_images.repository.manifest import Manifest, canonical
from lago_images.repository.release import Release
from lago_images.storage.base import Stat, Store

Image = tuple[str, str]
_ATTEMPTS = 5
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The commit published last, and its object's ETag."""

    commit: str
    etag: str

    @staticmethod
    def to_json(commit: str) -> bytes:
        return canonical({"schema": _SCHEMA, "commit": commit})


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A repository at one moment. An image is a (name, arch).

    Attributes:
        releases: By image, ascending by revision; withdrawals included.
        manifests: Of every build that has a readable one.
        incomplete: Builds whose disk, hash or metadata is not there as the manifest has it.
        unreadable: Builds without a release whose manifest is not one, each with what is wrong.
        objects: Everything listed under ``builds/`` and ``releases/``, by key.
        published: The commit published last; None for a repository that never was.
    """

    releases: Mapping[Image, tuple[Release, ...]]
    manifests: Mapping[BuildKey, Manifest]
    incomplete: frozenset[BuildKey]
    unreadable: Mapping[BuildKey, str]
    objects: Mapping[str, Stat]
    published: Published | None

    @property
    def images(self) -> tuple[Image, ...]:
        """All images that ever had a release, sorted."""
        return tuple(sorted(self.releases))

    def history(self, name: str, arch: str) -> tuple[Release, ...]:
        """All releases and withdrawals of an image, ascending by revision."""
        return self.releases.get((name, arch), ())

    def newest(self, name: str, arch: str) -> int:
        """The highest revision number taken; 0 for none."""
        history = self.history(name, arch)
        return history[-1].revision if history else 0

    def withdrawn(self, name: str, arch: str) -> frozenset[int]:
        """The revisions that were taken back."""
        return withdrawn(self.history(name, arch))

    def live(self, name: str, arch: str) -> tuple[Release, ...]:
        """The releases that clients are offered: of a complete build, and not withdrawn."""
        return tuple(
            release
            for release in standing(self.history(name, arch))
            if self.manifest(release) is not None
        )

    def current(self, name: str, arch: str) -> Release | None:
        """The newest release that clients are offered."""
        live = self.live(name, arch)
        return live[-1] if live else None

    def manifest(self, release: Release) -> Manifest | None:
        """The manifest of a release's build; None for a withdrawal or an incomplete build."""
        key = build_of(release)
        return None if key is None or key in self.incomplete else self.manifests.get(key)

    def unreleased(self, fingerprint: str | None = None) -> tuple[Manifest, ...]:
        """Complete builds that were never released, the newest first: what can be promoted."""
        released = {build_of(release) for all_ in self.releases.values() for release in all_}
        found = (
            manifest
            for key, manifest in self.manifests.items()
            if key not in released
            and key not in self.incomplete
            and fingerprint in (None, manifest.fingerprint)
        )
        return tuple(sorted(found, key=lambda m: (-m.created, m.key)))


def build_of(release: Release) -> BuildKey | None:
    """The build a release makes public; None for a withdrawal."""
    if release.build is None:
        return None
    return BuildKey(name=release.name, arch=release.arch, build_id=release.build)


def withdrawn(history: Iterable[Release]) -> frozenset[int]:
    """The revisions that a history takes back."""
    return frozenset(release.withdraws for release in history if release.withdraws is not None)


def standing(history: tuple[Release, ...]) -> tuple[Release, ...]:
    """The releases of a history that name a build and were not withdrawn."""
    gone = withdrawn(history)
    return tuple(r for r in history if r.build is not None and r.revision not in gone)


def read(store: Store) -> State:
    """The state of a repository: the list pages, and one GET for each document not seen before.

    Raises:
        RepositoryError: A release cannot be read, or its build has no readable manifest.
        StorageError: The store did not answer; nothing is concluded from that.
    """
    attempt = 1
    while True:
        try:
            return _read(store)
        except (NotFoundError, _MissingError):
            # Something was deleted between two requests (gc), or is really gone.
            if attempt == _ATTEMPTS:
                raise
        attempt += 1


class _MissingError(RepositoryError):
    """A release's build has no manifest in the listing."""


def _read(store: Store) -> State:
    cache = caching.load(store)
    published = read_published(store)
    # Releases first: the build of a release that was listed is there to be listed.
    releases = list(store.list(RELEASES))
    builds = list(store.list(BUILDS))
    places = {stat.key: release_key(stat.key) for stat in releases}
    makers = {stat.key: build_key(stat.key) for stat in builds}
    wanted = [s for s in releases if places[s.key]] + [s for s in builds if makers[s.key]]
    found, anew = caching.documents(store, cache, wanted)
    state = _assemble(found, places, makers, {s.key: s for s in (*releases, *builds)}, published)
    if anew:
        caching.save(store, found)
    return state


def read_published(store: Store) -> Published | None:
    """The commit published last; None only if the store says that there is none."""
    try:
        blob = store.get(PUBLISHED)
    except NotFoundError:
        return None
    try:
        plain = json.loads(blob.data)
        if plain["schema"] == _SCHEMA and isinstance(plain["commit"], str):
            return Published(commit=plain["commit"], etag=blob.etag)
    except (ValueError, TypeError, KeyError):
        pass
    raise RepositoryError(
        f"{PUBLISHED} in {store.url} is not a record of a published commit",
        hint=f"delete {PUBLISHED}: the next plan then compares all fingerprints",
    )


def _assemble(
    found: caching.Cache,
    places: Mapping[str, ReleaseKey | None],
    makers: Mapping[str, BuildKey | None],
    objects: Mapping[str, Stat],
    published: Published | None,
) -> State:
    releases = _releases(found, places)
    manifests, unreadable = _manifests(found, makers)
    _refuse_lost(releases, manifests, unreadable)
    return State(
        releases=releases,
        manifests=manifests,
        incomplete=frozenset(k for k, m in manifests.items() if not _complete(m, objects)),
        unreadable=unreadable,
        objects=objects,
        published=published,
    )


def _releases(
    found: caching.Cache, places: Mapping[str, ReleaseKey | None]
) -> dict[Image, tuple[Release, ...]]:
    by_image: dict[Image, list[Release]] = {}
    for name, key in places.items():
        if key is None:
            continue
        try:
            release = _release(found.entries[name][1], key)
        except RepositoryError as error:
            error.hint = error.hint or "restore it from a copy; repo verify lists all there is"
            raise
        by_image.setdefault((key.name, key.arch), []).append(release)
    return {
        image: tuple(sorted(history, key=lambda r: r.revision))
        for image, history in by_image.items()
    }


def _release(document: object, key: ReleaseKey) -> Release:
    release = Release.from_plain(caching.refuse_text(document, str(key)), str(key))
    if problems := release_problems(release, key):
        raise RepositoryError(f"{key} is not a release: {'; '.join(problems)}")
    return release


def _manifests(
    found: caching.Cache, makers: Mapping[str, BuildKey | None]
) -> tuple[dict[BuildKey, Manifest], dict[BuildKey, str]]:
    manifests: dict[BuildKey, Manifest] = {}
    unreadable: dict[BuildKey, str] = {}
    for name, key in makers.items():
        if key is None:
            continue
        try:
            manifests[key] = _manifest(found.entries[name][1], key)
        except RepositoryError as error:
            unreadable[key] = error.message
    return manifests, unreadable


def _manifest(document: Any, key: BuildKey) -> Manifest:  # noqa: ANN401 -- any JSON
    manifest = Manifest.from_plain(caching.refuse_text(document, key.manifest), key.manifest)
    if problems := manifest_problems(manifest, key):
        raise RepositoryError(f"{key.manifest} is not a manifest: {'; '.join(problems)}")
    return manifest


def _refuse_lost(
    releases: Mapping[Image, tuple[Release, ...]],
    manifests: Mapping[BuildKey, Manifest],
    unreadable: Mapping[BuildKey, str],
) -> None:
    """A public image whose record is lost must not silently leave the index."""
    for history in releases.values():
        for release in standing(history):
            key = build_of(release)
            if key is None or key in manifests:
                continue
            hint = f"restore it from a copy, or withdraw the revision: repo yank {release.name}"
            if key in unreadable:
                raise RepositoryError(f"release {release.key}: {unreadable[key]}", hint=hint)
            raise _MissingError(f"{release.key} names {key.manifest}, which is lost", hint=hint)


def _complete(manifest: Manifest, objects: Mapping[str, Stat]) -> bool:
    key = manifest.key
    disk = objects.get(key.disk)
    has_rest = key.hash in objects and key.metadata in objects
    return has_rest and disk is not None and disk.size == manifest.disk.compressed_size
