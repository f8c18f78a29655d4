"""What is in a repository, read once: the value that every decision and rendering starts from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from lago_images.errors import NotFoundError, RepositoryError
from lago_images.repository.records import reading as caching
from lago_images.repository.records.layout import (
    BUILDS,
    MANIFEST,
    PUBLISHED,
    RELEASES,
    BuildKey,
    ImageId,
    ReleaseKey,
    build_key,
    release_key,
    retired_build,
)
from lago_images.repository.records.manifest import Manifest, canonical
from lago_images.repository.records.parsing import Text, parse
from lago_images.repository.records.reading import Records, read_records
from lago_images.repository.records.release import Release
from lago_images.storage.base import Stat, Store

_ATTEMPTS = 5
# Parts of a list that are asked for side by side, and the releases from which a part is worth it.
_PARTS = 8
_LONG = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCommit:
    """The commit published last, and its object's ETag."""

    commit: str
    etag: str

    @staticmethod
    def to_json(commit: str) -> bytes:
        return canonical({"schema": _PublishedDocument.SCHEMA, "commit": commit})


@dataclass(frozen=True, slots=True, kw_only=True)
class _PublishedDocument:
    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a record of a published commit"

    commit: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A repository at one moment.

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

    releases: Mapping[ImageId, tuple[Release, ...]]
    manifests: Mapping[BuildKey, Manifest]
    incomplete: frozenset[BuildKey]
    unreadable: Mapping[BuildKey, str]
    objects: Mapping[str, Stat]
    published: PublishedCommit | None
    retired: frozenset[BuildKey] = frozenset()

    @property
    def images(self) -> tuple[ImageId, ...]:
        """All images that ever had a release, sorted."""
        return tuple(sorted(self.releases))

    def history(self, name: str, arch: str) -> tuple[Release, ...]:
        """All releases and withdrawals of an image, ascending by revision."""
        return self.releases.get(ImageId(name, arch), ())

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
    records = read_records(store, cache, ((objects[k], p) for k, p in (places | makers).items()))
    unreadable = _unreadable(records)
    state = State(
        releases=histories(records.releases.values()),
        manifests=records.manifests,
        incomplete=frozenset(
            k for k, m in records.manifests.items() if not is_complete(m, objects)
        ),
        unreadable=unreadable,
        objects=objects,
        published=published,
        retired=retired,
    )
    _refuse_lost(state)
    if records.is_fresh:
        caching.save(store, replace(cache, entries=records.entries))
    return state


def _unreadable(records: Records) -> dict[BuildKey, str]:
    """Why each manifest that is none is none; raises ``RepositoryError`` for such a release."""
    unreadable = {}
    for key, error in records.errors.items():
        if isinstance(key, ReleaseKey):
            error.hint = error.hint or "restore it from a copy; repo verify lists all there is"
            raise error
        unreadable[key] = error.message
    return unreadable


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
        document = parse(blob.data, _PublishedDocument, f"{PUBLISHED} in {store.url}", strict=False)
    except RepositoryError as error:
        repair = f"delete {PUBLISHED}: the next plan then compares all fingerprints"
        error.hint = error.hint or repair
        raise
    return PublishedCommit(commit=document.commit, etag=blob.etag)


def histories(releases: Iterable[Release]) -> dict[ImageId, tuple[Release, ...]]:
    """Sort releases into the history of each image, ascending by revision."""
    by_image: dict[ImageId, list[Release]] = {}
    for release in releases:
        by_image.setdefault(release.key.image, []).append(release)
    return {
        image: tuple(sorted(history, key=lambda r: r.revision))
        for image, history in by_image.items()
    }


def _refuse_lost(state: State) -> None:
    """Keep a public image whose record is lost from silently leaving the index."""
    known = state.manifests.keys() | state.retired
    for history in state.releases.values():
        for release in standing(history):
            key = build_of(release)
            if key is None or key in known:
                continue
            hint = (
                f"restore it from a copy, or withdraw the revision: repo yank {release.name} "
                f"--arch {release.arch} --revision {release.revision} --reason lost"
            )
            if key in state.unreadable:
                raise RepositoryError(f"release {release.key}: {state.unreadable[key]}", hint=hint)
            raise _MissingError(f"{release.key} names {key.manifest}, which is lost", hint=hint)


def is_complete(manifest: Manifest, objects: Mapping[str, Stat]) -> bool:
    """Say whether disk, hash and metadata of a build are there as its manifest has them."""
    key = manifest.key
    disk = objects.get(key.disk)
    has_rest = key.hash in objects and key.metadata in objects
    return has_rest and disk is not None and disk.size == manifest.disk.compressed_size
