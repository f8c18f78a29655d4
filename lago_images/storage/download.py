"""Reading a large object: pieces side by side, in order, each tried again where it broke."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from lago_images.errors import StorageError
from lago_images.storage.body import BLOCK
from lago_images.storage.client import Bucket
from lago_images.storage.etags import bare
from lago_images.storage.failures import status_of

# Measured on Ceph over loopback: tests/benchmarks/transfer.py. Memory: (WORKERS + 1) pieces.
PIECE = 16 * 1024 * 1024
WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    blocks: tuple[bytes, ...]
    etag: str
    total: int

    @property
    def size(self) -> int:
        return sum(map(len, self.blocks))


def read(bucket: Bucket, key: str, start: int) -> Iterator[bytes]:
    """The object's bytes from ``start`` on.

    Raises:
        StorageError: It cannot be read on, or was replaced by another while it was read.
    """
    first = _fetch(bucket, key, start)
    if first is None:
        return
    yield from first.blocks
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="read") as pool:
        ahead: deque[Future[_Piece | None]] = deque()
        starts = iter(range(start + first.size, first.total, PIECE))
        try:
            for at in starts:
                ahead.append(pool.submit(_fetch, bucket, key, at))
                if len(ahead) >= WORKERS:
                    yield from _same(bucket, key, first, ahead.popleft().result())
            while ahead:
                yield from _same(bucket, key, first, ahead.popleft().result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _same(bucket: Bucket, key: str, first: _Piece, piece: _Piece | None) -> tuple[bytes, ...]:
    """A piece's bytes, if it is of the same version as the first."""
    if piece is None or (piece.etag, piece.total) != (first.etag, first.total):
        where = bucket.where
        raise StorageError(f"reading {key} in {where}: it was replaced while it was read")
    return piece.blocks


def _fetch(bucket: Bucket, key: str, at: int) -> _Piece | None:
    """A piece; None if the object ends at ``at``."""

    def fetch(**arguments: Any) -> _Piece:  # noqa: ANN401 -- boto3's arguments
        answer = bucket.bulk.get_object(**arguments)
        with closing(answer["Body"]) as body:
            begin, total = _extent(answer)
            if begin != at:
                raise StorageError(
                    f"{doing} in {bucket.where}: the store does not read from byte {at} on"
                )
            blocks = tuple(iter(partial(body.read, BLOCK), b""))
            return _Piece(blocks=blocks, etag=bare(answer["ETag"]), total=total)

    doing = f"reading {key}"
    byte_range = f"bytes={at}-{at + PIECE - 1}"
    try:
        piece: _Piece = bucket.call(doing, fetch, Key=bucket.key(key), Range=byte_range)
    except StorageError as error:
        # There is no range of an object without bytes, nor one after its end.
        if status_of(error) != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        head = bucket.call(doing, bucket.bulk.head_object, Key=bucket.key(key))
        if head["ContentLength"] != at:
            raise
        return None
    return piece


def _extent(answer: Any) -> tuple[int, int]:  # noqa: ANN401 -- boto3's answer
    """Where an answer begins, and how large the whole object is."""
    said = answer.get("ContentRange", "")
    if not said:
        return 0, int(answer["ContentLength"])
    extent, _, total = said.removeprefix("bytes ").partition("/")
    return int(extent.partition("-")[0]), int(total)
