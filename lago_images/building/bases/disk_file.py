"""Download the file of a base's disk once, and unpack the disk in it."""

from pathlib import Path

from lago_images.building import downloads
from lago_images.building.downloads import Downloader
from lago_images.building.model import Context
from lago_images.disks.decompress import LARGEST
from lago_images.disks.unpack import Checksum, ChecksumError, unpack
from lago_images.host.http import Client
from lago_images.specs.model import Spec
from lago_images.specs.properties import size_bytes

DOWNLOADS = "downloads"
_TABLES = 64 * 2**20


def largest(spec: Spec) -> int:
    """Return the bytes that a base's file may have: little more than its disk, which can only grow.

    A qcow2 has tables besides, and cloud images may have been written to more than once.
    """
    size = size_bytes(spec.properties.get("size", ""))
    return LARGEST if size is None else min(LARGEST, size + size // 8 + _TABLES)


def fetch(url: str, checksum: Checksum, disk: Path, context: Context, *, largest: int) -> Checksum:
    """Download a file once, and unpack the disk in it; neither may be larger than ``largest``.

    A file in the cache that is damaged is downloaded again; one that was just downloaded and is
    not what it should be is an error, and forgotten.
    """
    downloader = Downloader(
        folder=context.cache / DOWNLOADS,
        console=context.console,
        client=Client(environ=context.environ),
        largest=min(largest, downloads.LARGEST),
    )
    key = f"{checksum.algorithm}-{checksum.digits}"
    cached = downloader.has(key)
    try:
        return unpack(
            downloader.fetch(url, key), disk, expected=checksum, what=url, largest=largest
        )
    except ChecksumError:
        downloader.drop(key)
        if not cached:
            raise
    context.console.warn(f"the copy of {url} in {downloader.folder} was damaged")
    return fetch(url, checksum, disk, context, largest=largest)
