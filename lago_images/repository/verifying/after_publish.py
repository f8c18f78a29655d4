"""Check what was just published, in a few requests; ``verify`` is the whole examination."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from lago_images.errors import NotFoundError
from lago_images.host.retry import RetryPolicy
from lago_images.repository.publishing.publisher import Publisher
from lago_images.repository.publishing.releasing import read_history
from lago_images.repository.records import layout
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.release import Release
from lago_images.repository.records.standing import standing
from lago_images.repository.rendering import index, lago
from lago_images.repository.verifying.findings import REFRESH, Finding, problem
from lago_images.storage.base import Store

_RETRY = RetryPolicy(attempts=4, delay=0.5)


def quick(
    publisher: Publisher,
    releases: Sequence[Release],
    *,
    retry: RetryPolicy = _RETRY,
) -> tuple[Finding, ...]:
    """Check that clients are offered these releases, or newer ones; nothing found is good.

    Costs a GET for each of ``index``, ``repo.metadata`` and the signed index, and a HEAD for
    each disk. Another publisher may be between two of its writes: what is wrong is looked at
    again before it is reported.
    """
    attempt = 1
    while findings := tuple(_wrong(publisher, releases)):
        if attempt >= retry.attempts:
            return findings
        retry.wait(attempt)
        attempt += 1
    return ()


def _wrong(publisher: Publisher, releases: Sequence[Release]) -> Iterator[Finding]:
    store, keys = publisher.store, publisher.signer.keys
    files: dict[str, bytes] = {}
    for name in (layout.INDEX, layout.METADATA, *((layout.SIGNED_INDEX,) if keys else ())):
        with suppress(NotFoundError):
            files[name] = store.get(name).data
    entries, problems = index.parse(files.get(layout.INDEX, b""))
    versions, more = lago.parse(files.get(layout.METADATA, b""))
    for each in (*problems, *more):
        yield problem(each.path, each.what, REFRESH)
    signed = files.get(layout.SIGNED_INDEX)
    if keys and entries and not (signed and keys[0].has_clearsigned(signed, files[layout.INDEX])):
        yield problem(layout.SIGNED_INDEX, f"it is not {layout.INDEX}, signed", REFRESH)
    offered = {ImageId(entry.name, entry.arch): entry for entry in entries}
    handles = {version.handle for version in versions}
    for release in releases:
        yield from _release(store, release, offered.get(release.key.image), handles)


def _release(
    store: Store, release: Release, entry: index.Entry | None, handles: set[str]
) -> Iterator[Finding]:
    key = release.public
    if key is None:
        return
    # Another publisher may have been faster, and offer what it released since.
    newer = entry is not None and entry.revision > release.revision
    same = entry is not None and (entry.revision, entry.file) == (release.revision, key.disk)
    if (newer or same) and key.handle in handles:
        # HEAD: the copy was proved byte by byte when it was made.
        for disk in (key.disk, *map(key.also, release.image.also if release.image else ())):
            try:
                store.head(disk)
            except NotFoundError:
                yield problem(disk, "it is offered, and missing", "lago-images repo verify")
        return
    if release not in standing(read_history(store, release.name, release.arch)):
        # Withdrawn since: then it is not to be offered.
        return
    where = layout.METADATA if newer or same else layout.INDEX
    yield problem(where, f"{release.name} {release.revision} is published, and not in it", REFRESH)
