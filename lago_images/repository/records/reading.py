"""Read the records of a repository, each once.

``state/cache.json`` holds every release and staged manifest that was good under its key, with the
ETag it was read at: ``{"schema": 1, "objects": {key: [etag, document]}}``. It is only a cache,
rebuilt from the listing when it is lost.
"""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from lago_images.errors import NotFoundError, RepositoryError, StorageError
from lago_images.repository.records.layout import CACHE, BuildKey, ReleaseKey, headers
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.parsing import SchemaError, parse_json, size_problem
from lago_images.repository.records.release import Release
from lago_images.storage.base import Blob, Stat, Store

SCHEMA = 1
# As many requests at once: a GET waits for the network, not for us.
THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Hold documents by key, each with its ETag; ``etag`` is the cache's own, None for none."""

    entries: Mapping[str, tuple[str, Any]]
    etag: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    schema: int
    objects: dict[str, tuple[str, Any]]


def load(store: Store) -> Cache:
    """Read the cache; an empty one when it is missing or not readable as one."""
    try:
        blob = store.get(CACHE)
    except NotFoundError:
        return Cache(entries={}, etag=None)
    try:
        kept = msgspec.json.decode(blob.data, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Cache(entries={}, etag=blob.etag)
    return Cache(entries=kept.objects if kept.schema == SCHEMA else {}, etag=blob.etag)


def save(store: Store, cache: Cache) -> None:
    """Keep a cache for the next reader, if the store lets us and nobody else just did."""
    plain = {"schema": SCHEMA, "objects": cache.entries}
    data = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    # Readers without the right to write, and a lost race, cost the next reader some requests.
    with suppress(StorageError):
        store.put(CACHE, data, expected=cache.etag, headers=headers(CACHE))


Key = BuildKey | ReleaseKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Hold the records that were read.

    Attributes:
        releases: By key.
        manifests: Of staged builds, by key; each is stored in its canonical bytes.
        errors: By key, why an object is neither.
        entries: The documents of all releases and manifests, for the cache.
        is_fresh: Whether some of them were not in the cache.
    """

    releases: Mapping[ReleaseKey, Release]
    manifests: Mapping[BuildKey, Manifest]
    errors: Mapping[Key, RepositoryError]
    entries: Mapping[str, tuple[str, Any]]
    is_fresh: bool


def read_records(store: Store, cache: Cache, wanted: Iterable[tuple[Stat, Key]]) -> Records:
    """Read all that is wanted, from the cache or else with one GET each, in parallel.

    A staged manifest that was deleted since it was listed is left out: anyone who builds may do
    that at any time.

    Raises:
        NotFoundError: A release was deleted since it was listed.
        SchemaError: A release is of another version of lago-images.
    """
    records: dict[Key, Release | Manifest] = {}
    errors: dict[Key, RepositoryError] = {}
    entries: dict[str, tuple[str, Any]] = {}
    unseen: dict[str, Key] = {}
    for stat, key in wanted:
        etag, plain = cache.entries.get(stat.key, ("", None))
        record = None
        if etag == stat.etag:
            # The cache lies under state/, where anyone who publishes may have damaged it.
            with suppress(RepositoryError):
                record = _record(plain, key)
        if record is not None:
            records[key], entries[stat.key] = record, (etag, plain)
        # By the list, before it is read: whoever builds may have put gigabytes there.
        elif problem := size_problem(stat):
            errors[key] = RepositoryError(f"{stat.key} is not read: {problem}")
        else:
            unseen[stat.key] = key
    known = len(records)
    for blob in _get_all(store, unseen):
        key = unseen[blob.key]
        try:
            records[key], plain = _parsed(blob, key)
            entries[blob.key] = (blob.etag, plain)
        except RepositoryError as error:
            # Of another version: then what it says is not known, and nothing may be rendered.
            if isinstance(error, SchemaError) and isinstance(key, ReleaseKey):
                raise
            errors[key] = error
    return Records(
        releases={record.key: record for record in records.values() if isinstance(record, Release)},
        manifests={
            record.key: record for record in records.values() if isinstance(record, Manifest)
        },
        errors=errors,
        entries=entries,
        is_fresh=len(records) > known,
    )


def _parsed(blob: Blob, key: Key) -> tuple[Release | Manifest, Any]:
    kind = Release.WHAT if isinstance(key, ReleaseKey) else Manifest.WHAT
    plain = parse_json(blob.data, f"{blob.key} is not {kind}")
    record = _record(plain, key)
    # A manifest is known by the digest of its bytes, which the cache does not have.
    if isinstance(record, Manifest) and record.to_json() != blob.data:
        raise RepositoryError(f"{blob.key} is not {kind}: it is not written as builders write it")
    return record, plain


def _record(plain: object, key: Key) -> Release | Manifest:
    if isinstance(key, ReleaseKey):
        return Release.from_plain(plain, key)
    return Manifest.from_plain(plain, key)


def _get_all(store: Store, keys: Mapping[str, Key]) -> list[Blob]:
    def get(key: str) -> Blob | None:
        try:
            return store.get(key)
        except NotFoundError:
            if isinstance(keys[key], ReleaseKey):
                raise
            # A staged build: withdrawn by its builder, or removed by repo gc.
            return None

    if len(keys) < 2:  # noqa: PLR2004 -- no threads for one
        return [blob for key in keys if (blob := get(key))]
    with ThreadPoolExecutor(min(THREADS, len(keys))) as pool:
        return [blob for blob in pool.map(get, keys) if blob]
