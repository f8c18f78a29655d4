"""What is in a repository, read once: the value that every decision and rendering starts from."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from lago_images.errors import NotFoundError, RepositoryError
from lago_images.repository import cache as caching
from lago_images.repository.documents import CacheError, Found, read_manifest, read_release
from lago_images.repository.layout import (
    BUILDS,
    MANIFEST,
    PUBLISHED,
    RELEASES,
    BuildKey,
    ReleaseKey,
    build_key,
    release_key,
    retired_build,
)
from lago_images.repository.manifest import Manifest, canonical
from lago_images.repository.parsing import parse_json
from lago_images.repository.release import Release
from lago_images.storage.base import Stat, Store

Image = tuple[str, str]
_ATTEMPTS = 5
# Parts of a list that are asked for side by side, and the releases from which a part is worth it.
_PARTS = 8
_LONG = 300
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCommit:
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
        retired: Builds that are offered no more, and that ``repo gc`` removes or has removed:
            they count as gone, whatever is left of them. Once retired is retired for good.
    """

    releases: Mapping[Image, tuple[Release, ...]]
    manifests: Mapping[BuildKey, Manifest]
    incomplete: frozenset[BuildKey]
    unreadable: Mapping[BuildKey, str]
    objects: Mapping[str, Stat]
    published: PublishedCommit | None
    retired: frozenset[BuildKey] = frozenset()

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
        cache = caching.load(store)
        try:
            return _read(store, cache)
        except (NotFoundError, _MissingError):
            # Something was deleted between two requests (gc), or is really gone.
            if attempt == _ATTEMPTS:
                raise
        except CacheError:
            return _read(store, replace(cache, entries={}))
        attempt += 1


class _MissingError(RepositoryError):
    """A release's build has no manifest in the listing."""


def _read(store: Store, cache: caching.Cache) -> State:
    published = read_published(store)
    # Releases first: the build of a release that was listed is there to be listed.
    releases = list(store.list(RELEASES))
    places = {s.key: place for s in releases if (place := release_key(s.key))}
    builds = list(store.list(BUILDS, marks=_marks(places.values())))
    retired = frozenset(key for s in releases if (key := retired_build(s.key)))
    makers = {
        s.key: key
        for s in builds
        if s.key.endswith(MANIFEST) and (key := build_key(s.key)) and key not in retired
    }
    objects = {stat.key: stat for stat in (*releases, *builds)}
    wanted = [objects[key] for key in (*places, *makers)]
    entries, fresh = caching.documents(store, cache, wanted)
    found = Found(entries=entries, fresh=fresh)
    state = replace(_assemble(found, places, makers, objects, retired), published=published)
    bad = {key.manifest for key in state.unreadable}
    if not fresh <= bad:
        good = {key: entry for key, entry in entries.items() if key not in bad}
        caching.save(store, replace(cache, entries=good))
    return state


def _marks(releases: Iterable[ReleaseKey]) -> list[str]:
    """Keys that cut the list of builds, if it is long, into parts that are about as long.

    A build has seven objects or so; a page has 1,000.
    """
    names = sorted(key.name for key in releases)
    step = len(names) // _PARTS
    return sorted({f"{BUILDS}{name}/" for name in names[step::step]}) if step >= _LONG else []


def read_published(store: Store) -> PublishedCommit | None:
    """The commit published last; None only if the store says that there is none."""
    try:
        blob = store.get(PUBLISHED)
    except NotFoundError:
        return None
    try:
        plain = parse_json(blob.data, PUBLISHED)
        if plain["schema"] == _SCHEMA and isinstance(plain["commit"], str):
            return PublishedCommit(commit=plain["commit"], etag=blob.etag)
    except (RepositoryError, TypeError, KeyError):
        pass
    raise RepositoryError(
        f"{PUBLISHED} in {store.url} is not a record of a published commit",
        hint=f"delete {PUBLISHED}: the next plan then compares all fingerprints",
    )


def _assemble(
    found: Found,
    places: Mapping[str, ReleaseKey],
    makers: Mapping[str, BuildKey],
    objects: Mapping[str, Stat],
    retired: frozenset[BuildKey],
) -> State:
    releases = _releases(found, places)
    manifests, unreadable = _manifests(found, makers)
    _refuse_lost(releases, manifests.keys() | retired, unreadable)
    return State(
        releases=releases,
        manifests=manifests,
        incomplete=frozenset(k for k, m in manifests.items() if not _complete(m, objects)),
        unreadable=unreadable,
        objects=objects,
        published=None,
        retired=retired,
    )


def _releases(found: Found, places: Mapping[str, ReleaseKey]) -> dict[Image, tuple[Release, ...]]:
    by_image: dict[Image, list[Release]] = {}
    for name, key in places.items():
        try:
            release = read_release(found, name, key)
        except RepositoryError as error:
            error.hint = error.hint or "restore it from a copy; repo verify lists all there is"
            raise
        by_image.setdefault((key.name, key.arch), []).append(release)
    return {
        image: tuple(sorted(history, key=lambda r: r.revision))
        for image, history in by_image.items()
    }


def _manifests(
    found: Found, makers: Mapping[str, BuildKey]
) -> tuple[dict[BuildKey, Manifest], dict[BuildKey, str]]:
    manifests: dict[BuildKey, Manifest] = {}
    unreadable: dict[BuildKey, str] = {}
    for name, key in makers.items():
        try:
            manifests[key] = read_manifest(found, name, key)
        except CacheError:
            raise
        except RepositoryError as error:
            unreadable[key] = error.message
    return manifests, unreadable


def _refuse_lost(
    releases: Mapping[Image, tuple[Release, ...]],
    known: AbstractSet[BuildKey],
    unreadable: Mapping[BuildKey, str],
) -> None:
    """A public image whose record is lost must not silently leave the index."""
    for history in releases.values():
        for release in standing(history):
            key = build_of(release)
            if key is None or key in known:
                continue
            hint = (
                f"restore it from a copy, or withdraw the revision: repo yank {release.name} "
                f"--arch {release.arch} --revision {release.revision} --reason lost"
            )
            if key in unreadable:
                raise RepositoryError(f"release {release.key}: {unreadable[key]}", hint=hint)
            raise _MissingError(f"{release.key} names {key.manifest}, which is lost", hint=hint)


def _complete(manifest: Manifest, objects: Mapping[str, Stat]) -> bool:
    key = manifest.key
    disk = objects.get(key.disk)
    has_rest = key.hash in objects and key.metadata in objects
    return has_rest and disk is not None and disk.size == manifest.disk.compressed_size
