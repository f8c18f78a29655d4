"""Write a small object only if nobody else did, on stores of different dialects.

An answer can be lost after the write was applied, and a loser of a race can get 409, 500 or
503. Each of these means: read again. An object that has our nonce in its metadata is our write;
one that has changed is a conflict; one that has not is written again, under the same condition.
"""

import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from lago_images.errors import ConflictError, NotFoundError, StorageError
from lago_images.host.retry import RetryPolicy
from lago_images.storage.base import Blob, Headers
from lago_images.storage.s3.bucket import Bucket
from lago_images.storage.s3.etags import Dialect, bare, base64_md5, in_dialect
from lago_images.storage.s3.failures import (
    Failure,
    asked_pause_of,
    code_of,
    request,
    status_of,
    transient,
    understood,
)

# The object's metadata that tells who wrote it: ``x-amz-meta-…`` in HTTP.
NONCE = "lago-images-write"


class WriteFailure(Enum):
    """The kinds of a failed conditional write.

    ``LOST``: not as expected. ``BUSY``: not applied, for another was being applied. ``UNSURE``:
    perhaps applied.
    """

    LOST = auto()
    BUSY = auto()
    UNSURE = auto()
    REFUSED = auto()


def outcome(error: Exception, expected: str | None) -> WriteFailure:
    """Classify a failed conditional write."""
    status = status_of(error)
    if status == HTTPStatus.PRECONDITION_FAILED:
        return WriteFailure.LOST
    # How AWS and Ceph answer If-Match on a missing key. NoSuchBucket is another matter.
    if status == HTTPStatus.NOT_FOUND and code_of(error) == "NoSuchKey" and expected is not None:
        return WriteFailure.LOST
    # AWS: ConditionalRequestConflict, "a conflicting operation occurred"; Ceph: some of the losers.
    if status == HTTPStatus.CONFLICT:
        return WriteFailure.BUSY
    # Ceph 18 answers losers of a race 500, and a proxy 502 or 504 for a write that was applied.
    if transient(error):
        return WriteFailure.UNSURE
    return WriteFailure.REFUSED


def as_expected(now: Blob | None, expected: str | None) -> bool:
    """Decide whether the object is still as expected: absent (None), or of that ETag."""
    return (now.etag if now else None) == expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Write is a write to be made. ``nonce`` tells it from others."""

    key: str
    data: bytes
    expected: str | None
    headers: Headers
    nonce: str
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def is_applied(self, now: Blob | None, nonce: str) -> bool:
        """Decide whether an object with that nonce is this write."""
        if now is None:
            return False
        # rclone keeps no metadata: there equal bytes must do.
        return nonce == self.nonce if nonce else now.data == self.data


@dataclass(slots=True, kw_only=True)
class Writer:
    """Writes small objects to a bucket.

    Attributes:
        bucket: Where.
        dialect: How the store wants conditions; None as long as nobody knows.
        new_nonce: Makes a string that no other write has.
        on_versions: Called once, when an answer has a version id though the probe saw none.
    """

    bucket: Bucket
    dialect: Dialect | None = None
    new_nonce: Callable[[], str] = lambda: uuid.uuid4().hex
    on_versions: Callable[[], None] | None = None

    def read(self, key: str) -> Blob:
        """Read a small object whole."""
        return self._fetch(key)[0]

    def write(
        self,
        key: str,
        data: bytes,
        expected: str | None,
        headers: Headers,
        retry: RetryPolicy | None = None,
    ) -> str:
        """Write if the object is as expected; returns the new ETag.

        Raises ``ConflictError`` if it is not.
        """
        write = Write(
            key=key,
            data=data,
            expected=expected,
            headers=headers,
            nonce=self.new_nonce(),
            retry=retry or self.bucket.retry,
        )
        if self.dialect is Dialect.PLAIN and not as_expected(self._now(write)[0], expected):
            raise _conflict(write)
        return self._written(write)

    def _written(self, write: Write) -> str:
        unsure = False
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._put(write)
            except Failure as error:
                result = outcome(error, write.expected)
                if result is WriteFailure.REFUSED:
                    raise self._refusal(write.key, error) from error
                is_lost = result is WriteFailure.LOST
                # As long as nobody has probed, a 412 may only mean that the store wants a bare
                # ETag, as Ceph 18 does.
                maybe_dialect = is_lost and write.expected is not None and self.dialect is None
                # After an attempt without an answer, a 412 may be about that attempt's own write.
                if is_lost and not unsure and not maybe_dialect:
                    raise _conflict(write) from error
                unsure |= result is WriteFailure.UNSURE
                written = self._after(write, unsure=unsure)
                if written is not None:
                    return written
                if maybe_dialect:
                    self.dialect = Dialect.BARE
                    continue
                failure = self.bucket.failure(error, f"writing {write.key}")
                if attempt >= self.bucket.most_attempts(error, write.retry):
                    raise failure from error
                write.retry.wait(attempt, failure.message, asked=asked_pause_of(error))

    def put_anyway(self, key: str, data: bytes, headers: Headers) -> None:
        """Write without a condition: for caches."""
        self.bucket.call(
            f"writing {key}",
            self.bucket.small.put_object,
            Key=self.bucket.key(key),
            Body=data,
            ContentMD5=base64_md5(data),
            **http_headers(headers),
        )

    def _after(self, write: Write, *, unsure: bool) -> str | None:
        """Return the ETag of our write if it was applied; None if the object is as it was."""
        now, nonce = self._now(write)
        if unsure and now is not None and write.is_applied(now, nonce):
            return now.etag
        if not as_expected(now, write.expected):
            raise _conflict(write)
        return None

    def _now(self, write: Write) -> tuple[Blob | None, str]:
        try:
            return self._fetch(write.key, write.retry)
        except NotFoundError:
            return None, ""

    def _fetch(self, key: str, retry: RetryPolicy | None = None) -> tuple[Blob, str]:
        """Read a small object whole, and the nonce of its writer."""

        def fetch(**arguments: Any) -> tuple[Blob, str]:  # noqa: ANN401 -- boto3's arguments
            answer = self.bucket.small.get_object(**arguments)
            with closing(answer["Body"]) as body:
                data = body.read()
            with understood(f"reading {key}", self.bucket.where):
                etag = bare(answer["ETag"])
                blob = Blob(key=key, data=data, etag=etag, headers=kept_headers(answer))
                return blob, answer["Metadata"].get(NONCE, "")

        fetched: tuple[Blob, str] = self.bucket.call(
            f"reading {key}", fetch, retry, Key=self.bucket.key(key)
        )
        return fetched

    def _put(self, write: Write) -> str:
        condition: dict[str, Any] = {}
        dialect = self.dialect or Dialect.QUOTED
        if dialect is not Dialect.PLAIN:
            if write.expected is None:
                condition = {"IfNoneMatch": "*"}
            else:
                condition = {"IfMatch": in_dialect(write.expected, dialect)}
        answer = request(
            self.bucket.small.put_object,
            Bucket=self.bucket.name,
            Key=self.bucket.key(write.key),
            Body=write.data,
            # A bucket with object lock refuses writes without a checksum, and some stores refuse
            # newer ones than this.
            ContentMD5=base64_md5(write.data),
            Metadata={NONCE: write.nonce},
            **http_headers(write.headers),
            **condition,
        )
        with understood(f"writing {write.key}", self.bucket.where):
            etag = bare(answer["ETag"])
        if answer.get("VersionId") and self.on_versions:
            # Versioning was turned on meanwhile: some stores keep no conditions then.
            probe_again, self.on_versions = self.on_versions, None
            probe_again()
        return etag

    def _refusal(self, key: str, error: Exception) -> StorageError:
        # Swift's answer to If-Match, Backblaze's to both.
        if status_of(error) == HTTPStatus.NOT_IMPLEMENTED:
            return StorageError(
                f"writing {key} in {self.bucket.where}: the store has no conditional writes (501)",
                hint="use a store that has them, or set single-writer = true",
            )
        return self.bucket.failure(error, f"writing {key}")


def http_headers(headers: Headers) -> Mapping[str, Any]:
    """Return S3's arguments for an object's headers."""
    arguments = {"ContentType": headers.content_type}
    if headers.cache_control is not None:
        arguments["CacheControl"] = headers.cache_control
    return arguments


def kept_headers(answer: Any) -> Headers:  # noqa: ANN401 -- boto3's answer
    """Return an object's headers from S3's answer."""
    kind, caching = answer.get("ContentType", ""), answer.get("CacheControl")
    return Headers(content_type=kind, cache_control=caching)


def _conflict(write: Write) -> ConflictError:
    how = "it exists already" if write.expected is None else "it has changed since it was read"
    return ConflictError(f"writing {write.key}: {how}")
