"""Read a large object in pieces side by side, each tried again where it broke."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lago_images.console import Advance
from lago_images.errors import StorageError
from lago_images.host.threads import is_leaving, result, side_by_side
from lago_images.storage.base import BLOCK
from lago_images.storage.directory.files import failed
from lago_images.storage.s3.bucket import Bucket
from lago_images.storage.s3.etags import bare
from lago_images.storage.s3.failures import status_of, understood

if TYPE_CHECKING:
    from concurrent.futures import Future

# Measured on Ceph over loopback: tests/benchmarks/transfer.py. ``read`` has WORKERS + 1 pieces in
# memory, ``save`` a block for each of its workers.
PIECE = 16 * 1024 * 1024
WORKERS = 4
SAVED_PIECE = 64 * 1024 * 1024
SAVED_BLOCK = 1024 * 1024
SAVING_WORKERS = 3

Reader = Callable[[int], bytes]
Take = Callable[[Reader], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extent:
    """_Extent holds the place of a piece, and the version of its object."""

    size: int
    etag: str
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    extent: _Extent
    blocks: tuple[bytes, ...]


def read(bucket: Bucket, key: str, start: int) -> Iterator[bytes]:
    """Read the object's bytes from ``start`` on, in order.

    Raises:
        StorageError: It cannot be read on, or was replaced by another while it was read.
    """
    first = _piece(bucket, key, start)
    if first is None:
        return
    yield from first.blocks
    with side_by_side(WORKERS, "read") as workers:
        ahead: deque[Future[_Piece | None]] = deque()
        starts = iter(range(start + first.extent.size, first.extent.total, PIECE))

        def taken() -> Iterable[bytes]:
            piece = result(ahead.popleft())
            _refuse_other(bucket, key, first.extent, None if piece is None else piece.extent)
            return () if piece is None else piece.blocks

        for at in starts:
            ahead.append(workers.submit(_piece, bucket, key, at))
            if len(ahead) >= WORKERS:
                yield from taken()
        while ahead:
            yield from taken()


def save(bucket: Bucket, key: str, path: Path, advance: Advance) -> None:
    """Write the object into a file, each piece at its place as it comes.

    Raises:
        StorageError: It cannot be read, was replaced by another meanwhile, or the file cannot be
            written. The file then has some of it.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            _save(bucket, key, lambda at: _Place(fd=fd, at=at, advance=advance))
        except BaseException as error:
            # A thread that is left behind would write into the next file of this number.
            if not is_leaving(error):
                os.close(fd)
            raise
        os.close(fd)
    except OSError as error:
        raise failed(f"writing {path}", error) from error


def _save(bucket: Bucket, key: str, place: Callable[[int], "_Place"]) -> None:
    def fetch(at: int) -> _Extent | None:
        return _fetch(bucket, key, at, SAVED_PIECE, place(at).fill)

    first = fetch(0)
    if first is None:
        return
    with side_by_side(SAVING_WORKERS, "save") as workers:
        for extent in workers.map(fetch, range(first.size, first.total, SAVED_PIECE)):
            _refuse_other(bucket, key, first, extent)


@dataclass(slots=True, kw_only=True)
class _Place:
    """_Place writes a piece into a file; progress counts each byte once, also of repetitions."""

    fd: int
    at: int
    advance: Advance
    reported: int = 0

    def fill(self, body: Reader) -> None:
        done = 0
        while block := body(SAVED_BLOCK):
            rest = memoryview(block)
            while rest:
                # Not write: the threads share the file's position. The system may take less.
                written = os.pwrite(self.fd, rest, self.at + done)
                rest, done = rest[written:], done + written
            if done > self.reported:
                self.advance(done - self.reported)
                self.reported = done


def _refuse_other(bucket: Bucket, key: str, first: _Extent, extent: _Extent | None) -> None:
    """Raise for a piece that is not of the same version as the first."""
    # Not If-Match on the request: the stores' dialects of it differ, and all send the ETag.
    if extent is None or (extent.etag, extent.total) != (first.etag, first.total):
        where = bucket.where
        raise StorageError(f"reading {key} in {where}: it was replaced while it was read")


def _piece(bucket: Bucket, key: str, at: int) -> _Piece | None:
    """Read a piece; None if the object ends at ``at``."""
    blocks: list[bytes] = []

    def take(body: Reader) -> None:
        blocks[:] = iter(partial(body, BLOCK), b"")

    extent = _fetch(bucket, key, at, PIECE, take)
    return None if extent is None else _Piece(extent=extent, blocks=tuple(blocks))


def _fetch(bucket: Bucket, key: str, at: int, size: int, take: Take) -> _Extent | None:
    """Hand a piece to ``take``, again from its begin where it broke; None at the object's end."""

    def fetch(**arguments: Any) -> _Extent:  # noqa: ANN401 -- boto3's arguments
        answer = bucket.bulk.get_object(**arguments)
        with closing(answer["Body"]) as body:
            with understood(doing, bucket.where):
                begin, total = _extent(answer)
                extent = _Extent(
                    size=answer["ContentLength"], etag=bare(answer["ETag"]), total=total
                )
            # A server that ignores Range sends 200 and all of the object.
            if begin != at:
                raise StorageError(
                    f"{doing} in {bucket.where}: the store does not read from byte {at} on"
                )
            take(body.read)
            return extent

    doing = f"reading {key}"
    byte_range = f"bytes={at}-{at + size - 1}"
    try:
        extent: _Extent = bucket.call(doing, fetch, Key=bucket.key(key), Range=byte_range)
    except StorageError as error:
        # There is no range of an object without bytes, nor one after its end.
        if status_of(error) != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        head = bucket.call(doing, bucket.bulk.head_object, Key=bucket.key(key))
        if head["ContentLength"] != at:
            raise
        return None
    return extent


def _extent(answer: Any) -> tuple[int, int]:  # noqa: ANN401 -- boto3's answer
    """Return the byte that an answer begins with, and the size of the whole object."""
    # "bytes 0-9/100"; an answer with status 200 has none.
    content_range = answer.get("ContentRange", "")
    if not content_range:
        return 0, int(answer["ContentLength"])
    extent, _, total = content_range.removeprefix("bytes ").partition("/")
    return int(extent.partition("-")[0]), int(total)
