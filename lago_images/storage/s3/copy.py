"""Copy an object inside a bucket, and prove the copy."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from lago_images.errors import ConflictError, NotFoundError, StorageError, TamperedError
from lago_images.host.threads import side_by_side, undo
from lago_images.storage.base import ContentDigest, Headers, tampered
from lago_images.storage.s3.bucket import Bucket, Feature
from lago_images.storage.s3.conditional import http_headers
from lago_images.storage.s3.download import read
from lago_images.storage.s3.etags import SHA256, Dialect, full_sha256, in_dialect
from lago_images.storage.s3.failures import status_of, understood
from lago_images.storage.s3.inspect import head
from lago_images.storage.s3.multipart import begin

# Bytes. What one CopyObject takes:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/copy-object.html
LARGEST = 5 * 1024**3
PART_SIZE = 1024**3
WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Copy is a copy to be made; see ``base.Store.copy``."""

    source: str
    target: str
    etag: str
    expected: ContentDigest
    headers: Headers

    @property
    def doing(self) -> str:
        return f"copying {self.source} to {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copier:
    """Copier copies inside one bucket.

    Attributes:
        bucket: Where.
        largest: Bytes of one CopyObject; what is larger is copied in parts.
        part_size: Bytes of such a part.
    """

    bucket: Bucket
    largest: int = LARGEST
    part_size: int = PART_SIZE

    def copy(self, copy: Copy, dialect: Dialect) -> None:
        """Copy, and prove the copy; see ``base.Store.copy``."""
        # Not every store keeps x-amz-copy-source-if-match. This finds most changes before a large
        # copy; what proves the bytes is the look at the copy.
        stat = head(self.bucket, copy.source)
        if stat.etag != copy.etag:
            raise _changed(copy)
        if stat.size != copy.expected.size:
            raise tampered(
                copy.source,
                copy.target,
                f"expected {copy.expected}, but the source has {stat.size} bytes",
            )
        try:
            self._copy(copy, in_dialect(copy.etag, dialect))
        except StorageError as error:
            if status_of(error) != HTTPStatus.PRECONDITION_FAILED:
                raise
            self._explain_refusal(copy, error)
        else:
            self._prove(copy)

    def _copy(self, copy: Copy, condition: str) -> None:
        if copy.expected.size > self.largest:
            self._copy_parts(copy, condition)
            return
        # Only what the probe saw at work: a store may ignore both, or refuse the request for them.
        wanted: dict[str, Any] = {}
        if self.bucket.abilities.creates_copies:
            wanted["IfNoneMatch"] = "*"
        if self.bucket.abilities.sums_copies:
            wanted["ChecksumAlgorithm"] = SHA256
        self.bucket.call(
            copy.doing,
            self.bucket.patient.copy_object,
            Key=self.bucket.key(copy.target),
            CopySource={"Bucket": self.bucket.name, "Key": self.bucket.key(copy.source)},
            CopySourceIfMatch=condition,
            # Else the copy would have what whoever wrote the source wants clients to believe.
            MetadataDirective="REPLACE",
            **http_headers(copy.headers),
            **wanted,
        )

    def _copy_parts(self, copy: Copy, condition: str) -> None:
        # Ceph fails to complete an upload that asked for checksums: it computes none for copies.
        session = begin(self.bucket, copy.target, copy.headers, checksums=False)
        whole = range(copy.expected.size)
        extents = [whole[at : at + self.part_size] for at in whole[:: self.part_size]]
        try:
            with side_by_side(WORKERS, "copy") as workers:
                parts = workers.map(
                    lambda numbered: session.copy(numbered[0], copy.source, condition, numbered[1]),
                    enumerate(extents, 1),
                )
                session.complete(list(parts))
        except BaseException as error:
            # What cannot be aborted now is left for ``repo gc``.
            with suppress(StorageError):
                undo(error, session.abort)
            raise

    def _explain_refusal(self, copy: Copy, error: StorageError) -> None:
        """Find out which of the two conditions a 412 is about.

        The SDK's caller tries again where an answer was lost, and then meets its own copy.
        """
        if head(self.bucket, copy.source).etag != copy.etag:
            raise _changed(copy) from error
        try:
            actual = self._actual(copy)
        except NotFoundError:
            raise error from None
        if actual != copy.expected:
            raise ConflictError(f"{copy.doing}: the target exists already") from error

    def _prove(self, copy: Copy) -> None:
        try:
            copy.expected.check_copy(copy.source, copy.target, self._actual(copy))
        except TamperedError as error:
            try:
                self.bucket.call(
                    f"deleting {copy.target}",
                    self.bucket.small.delete_object,
                    Key=self.bucket.key(copy.target),
                )
            except StorageError as failure:
                left = f"; the copy is left, for it could not be deleted: {failure.message}"
                raise TamperedError(error.message + left, hint=error.hint) from error
            raise

    def _actual(self, copy: Copy) -> ContentDigest:
        """Return what the copy has: as the store computed it, or read."""
        doing = f"checking the copy {copy.target}"
        answer = self.bucket.call_with(
            doing,
            self.bucket.small.head_object,
            None,
            {Feature.CHECKSUMS: {"ChecksumMode": "ENABLED"}},
            Key=self.bucket.key(copy.target),
        )
        with understood(doing, self.bucket.where):
            size = int(answer["ContentLength"])
            computed = full_sha256(answer) if self.bucket.abilities.sums_copies else None
        if computed is not None:
            return ContentDigest(size=size, sha256=computed)
        # A copy in parts has a checksum of its parts' checksums at best, and Ceph keeps none.
        digest, size = hashlib.sha256(), 0
        for chunk in read(self.bucket, copy.target, 0):
            digest.update(chunk)
            size += len(chunk)
        return ContentDigest(size=size, sha256=digest.hexdigest())


def _changed(copy: Copy) -> ConflictError:
    return ConflictError(f"{copy.doing}: the source has changed since it was judged")
