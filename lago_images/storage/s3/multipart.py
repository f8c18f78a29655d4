"""Upload in parts: S3's multipart uploads, one request a method."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lago_images.errors import StorageError
from lago_images.host.retry import RetryPolicy
from lago_images.storage.base import Blocks, Body, Headers, Unfinished
from lago_images.storage.s3.bucket import Bucket, Feature
from lago_images.storage.s3.conditional import http_headers
from lago_images.storage.s3.etags import (
    SHA256,
    Part,
    bare,
    base64_md5,
    base64_sha256,
    hexadecimal,
)
from lago_images.storage.s3.failures import code_of, status_of, understood

MOST_PARTS = 10_000
# Answers of stores that know no listing of uploads.
_UNKNOWN = frozenset({400, 405, 501})


@dataclass(frozen=True, slots=True, kw_only=True)
class Multipart:
    """Multipart is a multipart upload that was begun.

    ``keeps_sha256``: the store checks and keeps a SHA-256 for each part; else it gets MD5s.
    ``retry`` is for parts and the completion; the bucket's if None.
    """

    bucket: Bucket
    key: str
    upload_id: str
    keeps_sha256: bool
    retry: RetryPolicy | None = None

    @property
    def _ids(self) -> dict[str, str]:
        return {"Key": self.bucket.key(self.key), "UploadId": self.upload_id}

    def send(self, number: int, blocks: Blocks) -> Part:
        """Upload a part; the store refuses it if it did not arrive as it was sent."""

        # A new body for each attempt: the one before may have been sent in part.
        def upload(**arguments: Any) -> Any:  # noqa: ANN401 -- boto3's
            body: Any = Body(blocks)
            return self.bucket.bulk.upload_part(Body=body, **arguments)

        if number > MOST_PARTS:
            raise StorageError(f"uploading {self.key}: S3 takes {MOST_PARTS} parts at most")
        sha256, md5 = "", ""
        if self.keeps_sha256:
            sha256 = base64_sha256(*blocks)
            checksum = {"ChecksumAlgorithm": SHA256, "ChecksumSHA256": sha256}
        else:
            md5 = base64_md5(*blocks)
            checksum = {"ContentMD5": md5}
        doing = f"uploading part {number} of {self.key}"
        answer = self.bucket.call(
            doing,
            upload,
            self.retry,
            PartNumber=number,
            **self._ids,
            **checksum,
        )
        with understood(doing, self.bucket.where):
            etag = bare(answer["ETag"])
        # Ceph 20 checks and returns the checksum; other stores may take the header and ignore it.
        proven = answer.get("ChecksumSHA256") == sha256 if sha256 else etag == hexadecimal(md5)
        return Part(
            number=number, size=sum(map(len, blocks)), etag=etag, sha256=sha256, proven=proven
        )

    def copy(self, number: int, source: str, condition: str, extent: range) -> Part:
        """Make a part of another object's bytes, of the ETag ``condition`` where that is kept."""
        doing = f"copying part {number} of {source} to {self.key}"
        answer = self.bucket.call(
            doing,
            self.bucket.patient.upload_part_copy,
            self.retry,
            PartNumber=number,
            CopySource={"Bucket": self.bucket.name, "Key": self.bucket.key(source)},
            CopySourceIfMatch=condition,
            CopySourceRange=f"bytes={extent.start}-{extent.stop - 1}",
            **self._ids,
        )
        with understood(doing, self.bucket.where):
            etag = bare(answer["CopyPartResult"]["ETag"])
        return Part(number=number, size=len(extent), etag=etag)

    def complete(self, parts: Sequence[Part]) -> None:
        """Make the parts an object. Done already, by an attempt whose answer was lost, is done."""
        plain = [
            {"PartNumber": part.number, "ETag": f'"{part.etag}"'}
            | ({"ChecksumSHA256": part.sha256} if self.keeps_sha256 else {})
            for part in parts
        ]
        try:
            self.bucket.call_with(
                f"completing the upload of {self.key}",
                self.bucket.bulk.complete_multipart_upload,
                self.retry,
                {Feature.CREATION: {"IfNoneMatch": "*"}},
                MultipartUpload={"Parts": plain},
                **self._ids,
            )
        except StorageError as error:
            # The caller proves the object, so a missing upload needs no other handling.
            if code_of(error) != "NoSuchUpload":
                raise

    def abort(self) -> None:
        """Drop the upload and its parts; a missing one is not an error."""
        try:
            self.bucket.call(
                f"aborting the upload of {self.key}",
                self.bucket.small.abort_multipart_upload,
                **self._ids,
            )
        except StorageError as error:
            # It was completed, or aborted by ``repo gc``.
            if code_of(error) != "NoSuchUpload":
                raise


def begin(
    bucket: Bucket,
    key: str,
    headers: Headers,
    retry: RetryPolicy | None = None,
    *,
    checksums: bool = True,
) -> Multipart:
    """Begin an upload; with ``checksums`` of its parts where the store has them."""
    doing, create = f"beginning the upload of {key}", bucket.bulk.create_multipart_upload
    arguments: dict[str, Any] = {"Key": bucket.key(key), **http_headers(headers)}
    features = {Feature.CHECKSUMS: {"ChecksumAlgorithm": SHA256}} if checksums else {}
    answer = bucket.call_with(doing, create, retry, features, **arguments)
    with understood(doing, bucket.where):
        upload_id = answer["UploadId"]
    # Only a store that says the algorithm back keeps checksums; others ignore the header.
    return Multipart(
        bucket=bucket,
        key=key,
        upload_id=upload_id,
        keeps_sha256=checksums and answer.get("ChecksumAlgorithm") == SHA256,
        retry=retry,
    )


def unfinished(bucket: Bucket, prefix: str = "") -> Iterator[Unfinished]:
    """List the uploads under ``prefix`` that were begun and neither completed nor aborted."""
    markers: dict[str, str] = {}
    while True:
        try:
            answer = bucket.call(
                "listing unfinished uploads",
                bucket.small.list_multipart_uploads,
                Prefix=bucket.prefix + prefix,
                **markers,
            )
        except StorageError as error:
            # How rclone says that a bucket has none.
            if code_of(error) == "NoSuchUpload":
                return
            raise
        with understood("listing unfinished uploads", bucket.where):
            page = [
                Unfinished(
                    key=upload["Key"].removeprefix(bucket.prefix),
                    upload_id=upload["UploadId"],
                    begun=upload["Initiated"].timestamp(),
                )
                for upload in answer.get("Uploads", ())
            ]
        yield from page
        if not answer.get("IsTruncated"):
            return
        following = {
            "KeyMarker": answer.get("NextKeyMarker", ""),
            "UploadIdMarker": answer.get("NextUploadIdMarker", ""),
        }
        if following == markers or not following["KeyMarker"]:
            raise StorageError(f"listing unfinished uploads in {bucket.where}: the list is cut off")
        markers = following


def lists_uploads(error: StorageError) -> bool:
    """Decide whether a failed listing means more than a store that cannot list uploads."""
    return status_of(error) not in _UNKNOWN
