"""Writing a small object only if nobody else did, on stores that say so in different ways.

An answer can be lost after the write was applied, and a loser of a race can be told 409, 500 or
503. Each of these means: read again. An object that has our bytes is our write (callers put a
nonce into what must be told apart); one that has changed is a conflict; one that has not is
written again, under the same condition.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from lago_images.errors import ConflictError, NotFoundError, StorageError
from lago_images.storage.base import Blob, Headers
from lago_images.storage.client import Bucket
from lago_images.storage.etags import Dialect, bare, in_dialect
from lago_images.storage.failures import Failure, code_of, status_of, transient


class Outcome(Enum):
    """What a failed conditional write says: lost, perhaps applied, or neither."""

    LOST = auto()
    UNSURE = auto()
    REFUSED = auto()


def outcome(error: Exception, expected: str | None) -> Outcome:
    """What a failed conditional write means. Ceph answers 404 to If-Match on a missing key."""
    status = status_of(error)
    if status == HTTPStatus.PRECONDITION_FAILED:
        return Outcome.LOST
    if status == HTTPStatus.NOT_FOUND and code_of(error) == "NoSuchKey" and expected is not None:
        return Outcome.LOST
    if status == HTTPStatus.CONFLICT or transient(error):
        return Outcome.UNSURE
    return Outcome.REFUSED


def as_expected(now: Blob | None, expected: str | None) -> bool:
    """Whether the object is still what a writer expects: absent (None), or of that ETag."""
    return (now.etag if now else None) == expected


@dataclass(slots=True, kw_only=True)
class Writer:
    """Writes small objects to a bucket.

    Attributes:
        bucket: Where.
        dialect: How the store wants conditions; None as long as nobody knows.
    """

    bucket: Bucket
    dialect: Dialect | None = None

    def read(self, key: str) -> Blob:
        """A small object whole."""

        def fetch(**arguments: Any) -> Blob:  # noqa: ANN401 -- boto3's arguments
            answer = self.bucket.small.get_object(**arguments)
            with closing(answer["Body"]) as body:
                return Blob(key=key, data=body.read(), etag=bare(answer["ETag"]))

        blob: Blob = self.bucket.call(f"reading {key}", fetch, Key=self.bucket.key(key))
        return blob

    def write(self, key: str, data: bytes, expected: str | None, headers: Headers) -> str:
        """Write if the object is as expected; returns the new ETag.

        Raises ``ConflictError`` if it is not.
        """
        if self.dialect is Dialect.PLAIN and not as_expected(self._now(key), expected):
            raise _conflict(key, expected)
        unsure = False
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._put(key, data, expected, headers)
            except Failure as error:
                what = outcome(error, expected)
                if what is Outcome.REFUSED:
                    raise self._refusal(key, error) from error
                if what is Outcome.LOST and not unsure and not self._may_be_dialect(expected):
                    raise _conflict(key, expected) from error
                unsure |= what is Outcome.UNSURE
                written = self._after(key, data, expected, unsure=unsure)
                if written is not None:
                    return written
                if what is Outcome.LOST and self._may_be_dialect(expected):
                    self.dialect = Dialect.BARE
                elif attempt >= self.bucket.most_attempts(error):
                    raise self.bucket.failure(error, f"writing {key}") from error
                else:
                    self.bucket.patience.wait(attempt)

    def put_anyway(self, key: str, data: bytes, headers: Headers) -> None:
        """Write without a condition: for caches."""
        self.bucket.call(
            f"writing {key}", self.bucket.small.put_object, **self._arguments(key, data, headers)
        )

    def _may_be_dialect(self, expected: str | None) -> bool:
        """Whether a 412 may only mean that the store wants the ETag bare (Ceph 18 does)."""
        return expected is not None and self.dialect is None

    def _after(self, key: str, data: bytes, expected: str | None, *, unsure: bool) -> str | None:
        """The ETag of our write if it was applied after all; None if the object is as it was."""
        now = self._now(key)
        if unsure and now is not None and now.data == data:
            return now.etag
        if not as_expected(now, expected):
            raise _conflict(key, expected)
        return None

    def _now(self, key: str) -> Blob | None:
        try:
            return self.read(key)
        except NotFoundError:
            return None

    def _put(self, key: str, data: bytes, expected: str | None, headers: Headers) -> str:
        condition: dict[str, str] = {}
        dialect = self.dialect or Dialect.QUOTED
        if dialect is not Dialect.PLAIN:
            if expected is None:
                condition = {"IfNoneMatch": "*"}
            else:
                condition = {"IfMatch": in_dialect(expected, dialect)}
        answer = self.bucket.small.put_object(
            Bucket=self.bucket.name,
            **self._arguments(key, data, headers),
            **condition,  # type: ignore[arg-type]
        )
        return bare(answer["ETag"])

    def _arguments(self, key: str, data: bytes, headers: Headers) -> dict[str, Any]:
        return {"Key": self.bucket.key(key), "Body": data, **http_headers(headers)}

    def _refusal(self, key: str, error: Exception) -> StorageError:
        if status_of(error) == HTTPStatus.NOT_IMPLEMENTED:
            return StorageError(
                f"writing {key} in {self.bucket.where}: the store has no conditional writes (501)",
                hint="use a store that has them, or set single-writer = true",
            )
        return self.bucket.failure(error, f"writing {key}")


def http_headers(headers: Headers) -> Mapping[str, str]:
    """S3's arguments for what an object's HTTP clients are told."""
    arguments = {"ContentType": headers.content_type}
    if headers.cache_control is not None:
        arguments["CacheControl"] = headers.cache_control
    return arguments


def _conflict(key: str, expected: str | None) -> ConflictError:
    how = "it exists already" if expected is None else "it has changed since it was read"
    return ConflictError(f"writing {key}: {how}")
