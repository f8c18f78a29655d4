"""Look at an object without reading it, or read no more than a byte."""

from http import HTTPStatus

from lago_images.errors import StorageError, UnreadableError
from lago_images.storage.base import Stat
from lago_images.storage.s3.bucket import Bucket
from lago_images.storage.s3.conditional import kept_headers
from lago_images.storage.s3.etags import bare
from lago_images.storage.s3.failures import code_of, status_of, understood

_REPAIRS = {
    "InvalidObjectState": "it is in an archived storage class: restore it (aws s3api "
    "restore-object), copy it to STANDARD, and take the lifecycle rule off this prefix",
    "AccessDenied": "its readers need s3:GetObject by the bucket's policy and the object's ACL, "
    "and kms:Decrypt where it is encrypted with a key of KMS",
}
_KMS = "KMS."
_KMS_REPAIR = "enable the KMS key that it is encrypted with, and let its readers use it"


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


def check_readable(bucket: Bucket, key: str) -> None:
    """Read one byte of an object; see ``base.Store.check_readable``."""
    doing = f"reading {key}"
    try:
        answer = bucket.call(doing, bucket.small.get_object, Key=bucket.key(key), Range="bytes=0-0")
    except StorageError as error:
        status, code = status_of(error), code_of(error)
        # An object without bytes has no first one.
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return
        # AWS answers 400 for some of KMS's refusals, KMS.DisabledException for one.
        is_kms = code.startswith(_KMS)
        if status != HTTPStatus.FORBIDDEN and not is_kms:
            raise
        repair = _KMS_REPAIR if is_kms else _REPAIRS.get(code, _REPAIRS["AccessDenied"])
        raise UnreadableError(error.message, hint=repair) from error
    answer["Body"].close()
