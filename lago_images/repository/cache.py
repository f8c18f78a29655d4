"""What was read of a repository before: only a cache, rebuilt from the listing when it is lost.

``state/cache.json`` holds every release and manifest that was found good under its key, with the
ETag it was read at: ``{"schema": 1, "objects": {key: [etag, document]}}``.
"""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lago_images.errors import NotFoundError, RepositoryError, StorageError
from lago_images.repository.layout import CACHE, headers
from lago_images.repository.parsing import parse_json, size_problem
from lago_images.storage.base import Blob, Stat, Store

SCHEMA = 1
THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Documents by key, each with the ETag it had; ``etag`` is the cache's own, None for none."""

    entries: Mapping[str, tuple[str, Any]]
    etag: str | None


def load(store: Store) -> Cache:
    """The cache; an empty one when it is not there or not readable as one."""
    try:
        blob = store.get(CACHE)
    except NotFoundError:
        return Cache(entries={}, etag=None)
    try:
        plain = parse_json(blob.data, CACHE)
        entries = {key: (str(etag), plain) for key, (etag, plain) in plain["objects"].items()}
        return Cache(entries=entries if plain["schema"] == SCHEMA else {}, etag=blob.etag)
    except (RepositoryError, ValueError, TypeError, KeyError, AttributeError):
        return Cache(entries={}, etag=blob.etag)


def save(store: Store, cache: Cache) -> None:
    """Keep a cache for the next reader, if the store lets us and nobody else just did."""
    plain = {"schema": SCHEMA, "objects": cache.entries}
    data = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    # Readers without the right to write, and a lost race, cost the next reader some requests.
    with suppress(StorageError):
        store.put(CACHE, data, expected=cache.etag, headers=headers(CACHE))


def documents(
    store: Store, cache: Cache, stats: Iterable[Stat]
) -> tuple[Mapping[str, tuple[str, Any]], frozenset[str]]:
    """The documents of all ``stats``, from the cache or else with one GET each, in parallel.

    Returns:
        The documents by key, with their ETags; and the keys of those that were read from the
        store now, and so were never checked before.

    Raises:
        NotFoundError: One was deleted since it was listed.
    """
    found: dict[str, tuple[str, Any]] = {}
    refused: dict[str, tuple[str, Any]] = {}
    unseen: list[str] = []
    for stat in stats:
        entry = cache.entries.get(stat.key)
        if entry is not None and entry[0] == stat.etag:
            found[stat.key] = entry
        elif problem := size_problem(stat):
            refused[stat.key] = (stat.etag, problem)
        else:
            unseen.append(stat.key)
    for blob in _get_all(store, unseen):
        found[blob.key] = (blob.etag, _document(blob))
    return found | refused, frozenset((*unseen, *refused))


def _get_all(store: Store, keys: list[str]) -> list[Blob]:
    if len(keys) < 2:  # noqa: PLR2004 -- no threads for one
        return [store.get(key) for key in keys]
    with ThreadPoolExecutor(min(THREADS, len(keys))) as pool:
        return list(pool.map(store.get, keys))


def _document(blob: Blob) -> Any:  # noqa: ANN401 -- what json makes of it
    """The JSON in an object; text when it is none, which no document of ours is."""
    try:
        return parse_json(blob.data, "not JSON")
    except RepositoryError as error:
        return error.message


def refuse_text(document: object, where: str) -> dict[str, Any]:
    """Raises ``RepositoryError`` naming ``where`` unless the document is a JSON object."""
    if not isinstance(document, dict):
        raise RepositoryError(f"{where} is not a JSON object: {str(document)[:200]}")
    return document
