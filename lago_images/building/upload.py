"""Upload a finished image: disk, sidecar files, then the manifest, which commits the build."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lago_images.building import packages as contents
from lago_images.building.bases.prepared import Package
from lago_images.console import Advance, Console
from lago_images.disks.checksums import Digests
from lago_images.disks.compress import compress
from lago_images.errors import StorageError
from lago_images.host.process import Children, Runner
from lago_images.host.retry import RetryPolicy
from lago_images.repository.records import boot_files
from lago_images.repository.records.boot_files import BootFiles
from lago_images.repository.records.layout import BuildKey, headers
from lago_images.repository.records.manifest import DiskFile, Manifest
from lago_images.repository.rendering.lago import hash_file, metadata_file
from lago_images.settings import FORMS
from lago_images.specs.model import Spec
from lago_images.storage.base import Store

# With the pauses of ``retry_policy``: 190 seconds and up to twice that.
_ATTEMPTS = 25
_PIECE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarFiles:
    """The files beside a disk. There is a console log only after a boot test."""

    log: Path
    console_log: Path
    packages: tuple[Package, ...] | None
    boot_files: BootFiles | None


def retry_policy(children: Children, console: Console) -> RetryPolicy:
    """Return the retry policy of a finished build: a store may be away for three minutes."""
    return RetryPolicy(
        attempts=_ATTEMPTS, first=_ATTEMPTS, longest=20, sleep=children.pause, tell=console.warn
    )


def send_disk(
    store: Store,
    key: BuildKey,
    disk: Path,
    *,
    level: int,
    threads: int,
    runner: Runner,
    advance: Advance,
    retry: RetryPolicy,
    check: Callable[[], None],
) -> Digests:
    """Compress, hash and upload a disk in one pass; what ``check`` raises now and then ends it.

    Raises:
        BuildError: It could not be compressed.
        StorageError: The store failed, or has something else than what was sent.
    """
    disk_key = key.staging.disk
    stream = compress(disk, level=level, threads=threads, advance=advance, runner=runner)
    chunks = _until_over(stream, check)
    stored = store.upload(disk_key, chunks, headers=headers(disk_key), retry=retry)
    digests = stream.digests
    if (stored.size, stored.sha256) != (digests.compressed_size, digests.sha256):
        raise StorageError(
            f"{disk_key} is not in the store as it was sent: {stored.size} bytes, "
            f"sha256 {stored.sha256}; sent {digests.compressed_size}, {digests.sha256}"
        )
    return digests


def send_file(
    store: Store, name: str, file: Path, *, retry: RetryPolicy, check: Callable[[], None]
) -> DiskFile:
    """Hash and upload a file under a key in one pass; what ``check`` raises now and then ends it.

    Raises:
        StorageError: The store failed, or has something else than what was sent.
    """
    with file.open("rb") as opened:
        pieces = iter(lambda: opened.read(_PIECE), b"")
        stored = store.upload(name, _until_over(pieces, check), headers=headers(name), retry=retry)
    if stored.size != (size := file.stat().st_size):
        raise StorageError(f"{name} is not in the store as it was sent: {stored.size} of {size}")
    return DiskFile(size=stored.size, sha256=stored.sha256)


def send_sidecars(
    store: Store, manifest: Manifest, spec: Spec, sidecars: SidecarFiles, retry: RetryPolicy
) -> None:
    """Upload the files that go with a disk."""
    key = manifest.key.staging
    files = {key.hash: hash_file(manifest), key.metadata: metadata_file(manifest, spec)}
    if sidecars.packages is not None:
        files[key.packages] = contents.render(sidecars.packages).encode()
    if sidecars.boot_files is not None:
        files[key.boot_files] = boot_files.render(sidecars.boot_files).encode()
    for name, path in ((key.console, sidecars.console_log), (key.log, sidecars.log)):
        if path.exists():
            files[name] = readable(path.read_bytes())
    for name, data in files.items():
        store.put(name, data, expected=None, headers=headers(name), retry=retry)


def record(store: Store, manifest: Manifest, retry: RetryPolicy) -> None:
    """Upload the manifest, last: it commits the build, and anyone may release it.

    Raises:
        StorageError: The store failed; the manifest may have been written all the same.
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
        disks = [to.disk, *map(to.also, FORMS)]
        listed = (to.packages, to.boot_files)
        store.delete([*disks, to.hash, to.metadata, *listed, to.console, to.log])


def readable(data: bytes) -> bytes:
    """Return a log as UTF-8 text, whatever a guest wrote into it."""
    text = data.decode(errors="replace")
    return re.sub(r"[^\S\n\t ]|[\x00-\x08\x0e-\x1a\x1c-\x1f]", "", text).encode()


def _until_over(chunks: Iterable[bytes], check: Callable[[], None]) -> Iterator[bytes]:
    for chunk in chunks:
        check()
        yield chunk
