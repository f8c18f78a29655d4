"""Reading a large object, taken up again where a connection broke."""

from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from typing import Any

from lago_images.errors import StorageError
from lago_images.storage.client import Bucket
from lago_images.storage.etags import bare
from lago_images.storage.failures import Failure, status_of, transient

CHUNK = 1024 * 1024


def read(bucket: Bucket, key: str, start: int) -> Iterator[bytes]:
    """The object's bytes from ``start`` on.

    Raises:
        StorageError: It cannot be read on, or was replaced by another while it was read.
    """
    doing = f"reading {key}"
    position, etag, failures = start, None, 0
    while True:
        answer = _open(bucket, key, position)
        if answer is None:
            return
        etag = etag or bare(answer["ETag"])
        if bare(answer["ETag"]) != etag:
            raise StorageError(f"{doing} in {bucket.where}: it was replaced while it was read")
        try:
            with closing(answer["Body"]) as body:
                for chunk in body.iter_chunks(CHUNK):
                    yield chunk
                    position += len(chunk)
                    failures = 0
        except Failure as error:
            failures += 1
            if not transient(error) or failures >= bucket.most_attempts(error):
                raise bucket.failure(error, doing) from error
            bucket.patience.wait(failures)
        else:
            return


def _open(bucket: Bucket, key: str, position: int) -> Any | None:  # noqa: ANN401 -- boto3's answer
    """The answer to a GET from ``position`` on; None if that is just the object's end."""
    doing, get = f"reading {key}", bucket.bulk.get_object
    if position == 0:
        return bucket.call(doing, get, Key=bucket.key(key))
    try:
        answer = bucket.call(doing, get, Key=bucket.key(key), Range=f"bytes={position}-")
    except StorageError as error:
        if status_of(error) != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        head = bucket.call(doing, bucket.bulk.head_object, Key=bucket.key(key))
        if head["ContentLength"] == position:
            return None
        raise
    if not answer.get("ContentRange", "").startswith(f"bytes {position}-"):
        answer["Body"].close()
        raise StorageError(
            f"{doing} in {bucket.where}: the store does not read from byte {position}"
        )
    return answer
