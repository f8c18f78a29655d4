"""Read the records of a repository, each once.

``state/cache.json`` holds every release, staged manifest and record of what is outdated that was
good under its key, with the ETag it was read at: ``{"schema": 2, "sha256": digest, "objects":
{key: [etag, document]}}``, the digest of the bytes of ``objects``. It is only a cache, rebuilt from
the listing when it is lost or its bytes are not those of its digest.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from lago_images.errors import NotFoundError, RepositoryError, StorageError
from lago_images.host.threads import side_by_side
from lago_images.repository.records.layout import (
    CACHE,
    BuildKey,
    OutdatedKey,
    ReleaseKey,
    headers,
)
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.outdated import Outdated
from lago_images.repository.records.parsing import SchemaError, parse_json, size_problem
from lago_images.repository.records.release import Release
from lago_images.storage.base import Blob, Stat, Store

SCHEMA = 2
# As many requests at once: a GET waits for the network, not for us.
THREADS = 16


# A document as JSON: what is not asked for is not parsed.
Entries = Mapping[str, tuple[str, msgspec.Raw]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Hold documents by key, each with its ETag; ``etag`` is the cache's own, None for none."""

    entries: Entries
    etag: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    schema: int
    sha256: str
    objects: msgspec.Raw


# By the one thread that imports this: see `parsing`.
_DECODER = msgspec.json.Decoder(_Document)


def load(store: Store) -> Cache:
    """Read the cache; an empty one when it is missing or not readable as one."""
    try:
        blob = store.get(CACHE)
    except NotFoundError:
        return Cache(entries={}, etag=None)
    try:
        kept = _DECODER.decode(blob.data)
        is_whole = kept.schema == SCHEMA and kept.sha256 == _digest(kept.objects)
        entries = msgspec.json.decode(kept.objects, type=_Objects) if is_whole else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        entries = {}
    return Cache(entries=entries, etag=blob.etag)


def save(store: Store, cache: Cache) -> None:
    """Keep a cache for the next reader, if the store lets us and nobody else just did."""
    objects = msgspec.json.encode(cache.entries)
    plain = {"schema": SCHEMA, "sha256": _digest(objects), "objects": msgspec.Raw(objects)}
    data = msgspec.json.encode(plain) + b"\n"
    # Readers without the right to write, and a lost race, cost the next reader some requests.
    with suppress(StorageError):
        store.put(CACHE, data, expected=cache.etag, headers=headers(CACHE))


_Objects = dict[str, tuple[str, msgspec.Raw]]


def _digest(data: bytes | msgspec.Raw) -> str:
    return hashlib.sha256(data).hexdigest()


Key = BuildKey | ReleaseKey | OutdatedKey
_KINDS = {ReleaseKey: Release.WHAT, BuildKey: Manifest.WHAT, OutdatedKey: Outdated.WHAT}
_R = TypeVar("_R")
# Makes what the reader needs of a release, of its JSON.
Make = Callable[[msgspec.Raw, ReleaseKey], _R]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records(Generic[_R]):
    """Hold the records that were read.

    Attributes:
        releases: By key, as the reader wants them.
        manifests: Of staged builds, by key; each is stored in its canonical bytes.
        outdated: The records of what is outdated, by key.
        errors: By key, why an object is none of them.
        entries: The documents of all of them, for the cache.
        is_fresh: Whether some of them were not in the cache.
    """

    releases: Mapping[ReleaseKey, _R]
    manifests: Mapping[BuildKey, Manifest]
    outdated: Mapping[OutdatedKey, Outdated]
    errors: Mapping[Key, RepositoryError]
    entries: Entries
    is_fresh: bool


def whole_release(raw: msgspec.Raw, key: ReleaseKey) -> Release:
    """Make the release ``key`` of its JSON; raises as ``Release.parse`` does."""
    return Release.from_plain(_plain(raw), key)


def read_records(
    store: Store, cache: Cache, wanted: Iterable[tuple[Stat, Key]], make: Make[_R]
) -> Records[_R]:
    """Read all that is wanted, from the cache or else with one GET each, in parallel.

    A staged manifest that was deleted since it was listed is left out, as anyone who builds may do
    that at any time; and so is a record of what is outdated, which ``repo gc`` may delete.

    Raises:
        NotFoundError: A release was deleted since it was listed.
        SchemaError: A release is of another version of lago-images.
    """
    reader = _Reader(make=make)
    unseen: dict[str, Key] = {}
    for stat, key in wanted:
        etag, raw = cache.entries.get(stat.key, ("", None))
        if raw is not None and etag == stat.etag and reader.is_kept(stat, raw, key):
            continue
        # By the list, before it is read: whoever builds may have put gigabytes there.
        if problem := size_problem(stat):
            reader.errors[key] = RepositoryError(f"{stat.key} is not read: {problem}")
        else:
            unseen[stat.key] = key
    known = len(reader.entries)
    for blob in _get_all(store, unseen):
        reader.read(blob, unseen[blob.key])
    return Records(
        releases=reader.releases,
        manifests=reader.manifests,
        outdated=reader.outdated,
        errors=reader.errors,
        entries=reader.entries,
        is_fresh=len(reader.entries) > known,
    )


@dataclass(slots=True, kw_only=True)
class _Reader(Generic[_R]):
    """See ``Records`` for the fields."""

    make: Make[_R]
    releases: dict[ReleaseKey, _R] = field(default_factory=dict)
    manifests: dict[BuildKey, Manifest] = field(default_factory=dict)
    outdated: dict[OutdatedKey, Outdated] = field(default_factory=dict)
    errors: dict[Key, RepositoryError] = field(default_factory=dict)
    entries: dict[str, tuple[str, msgspec.Raw]] = field(default_factory=dict)

    def is_kept(self, stat: Stat, raw: msgspec.Raw, key: Key) -> bool:
        """Take a record from the cache; False where it is none."""
        # The cache lies under state/, where anyone who publishes may have damaged it.
        try:
            self._keep(raw, key)
        except (RepositoryError, msgspec.DecodeError):
            return False
        self.entries[stat.key] = (stat.etag, raw)
        return True

    def read(self, blob: Blob, key: Key) -> None:
        try:
            raw = _checked(blob, key)
        except RepositoryError as error:
            # Of another version: then what it says is not known, and nothing may be rendered.
            if isinstance(error, SchemaError) and isinstance(key, ReleaseKey):
                raise
            self.errors[key] = error
            return
        self._keep(raw, key)
        self.entries[blob.key] = (blob.etag, raw)

    def _keep(self, raw: msgspec.Raw, key: Key) -> None:
        if isinstance(key, ReleaseKey):
            self.releases[key] = self.make(raw, key)
        elif isinstance(key, OutdatedKey):
            self.outdated[key] = Outdated.from_plain(_plain(raw), key)
        else:
            self.manifests[key] = Manifest.from_plain(_plain(raw), key)


def _checked(blob: Blob, key: Key) -> msgspec.Raw:
    """Return the JSON of a record whose every field was looked at."""
    kind = _KINDS[type(key)]
    plain = parse_json(blob.data, f"{blob.key} is not {kind}")
    if isinstance(key, ReleaseKey):
        Release.from_plain(plain, key)
    elif isinstance(key, OutdatedKey):
        Outdated.from_plain(plain, key)
    # A manifest is known by the digest of its bytes, which the cache does not have.
    elif Manifest.from_plain(plain, key).to_json() != blob.data:
        raise RepositoryError(f"{blob.key} is not {kind}: it is not written as builders write it")
    return msgspec.Raw(msgspec.json.encode(plain))


def _plain(raw: msgspec.Raw) -> object:
    return msgspec.json.decode(raw)


def _get_all(store: Store, keys: Mapping[str, Key]) -> list[Blob]:
    def get(key: str) -> Blob | None:
        try:
            return store.get(key)
        except NotFoundError:
            if isinstance(keys[key], ReleaseKey):
                raise
            # Withdrawn by its builder, or removed by repo gc.
            return None

    if len(keys) < 2:  # noqa: PLR2004 -- no threads for one
        return [blob for key in keys if (blob := get(key))]
    with side_by_side(min(THREADS, len(keys)), "read") as workers:
        return [blob for blob in workers.map(get, keys) if blob]
