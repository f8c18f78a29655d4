"""Keep objects in a bucket."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from lago_images.console import Advance, Console
from lago_images.errors import StorageError
from lago_images.host.retry import RetryPolicy
from lago_images.host.threads import side_by_side
from lago_images.storage.base import (
    Blob,
    ContentDigest,
    Headers,
    Stat,
    Unfinished,
    Uploaded,
    remaining,
)
from lago_images.storage.s3 import download, inspect, listing, safety
from lago_images.storage.s3.bucket import CONNECTIONS, Bucket, Feature, open_bucket
from lago_images.storage.s3.conditional import Writer
from lago_images.storage.s3.copy import Copier, Copy
from lago_images.storage.s3.etags import Dialect
from lago_images.storage.s3.failures import status_of
from lago_images.storage.s3.multipart import Multipart, unfinished
from lago_images.storage.s3.upload import Uploader

PLAIN_HEADERS = Headers()


def _ignore(_amount: int) -> None: ...


@dataclass(slots=True, kw_only=True)
class S3Store:
    """S3Store keeps objects in a bucket, under a prefix. See ``base.Store`` for the contract.

    Safe to use from several threads. ``bucket.requests`` counts the requests that were sent.

    Attributes:
        bucket: Where.
        single_writer: Trust the configuration that nobody else writes: a store without
            conditional writes is then read, compared and written.
    """

    bucket: Bucket
    single_writer: bool = False
    writer: Writer = field(init=False)
    uploader: Uploader = field(init=False)
    copier: Copier = field(init=False)

    def __post_init__(self) -> None:
        # With a single writer a store is not believed before it is probed (ensure_safe_writes).
        dialect = Dialect.PLAIN if self.single_writer else None
        self.writer = Writer(bucket=self.bucket, dialect=dialect)
        self.uploader = Uploader(bucket=self.bucket)
        self.copier = Copier(bucket=self.bucket)
        if self.single_writer:
            self.bucket.lacking.add(Feature.CREATION)

    @classmethod
    def open(
        cls,
        bucket: str,
        prefix: str = "",
        *,
        environ: Mapping[str, str],
        single_writer: bool = False,
        retry: RetryPolicy | None = None,
    ) -> "S3Store":
        """Open the store in a bucket, set up from the standard AWS variables in ``environ``."""
        if prefix and not prefix.endswith("/"):
            prefix += "/"
        where = open_bucket(bucket, prefix, environ, retry=retry)
        return cls(bucket=where, single_writer=single_writer)

    @property
    def url(self) -> str:
        return self.bucket.url

    @property
    def folder(self) -> None:
        return None

    def ensure_safe_writes(self, *, single_writer: bool, console: Console) -> None:
        safety.ensure_safe(self.writer, single_writer=single_writer, console=console)

    @property
    def requests(self) -> Mapping[str, int]:
        """Count the requests so far, retries included, by S3's name of the operation."""
        return self.bucket.requests

    def list(
        self, prefix: str = "", *, marks: Sequence[str] = (), without: Collection[str] = ()
    ) -> Iterator[Stat]:
        # A page has 1,000 objects: to step over some would take more requests.
        del without
        return listing.listed(self.bucket, prefix, marks)

    def sizes(
        self, prefix: str, keys: Collection[str], *, marks: Sequence[str] = ()
    ) -> dict[str, int]:
        wanted = frozenset(keys)
        listed = self.list(prefix, marks=marks) if wanted else ()
        return {stat.key: stat.size for stat in listed if stat.key in wanted}

    def head(self, key: str) -> Stat:
        return inspect.head(self.bucket, key)

    def get(self, key: str) -> Blob:
        return self.writer.read(key)

    def read(self, key: str, *, start: int = 0) -> Iterator[bytes]:
        return download.read(self.bucket, key, start)

    def check_readable(self, key: str) -> None:
        inspect.check_readable(self.bucket, key)

    def download(self, key: str, path: Path, *, advance: Advance | None = None) -> None:
        download.save(self.bucket, key, path, advance or _ignore)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        expected: str | None,
        headers: Headers = PLAIN_HEADERS,
        retry: RetryPolicy | None = None,
    ) -> str:
        return self.writer.write(key, data, expected, headers, retry)

    def upload(
        self,
        key: str,
        chunks: Iterable[bytes],
        *,
        headers: Headers = PLAIN_HEADERS,
        advance: Advance | None = None,
        retry: RetryPolicy | None = None,
    ) -> Uploaded:
        return self.uploader.upload(key, chunks, headers, advance or _ignore, retry)

    def copy(
        self,
        source: str,
        target: str,
        *,
        etag: str,
        size: int,
        sha256: str,
        headers: Headers = PLAIN_HEADERS,
    ) -> None:
        expected = ContentDigest(size=size, sha256=sha256)
        self.copier.copy(
            Copy(source=source, target=target, etag=etag, expected=expected, headers=headers),
            self.writer.dialect or Dialect.QUOTED,
        )

    def delete(self, keys: Iterable[str]) -> None:
        # One request a key: the batch request needs a checksum that stores disagree about.
        with side_by_side(CONNECTIONS // 2, "delete") as workers:
            failures = [error for error in workers.map(self._delete, keys) if error]
        if failures:
            raise remaining(failures) from failures[0]

    def _delete(self, key: str) -> StorageError | None:
        """Remove an object; return the failure, so that the others are removed all the same."""
        doing, delete = f"deleting {key}", self.bucket.small.delete_object
        try:
            try:
                self.bucket.call(doing, delete, Key=self.bucket.key(key))
            except StorageError as error:
                # S3 answers 204 for a missing object; some stores 404, which may be of a missing
                # bucket as well: a listing tells.
                if status_of(error) != HTTPStatus.NOT_FOUND:
                    raise
                next(self.list(key), None)
        except StorageError as error:
            return error
        return None

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        return unfinished(self.bucket, prefix)

    def abort(self, upload: Unfinished) -> None:
        Multipart(
            bucket=self.bucket, key=upload.key, upload_id=upload.upload_id, keeps_sha256=False
        ).abort()
