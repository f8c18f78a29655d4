"""Looking at an object without reading it."""

from http import HTTPStatus

from lago_images.errors import StorageError
from lago_images.storage.base import Stat
from lago_images.storage.s3.bucket import Bucket
from lago_images.storage.s3.conditional import kept_headers
from lago_images.storage.s3.etags import bare
from lago_images.storage.s3.failures import status_of, understood


def head(bucket: Bucket, key: str) -> Stat:
    """Return what the store knows of an object; see ``base.Store.head``."""
    full, doing = bucket.key(key), f"looking at {key}"
    try:
        answer = bucket.call(doing, bucket.small.head_object, Key=full)
    except StorageError as error:
        if status_of(error) != HTTPStatus.NOT_FOUND:
            raise
        # An answer to HEAD has no body, so it does not say what is missing: the object or the
        # bucket. The answer to GET does.
        answer = bucket.call(doing, bucket.small.get_object, Key=full)
        answer["Body"].close()
    with understood(doing, bucket.where):
        return Stat(
            key=key,
            size=answer["ContentLength"],
            etag=bare(answer["ETag"]),
            modified=answer["LastModified"].timestamp(),
            headers=kept_headers(answer),
        )
