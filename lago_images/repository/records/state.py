"""Read a repository once, into the value that every decision and rendering starts from.

``read`` lists and reads the releases, and nothing else: rendering needs no more. ``survey`` reads
the staged builds too, and lists the public copies: publications and ``repo gc`` need them.
``outlined`` is what a plan needs of a survey, for a fraction of the time.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

from lago_images.errors import NotFoundError, RepositoryError
from lago_images.repository.records import reading as caching
from lago_images.repository.records.gaps import Gap, gaps
from lago_images.repository.records.layout import (
    BUILDS,
    IMAGES,
    PUBLISHED,
    RELEASES,
    BuildFolder,
    BuildKey,
    ImageId,
    LossKey,
    ReleaseKey,
    outdated_key,
    release_key,
    retired_copy,
    staged_build,
)
from lago_images.repository.records.loss import accepted_losses, covers
from lago_images.repository.records.manifest import Manifest, canonical
from lago_images.repository.records.outdated import NewestRecord, by_image, newest_records
from lago_images.repository.records.outline import ReleaseOutline, outline
from lago_images.repository.records.parsing import Text, parse
from lago_images.repository.records.reading import Records, read_records, whole_release
from lago_images.repository.records.release import Release
from lago_images.repository.records.standing import History, R, standing, withdrawn
from lago_images.storage.base import Stat, Store

_ATTEMPTS = 5
# Parts of a list that are asked for side by side, and the releases from which a part is worth it.
_PARTS = 8
_LONG = 300
_S = TypeVar("_S", bound="Offers[Any]")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCommit:
    """Hold the commit published last, and its object's ETag."""

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
class StoredBuild:
    """Hold a build in the store, and the folder that its disk is read from.

    ``revision`` is that of its release; None for a build that is only staged.
    """

    manifest: Manifest
    folder: BuildFolder
    revision: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers(Generic[R]):
    """Hold what a repository offered and what waits there at one moment; ``R`` is a release.

    Attributes:
        releases: By image, ascending by revision; withdrawals included.
        damaged: Releases that cannot be read, each with the reason.
        retired: Public copies that are offered no more, and that ``repo gc`` removes or has
            removed. A retired copy stays retired.
        published: The commit published last; None for a repository that never was.
        accepted: The losses of records that operators accepted. What was lost stays lost to what
            is offered: it is only not told of again, and ``repo gc`` does not wait for it.
        staged: The manifests of staged builds; none but in a survey. In an outline, of those that
            no release was made of.
        incomplete: Staged builds whose disk, hash or metadata is missing, or whose disk, in any
            form, is not as long as the manifest has it.
        unreadable: Staged builds whose manifest is not one, each with the reason.
        lost: Public copies of releases that lack an object, or have one of another size; none but
            in a survey. In an outline, of the newest standing release of each image alone.
    """

    releases: Mapping[ImageId, tuple[R, ...]]
    published: PublishedCommit | None
    damaged: Mapping[ReleaseKey, str] = field(default_factory=lambda: MappingProxyType({}))
    retired: frozenset[BuildFolder] = frozenset()
    accepted: frozenset[LossKey] = frozenset()
    staged: Mapping[BuildKey, Manifest] = field(default_factory=lambda: MappingProxyType({}))
    incomplete: frozenset[BuildKey] = frozenset()
    unreadable: Mapping[BuildKey, str] = field(default_factory=lambda: MappingProxyType({}))
    lost: frozenset[BuildFolder] = frozenset()

    @property
    def images(self) -> tuple[ImageId, ...]:
        """Return all images that ever had a release, sorted."""
        return tuple(sorted(self.releases))

    def history(self, name: str, arch: str) -> tuple[R, ...]:
        """Return all readable releases and withdrawals of an image, ascending by revision."""
        return self.releases.get(ImageId(name, arch), ())

    def newest(self, name: str, arch: str) -> int:
        """Return the highest revision number taken; 0 for none."""
        history = self.history(name, arch)
        newest = history[-1].revision if history else 0
        return max(newest, self._unknown_up_to(name, arch)) if self.damaged else newest

    @property
    def missing(self) -> tuple[Gap, ...]:
        """Return the releases that are lost, by image."""
        damaged: dict[ImageId, set[int]] = {}
        for key in self.damaged:
            damaged.setdefault(key.image, set()).add(key.revision)
        # Of thousands nearly all are whole: as many records as the last one's number says.
        suspects = {
            image
            for image, history in self.releases.items()
            if history and history[-1].revision != len(history)
        }
        return tuple(
            gap
            for image in sorted(suspects | damaged.keys())
            for gap in gaps(
                image,
                {each.revision for each in self.history(*image)} | damaged.get(image, set()),
            )
        )

    @property
    def missing_unaccepted(self) -> tuple[Gap, ...]:
        """Return the releases that are lost and whose loss nobody accepted, by image."""
        return tuple(gap for gap in self.missing if not covers(self.accepted, gap))

    @property
    def damaged_unaccepted(self) -> Mapping[ReleaseKey, str]:
        """Return the releases that cannot be read and whose loss nobody accepted, with why."""
        return {k: why for k, why in self.damaged.items() if not covers(self.accepted, k)}

    def withdrawn(self, name: str, arch: str) -> frozenset[int]:
        """Return the revisions that were taken back."""
        return withdrawn(self.history(name, arch))

    def is_whole(self, copy: BuildFolder) -> bool:
        """Return whether a public copy of a release stays, and nothing of it is lost."""
        return copy not in self.lost and copy not in self.retired

    def unreleased(self, fingerprint: str | None = None) -> tuple[Manifest, ...]:
        """Return complete staged builds that were never released, the newest first."""
        released = self.released_builds
        waiting = (
            manifest
            for key, manifest in self.staged.items()
            if key not in released
            and key not in self.incomplete
            and fingerprint in (None, manifest.fingerprint)
        )
        # Two builders may end in one second: the key decides, for every reader alike.
        return tuple(sorted(waiting, key=lambda m: (-m.created, m.key)))

    @property
    def released_builds(self) -> frozenset[BuildKey]:
        """Return the staged builds that some release was made of."""
        every = (release for history in self.releases.values() for release in history)
        return frozenset(release.image.manifest.key for release in every if release.image)

    def _unknown_up_to(self, name: str, arch: str) -> int:
        """Return the newest revision whose record is lost or cannot be read; 0 for none."""
        image, history = ImageId(name, arch), self.history(name, arch)
        damaged = {key.revision for key in self.damaged if key.image == image}
        taken = {release.revision for release in history} | damaged
        lost = (gap.last for gap in gaps(image, taken))
        return max([*damaged, *lost], default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class State(Offers[Release]):
    """Hold a repository as it was at one moment.

    Attributes:
        objects: The listed ones by key: those under ``releases/``, in a survey all of them.
        outdated: By image, the newest record of what is outdated in its current release, with its
            key; None in place of one that cannot be read, or is about another build, which harms
            nothing else.
    """

    objects: Mapping[str, Stat]
    outdated: Mapping[ImageId, NewestRecord] = field(default_factory=lambda: MappingProxyType({}))

    def live(self, name: str, arch: str) -> tuple[Release, ...]:
        """Return the releases that clients are offered: not withdrawn, and of a copy that stays.

        A release that is lost or cannot be read may have withdrawn any revision before it: these
        are not offered until it is restored.
        """
        after = self._unknown_up_to(name, arch)
        return tuple(
            release
            for release in standing(self.history(name, arch))
            if release.revision > after and release.public not in self.retired
        )

    def current(self, name: str, arch: str) -> Release | None:
        """Return the newest release that clients are offered."""
        live = self.live(name, arch)
        return live[-1] if live else None

    def stored(self, release: Release) -> StoredBuild | None:
        """Return the public copy of a release, if there is one and nothing of it is lost."""
        image = release.image
        if image is None or not self.is_whole(image.public):
            return None
        return StoredBuild(manifest=image.manifest, folder=image.public, revision=release.revision)

    def manifest(self, release: Release) -> Manifest | None:
        """Return the manifest of a release whose public copy is whole; see ``stored``."""
        stored = self.stored(release)
        return stored.manifest if stored else None


def read(store: Store) -> State:
    """Read the releases: the list pages, and one GET for each record not seen before.

    A release that cannot be read is among ``State.damaged``, and harms its image alone.

    Raises:
        SchemaError: A release is of another version of lago-images.
        StorageError: The store did not answer; nothing is concluded from that.
    """
    return _read(store, _read_once)


def survey(store: Store) -> State:
    """Read the releases and staged manifests, and list every object; raises as ``read`` does."""
    return _read(store, _survey_once)


def outlined(store: Store) -> Offers[ReleaseOutline]:
    """Read what a plan needs; raises as ``read`` does.

    Of a staged build that was released nothing is looked at, and of public copies those alone that
    clients are offered.
    """
    return _read(store, _outlined_once)


def _read(store: Store, once: Callable[[Store, caching.Cache], _S]) -> _S:
    attempt, missing = 1, tuple[Gap, ...]()
    while True:
        try:
            state = once(store, caching.load(store))
            # A list of several pages, or folders, is no snapshot: of records that were made
            # meanwhile it may have a later one and lack an earlier one. The next list has both.
            before, missing = missing, state.missing
            if missing in ((), before) or attempt == _ATTEMPTS:
                return state
        except NotFoundError:
            # A release was listed and is missing: an operator is at work, or it is really lost.
            # After so many lists it is lost: to go on without it would take back what it says.
            if attempt == _ATTEMPTS:
                raise
        attempt += 1


def _read_once(store: Store, cache: caching.Cache) -> State:
    published, objects, wanted = _listed(store)
    records = read_records(store, cache, wanted, whole_release)
    state, more = _with_outdated(store, cache, _state(store, records, objects, published))
    is_fresh = records.is_fresh or more.is_fresh
    _keep(store, cache, {**records.entries, **more.entries}, is_fresh=is_fresh)
    return state


def _survey_once(store: Store, cache: caching.Cache) -> State:
    published, objects, wanted = _listed(store)
    names = sorted(key.name for _, key in wanted)
    for root in (IMAGES, BUILDS):
        objects |= {stat.key: stat for stat in store.list(root, marks=_marks(root, names))}
    staged = [(objects[name], key) for name in objects if (key := staged_build(name))]
    records = read_records(store, cache, [*wanted, *staged], whole_release)
    state, more = _with_outdated(store, cache, _state(store, records, objects, published))
    if records.is_fresh or more.is_fresh:
        caching.save(store, replace(cache, entries={**records.entries, **more.entries}))
    return replace(state, lost=frozenset(lost_copies(state)))


def _outlined_once(store: Store, cache: caching.Cache) -> Offers[ReleaseOutline]:
    published, objects, wanted = _listed(store)
    names = sorted(key.name for _, key in wanted)
    released = read_records(store, cache, wanted, outline)
    damaged = {k: e.message for k, e in released.errors.items() if isinstance(k, ReleaseKey)}
    offers = Offers(
        releases=_histories(released.releases),
        damaged=damaged,
        retired=frozenset(copy for name in objects if (copy := retired_copy(name))),
        accepted=accepted_losses(store, objects, damaged),
        published=published,
    )
    done = {key.staging.folder for key in offers.released_builds}
    marks = _marks(BUILDS, names)
    listed = {stat.key: stat for stat in store.list(BUILDS, marks=marks, without=done)}
    builds = [
        (stat, key)
        for name, stat in listed.items()
        if (key := staged_build(name)) and key.staging.folder not in done
    ]
    staged = read_records(store, cache, builds, outline)
    is_fresh = released.is_fresh or staged.is_fresh
    _keep(store, cache, {**released.entries, **staged.entries}, is_fresh=is_fresh)
    marks = _marks(IMAGES, names)
    return replace(
        offers,
        staged=staged.manifests,
        incomplete=frozenset(k for k, m in staged.manifests.items() if not is_complete(m, listed)),
        unreadable={k: e.message for k, e in staged.errors.items() if isinstance(k, BuildKey)},
        lost=frozenset(_lost_of_offered(store, offers, marks)),
    )


def _listed(
    store: Store,
) -> tuple[PublishedCommit | None, dict[str, Stat], list[tuple[Stat, ReleaseKey]]]:
    """Return the commit published last, and the objects under ``releases/``; then the releases.

    They are listed first: the public copy of a release that was listed is listed too.
    """
    # The commit first: all that it asked for was released before it was recorded, so that the list
    # has it. The other way round, a commit could be read whose releases were not listed.
    published = read_published(store)
    objects = {stat.key: stat for stat in store.list(RELEASES)}
    return published, objects, [(s, key) for s in objects.values() if (key := release_key(s.key))]


def _keep(store: Store, cache: caching.Cache, read: caching.Entries, *, is_fresh: bool) -> None:
    """Save what was read; what only others read stays in the cache for them, until a survey."""
    if is_fresh:
        kept = {
            key: entry
            for key, entry in cache.entries.items()
            if key.startswith(BUILDS) or outdated_key(key)
        }
        caching.save(store, replace(cache, entries={**kept, **read}))


def _with_outdated(
    store: Store, cache: caching.Cache, state: State
) -> tuple[State, Records[Release]]:
    """Read of each current release the newest record of what is outdated."""
    newest = newest_records(state.objects, state.current)
    wanted = ((state.objects[str(key)], key) for key in newest)
    records = read_records(store, cache, wanted, whole_release)
    return replace(state, outdated=by_image(newest, records.outdated)), records


def _state(
    store: Store,
    records: Records[Release],
    objects: Mapping[str, Stat],
    published: PublishedCommit | None,
) -> State:
    # A damaged release is kept by its key: which revisions it withdrew is not known, see `live`.
    errors = records.errors.items()
    damaged = {k: error.message for k, error in errors if isinstance(k, ReleaseKey)}
    return State(
        releases=_histories(records.releases),
        damaged=damaged,
        retired=frozenset(copy for name in objects if (copy := retired_copy(name))),
        accepted=accepted_losses(store, objects, damaged),
        objects=objects,
        published=published,
        staged=records.manifests,
        incomplete=frozenset(
            k for k, m in records.manifests.items() if not is_complete(m, objects)
        ),
        unreadable={k: error.message for k, error in errors if isinstance(k, BuildKey)},
    )


def _lost_of_offered(
    store: Store, offers: Offers[ReleaseOutline], marks: list[str]
) -> Iterator[BuildFolder]:
    """Find the public copies of the newest standing releases that are not whole."""
    newest = [every[-1] for history in offers.releases.values() if (every := standing(history))]
    images = [release.image for release in newest if release.image]
    expected: dict[str, int] = {}
    for image in images:
        expected |= image.sizes()
    sizes = store.sizes(IMAGES, expected, marks=marks)
    if sizes != expected:
        for image in images:
            if any(sizes.get(key) != size for key, size in image.sizes().items()):
                yield image.public


def lost_copies(state: State) -> Iterator[BuildFolder]:
    """Find the standing public copies that lack an object, or have one of another size."""
    for history in state.releases.values():
        for release in standing(history):
            image = release.image
            if image is None:
                continue
            for name, expected in image.objects.items():
                stat = state.objects.get(image.public.folder + name)
                if stat is None or stat.size != expected.size:
                    yield image.public
                    break


def _marks(root: str, names: list[str]) -> list[str]:
    """Return keys that cut the list of builds, if it is long, into parts that are about as long.

    A build has seven objects or so; a page has 1,000.
    """
    step = len(names) // _PARTS
    return sorted({f"{root}{name}/" for name in names[step::step]}) if step >= _LONG else []


def read_published(store: Store) -> PublishedCommit | None:
    """Read the commit published last; None only if the store says that there is none."""
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


def histories(releases: Iterable[Release]) -> dict[ImageId, History]:
    """Sort releases into the history of each image, ascending by revision."""
    return _histories({release.key: release for release in releases})


def _histories(releases: Mapping[ReleaseKey, R]) -> dict[ImageId, tuple[R, ...]]:
    by_image: dict[ImageId, list[R]] = {}
    for key, release in releases.items():
        by_image.setdefault(key.image, []).append(release)
    return {
        # By number: stores list 10.json before 9.json.
        image: tuple(sorted(history, key=lambda r: r.revision))
        for image, history in by_image.items()
    }


def digest(manifest: Manifest) -> str:
    """Return the SHA-256 of a manifest's bytes, in hexadecimal."""
    return hashlib.sha256(manifest.to_json()).hexdigest()


def is_complete(manifest: Manifest, objects: Mapping[str, Stat]) -> bool:
    """Return whether a staged build has the disks, hash and metadata of its manifest."""
    staging = manifest.key.staging
    sizes = {staging.also(form): file.size for form, file in manifest.also.items()}
    sizes[staging.disk] = manifest.disk.compressed_size
    has_rest = staging.hash in objects and staging.metadata in objects
    return has_rest and all(key in objects and objects[key].size == sizes[key] for key in sizes)
