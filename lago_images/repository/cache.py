"""What was read of a repository before: only a cache, rebuilt from the listing when it is lost.

``state/cache.json`` holds every release and manifest that was found good under its key, with the
ETag it was read at: ``{"schema": 1, "objects": {key: [etag, document]}}``.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from lago_images.errors import NotFoundError, StorageError
from lago_images.repository.layout import CACHE, headers
from lago_images.storage.base import Store

SCHEMA = 1
THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Documents by key, each with the ETag it had; ``etag`` is the cache's own, None for none."""

    entries: Mapping[str, tuple[str, Any]]
    etag: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    schema: int
    objects: dict[str, tuple[str, Any]]


def load(store: Store) -> Cache:
    """The cache; an empty one when it is not there or not readable as one."""
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
