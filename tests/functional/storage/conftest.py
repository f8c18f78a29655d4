"""The stores that the one suite is run over."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lago_images.console import Console
from lago_images.host.retry import RetryPolicy
from lago_images.storage.base import Store
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.overlay import OverlayStore
from lago_images.storage.s3.copy import Copier
from lago_images.storage.s3.store import S3Store
from lago_images.storage.s3.upload import Uploader
from tests.servers.model import Server

ATOMIC = ["directory", "ceph20", "ceph18"]
COPYING = [*ATOMIC, "overlay", "overlaid", "moto", "rclone"]
ALL = [*ATOMIC, "swift", "rclone"]
# S3 takes no smaller parts, but for the last.
PART = 5 * 1024 * 1024
QUICK = RetryPolicy(delay=0.02, longest=0.2)


def s3_store(server: Server, bucket: str, prefix: str = "some/prefix") -> S3Store:
    """A store with small parts, as a second process would open it."""
    store = S3Store.open(
        bucket,
        prefix,
        environ=server.environ,
        single_writer=not server.conditional,
        retry=QUICK,
    )
    store.uploader = Uploader(bucket=store.bucket, part_size=PART)
    store.copier = Copier(bucket=store.bucket, largest=2 * PART, part_size=PART)
    return store


def ensure_safe(
    store: Store, *, single_writer: bool = False, console: Console | None = None
) -> None:
    """Have the store's conditional writes proven, as a publisher does before it writes."""
    console = console or Console(quiet=True)
    store.ensure_safe_writes(single_writer=single_writer, console=console)


def overwrite(store: Store, key: str, data: bytes) -> None:
    """Put other bytes under a key, as whoever may write there can."""
    if isinstance(store, S3Store):
        where = store.bucket
        where.bulk.put_object(Bucket=where.name, Key=where.key(key), Body=data)
    else:
        store.delete([key])
        store.upload(key, [data])


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An empty place for objects, and how to open it once more."""

    name: str
    open: Callable[[], Store]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """The place named by the test's parameter.

    Of an overlay what the test writes is in the upper store; "overlaid" has it in the lower one.
    """
    name = request.param
    directory = DirectoryStore(path=tmp_path / "store")
    if name == "directory":
        return Place(name=name, open=lambda: directory)
    if name.startswith("overla"):
        other = DirectoryStore(path=tmp_path / "upper")
        return Place(name=name, open=lambda: OverlayStore(upper=other, lower=directory))
    server = request.getfixturevalue(name)
    bucket = server.new_bucket()
    return Place(name=name, open=lambda: s3_store(server, bucket))


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()
