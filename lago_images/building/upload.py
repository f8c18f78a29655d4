"""A finished image goes to the store: disk, then hash and metadata, then the manifest."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lago_images.building import packages as contents
from lago_images.building.bases.prepared import Package
from lago_images.console import Advance, Console
from lago_images.disks.checksums import Digests
from lago_images.disks.compress import compress
from lago_images.errors import StorageError
from lago_images.host.process import Children
from lago_images.host.retry import RetryPolicy
from lago_images.repository.records.layout import BuildKey, headers
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.rendering.lago import hash_file, metadata_file
from lago_images.specs.model import Spec
from lago_images.storage.base import Store

# With the pauses of ``retry_policy``: 190 seconds and up to twice that.
_ATTEMPTS = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """What goes with a disk. A console log is there only after a boot test."""

    log: Path
    console_log: Path
    packages: tuple[Package, ...] | None


def retry_policy(children: Children, console: Console) -> RetryPolicy:
    """For a store that is away when a build is finished: three minutes at least."""
    return RetryPolicy(
        attempts=_ATTEMPTS, first=_ATTEMPTS, longest=20, sleep=children.pause, tell=console.warn
    )


def send_disk(
    store: Store,
    key: BuildKey,
    disk: Path,
    *,
    level: int,
    children: Children,
    advance: Advance,
    retry: RetryPolicy,
) -> Digests:
    """Compress, hash and upload a disk in one pass.

    Raises:
        StorageError: The store failed, or has something else than what was sent.
    """
    work, disk_key = compress(disk, level=level, advance=advance), key.staging.disk
    stored = store.upload(
        disk_key, _until_over(work, children), headers=headers(disk_key), retry=retry
    )
    digests = work.digests
    if (stored.size, stored.sha256) != (digests.compressed_size, digests.sha256):
        raise StorageError(
            f"{disk_key} is not in the store as it was sent: {stored.size} bytes, "
            f"sha256 {stored.sha256}; sent {digests.compressed_size}, {digests.sha256}"
        )
    return digests


def send_papers(
    store: Store, manifest: Manifest, spec: Spec, papers: Papers, retry: RetryPolicy
) -> None:
    """Write what goes with a disk."""
    key = manifest.key.staging
    files = {key.hash: hash_file(manifest), key.metadata: metadata_file(manifest, spec)}
    if papers.packages is not None:
        files[key.packages] = contents.render(papers.packages).encode()
    for name, path in ((key.console, papers.console_log), (key.log, papers.log)):
        if path.exists():
            files[name] = readable(path.read_bytes())
    for name, data in files.items():
        store.put(name, data, expected=None, headers=headers(name), retry=retry)


def record(store: Store, manifest: Manifest, retry: RetryPolicy) -> None:
    """Write the manifest, last: it makes a build of what was sent, and anyone may release it.

    Raises:
        StorageError: The store failed; the manifest may be there all the same.
    """
    name = manifest.key.staging.manifest
    data = manifest.to_json()
    store.put(name, data, expected=None, headers=headers(name), retry=retry)


def withdraw(store: Store, key: BuildKey) -> None:
    """Take back what was sent of a build that has no manifest yet.

    ``repo gc`` does so where this may not.
    """
    with suppress(StorageError):
        to = key.staging
        store.delete([to.disk, to.hash, to.metadata, to.packages, to.console, to.log])


def readable(data: bytes) -> bytes:
    """A log as UTF-8 text, whatever a guest wrote into it."""
    text = data.decode(errors="replace")
    return re.sub(r"[^\S\n\t ]|[\x00-\x08\x0e-\x1a\x1c-\x1f]", "", text).encode()


def _until_over(chunks: Iterable[bytes], children: Children) -> Iterator[bytes]:
    for chunk in chunks:
        children.check()
        yield chunk
