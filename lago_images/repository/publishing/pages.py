"""Write the pages that have changed, and no others; see decision 11.

There are thousands, so they are not read: they are listed, and ``state/pages.json`` holds what each
was rendered from, with the ETag that it had: ``{"schema": 1, "pages": {key: [etag, inputs]}}``. It
is only a cache. A page that it does not know at its ETag is read and compared.

The ETags are listed first and the releases second, as with all rendered files. What a page is
rendered from is written once and stands in it as a mark, so the argument of ``index.listing_mark``
holds for each page by itself.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec

from lago_images.errors import ConflictError, NotFoundError, StorageError
from lago_images.host.threads import side_by_side
from lago_images.repository.records.layout import PAGE_FOLDERS, PAGES_CACHE, headers, is_rendered
from lago_images.repository.records.manifest import canonical
from lago_images.repository.records.reading import THREADS
from lago_images.repository.rendering.pages import Page
from lago_images.storage.base import Store

_SCHEMA = 1
# Of a page: its ETag, and the digest of what it was rendered from.
_Known = dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPages:
    """The pages as they were published.

    Attributes:
        etags: By key, as they were listed.
        inputs: By key, what it was rendered from; of those only where that is known.
        cache: The ETag of the cache; None for none.
    """

    etags: Mapping[str, str]
    inputs: Mapping[str, str]
    cache: str | None

    def forgetful(self) -> "PublishedPages":
        """Return the same, knowing nothing of what is in the pages, so that all are compared."""
        return replace(self, inputs={})

    def due(self, pages: Mapping[str, Page]) -> list[Page]:
        """Return the pages that are not known to be published as they should be."""
        return [page for page in pages.values() if self.inputs.get(page.key) != page.inputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    schema: int
    pages: _Known


# By the one thread that imports this: see `parsing`.
_DECODER = msgspec.json.Decoder(_Document)


def read_pages(store: Store) -> PublishedPages:
    """List the pages, and read what is known of them: a request more than there are list pages."""
    try:
        blob = store.get(PAGES_CACHE)
    except NotFoundError:
        cached, cache = _Known(), None
    else:
        cached, cache = _parsed(blob.data), blob.etag
    stats = (stat for folder in PAGE_FOLDERS for stat in store.list(folder))
    etags = {stat.key: stat.etag for stat in stats if is_rendered(stat.key)}
    known = ((key, inputs) for key, (etag, inputs) in cached.items() if etags.get(key) == etag)
    return PublishedPages(etags=etags, inputs=dict(known), cache=cache)


def _parsed(data: bytes) -> _Known:
    try:
        document = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return document.pages if document.schema == _SCHEMA else {}


def write_pages(store: Store, before: PublishedPages, pages: Mapping[str, Page]) -> tuple[str, ...]:
    """Bring the pages up to date, side by side, and return the keys of those that were written.

    Raises:
        ConflictError: Another publisher wrote one meanwhile. Some others may be written.
    """
    due = before.due(pages)
    if not due:
        return ()

    def write(page: Page) -> tuple[str, bool]:
        return _write(store, before, page)

    with side_by_side(min(THREADS, len(due)), "pages") as workers:
        outcomes = list(workers.map(write, due))
    # With the ETags that were listed, or that our own writes returned: what another publisher wrote
    # since has a third one, and is read and compared next time.
    known = {key: (before.etags[key], inputs) for key, inputs in before.inputs.items()}
    known |= {page.key: (etag, page.inputs) for page, (etag, _) in zip(due, outcomes, strict=True)}
    data = canonical({"schema": _SCHEMA, "pages": known})
    # Readers without the right to write, and a lost race, cost the next publisher some requests.
    with suppress(StorageError):
        store.put(PAGES_CACHE, data, expected=before.cache, headers=headers(PAGES_CACHE))
    written = (page.key for page, (_, is_new) in zip(due, outcomes, strict=True) if is_new)
    return tuple(sorted(written))


def _write(store: Store, before: PublishedPages, page: Page) -> tuple[str, bool]:
    """Write a page unless it is right; return its ETag, and whether it was written."""
    key, data, etag = page.key, page.render(), before.etags.get(page.key)
    if etag is not None and key not in before.inputs:
        try:
            blob = store.get(key)
        # Pages are never deleted: whoever did that is no publisher, and may be at it still.
        except NotFoundError as error:
            raise ConflictError(f"{key} was listed and is missing") from error
        is_right = blob.data == data and blob.headers in (None, headers(key))
        # The ETag that was listed before the releases is the one that a write depends on.
        if is_right and blob.etag == etag:
            return etag, False
    return store.put(key, data, expected=etag, headers=headers(key)), True
