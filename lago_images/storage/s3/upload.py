"""Upload large objects in parallel parts as their bytes come, and prove what was stored."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import chain
from typing import Any

from lago_images.console import Advance
from lago_images.errors import ConflictError, NotFoundError, StorageError
from lago_images.host.retry import RetryPolicy
from lago_images.host.threads import POLL, result, side_by_side, undo
from lago_images.storage.base import Blocks, Headers, Uploaded
from lago_images.storage.s3.bucket import Bucket, Feature
from lago_images.storage.s3.conditional import http_headers
from lago_images.storage.s3.download import read
from lago_images.storage.s3.etags import (
    SHA256,
    Part,
    base64_md5,
    base64_sha256,
    hexadecimal,
    proves_parts,
    proves_whole,
)
from lago_images.storage.s3.failures import status_of, understood
from lago_images.storage.s3.inspect import head
from lago_images.storage.s3.multipart import Multipart, begin

# Measured on Ceph over loopback: tests/benchmarks/transfer.py. Memory: about (WORKERS + 2) parts.
PART_SIZE = 64 * 1024 * 1024
WORKERS = 4


class _OtherBytesError(StorageError):
    """Raised where the store has other bytes than were sent."""


@dataclass(slots=True)
class Digest:
    """Digest keeps SHA-256 and size of all that went by."""

    size: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)

    def update(self, data: bytes) -> None:
        self.size += len(data)
        self.sha256.update(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploader:
    """Uploader writes to one bucket: ``workers`` parts of ``part_size`` bytes at a time."""

    bucket: Bucket
    part_size: int = PART_SIZE
    workers: int = WORKERS

    def upload(
        self,
        key: str,
        chunks: Iterable[bytes],
        headers: Headers,
        advance: Advance,
        retry: RetryPolicy | None = None,
    ) -> Uploaded:
        """Store a stream. If it raises, or the store fails, nothing is left but the error."""
        # A store that does not refuse to overwrite is looked at first: nobody else writes there.
        if Feature.CREATION in self.bucket.lacking:
            with suppress(NotFoundError):
                head(self.bucket, key)
                raise _exists(key)
        digest = Digest()
        parts = in_parts(chunks, self.part_size, digest)
        first = next(parts, ())
        if sum(map(len, first)) < self.part_size:
            return self._whole(key, b"".join(first), headers, advance, retry)
        session = begin(self.bucket, key, headers, retry)

        def prove() -> None:
            if not proves_parts(self._head(key, digest, retry), sent):
                self._compare(key, digest)

        try:
            sent = self._send(session, chain((first,), parts), advance)
            self._create(key, lambda: session.complete(sent), prove)
        except BaseException as error:
            # What cannot be aborted now is left for ``repo gc``.
            with suppress(StorageError):
                undo(error, session.abort)
            raise
        return Uploaded(key=key, size=digest.size, sha256=digest.sha256.hexdigest())

    def _create(self, key: str, create: Callable[[], None], prove: Callable[[], None]) -> None:
        """Make the object, and prove it.

        An attempt whose answer was lost makes its own repetition fail: what exists is then ours.
        """
        try:
            create()
        except StorageError as error:
            if status_of(error) not in {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED}:
                raise
            try:
                prove()
            except _OtherBytesError:
                raise _exists(key) from error
            except NotFoundError:
                # A 409 of a conflict with another request, after which nothing was created.
                raise error from None
        else:
            prove()

    def _send(self, session: Multipart, parts: Iterable[Blocks], advance: Advance) -> list[Part]:
        pending: set[Future[Part]] = set()
        sent: list[Part] = []

        def collect(futures: Iterable[Future[Part]]) -> None:
            for future in futures:
                part = result(future)
                sent.append(part)
                advance(part.size)

        with side_by_side(self.workers, "upload") as workers:
            for number, blocks in enumerate(parts, 1):
                pending.add(workers.submit(session.send, number, blocks))
                # One more than workers, so that none waits for bytes; not all: each is a part in
                # memory.
                while len(pending) > self.workers:
                    done, pending = wait(pending, POLL, FIRST_COMPLETED)
                    collect(done)
            collect(pending)
        # They end in any order, and completing wants them in that of their numbers.
        return sorted(sent, key=lambda part: part.number)

    def _whole(
        self,
        key: str,
        data: bytes,
        headers: Headers,
        advance: Advance,
        retry: RetryPolicy | None,
    ) -> Uploaded:
        """Store what fits into one request."""
        sha256, md5 = base64_sha256(data), base64_md5(data)
        digest = Digest()
        digest.update(data)

        def create() -> None:
            self.bucket.call_with(
                f"uploading {key}",
                self.bucket.bulk.put_object,
                retry,
                {
                    Feature.CHECKSUMS: {"ChecksumAlgorithm": SHA256, "ChecksumSHA256": sha256},
                    Feature.CREATION: {"IfNoneMatch": "*"},
                },
                Key=self.bucket.key(key),
                Body=data,
                ContentMD5=md5,
                **http_headers(headers),
            )

        def prove() -> None:
            answer = self._head(key, digest, retry)
            if not proves_whole(answer, hexadecimal(sha256), hexadecimal(md5)):
                self._compare(key, digest)

        self._create(key, create, prove)
        advance(len(data))
        return Uploaded(key=key, size=len(data), sha256=digest.sha256.hexdigest())

    def _head(self, key: str, digest: Digest, retry: RetryPolicy | None) -> Mapping[str, object]:
        doing = f"checking the upload of {key}"
        answer: Mapping[str, Any] = self.bucket.call_with(
            doing,
            self.bucket.bulk.head_object,
            retry,
            {Feature.CHECKSUMS: {"ChecksumMode": "ENABLED"}},
            Key=self.bucket.key(key),
        )
        with understood(doing, self.bucket.where):
            size = answer["ContentLength"]
        if size != digest.size:
            raise _OtherBytesError(
                f"uploading {key} to {self.bucket.where}: the store has {size} "
                f"bytes of the {digest.size} that were sent",
                hint="upload it again",
            )
        return answer

    def _compare(self, key: str, digest: Digest) -> None:
        """Read back what the store says nothing conclusive about."""
        stored = Digest()
        for chunk in read(self.bucket, key, 0):
            stored.update(chunk)
        if stored.sha256.digest() != digest.sha256.digest():
            raise _OtherBytesError(
                f"uploading {key} to {self.bucket.where}: the store has other bytes than were sent",
                hint="upload it again",
            )


def _exists(key: str) -> ConflictError:
    return ConflictError(f"uploading {key}: it exists already")


def in_parts(chunks: Iterable[bytes], size: int, digest: Digest) -> Iterator[Blocks]:
    """Cut a stream into parts of ``size`` bytes; the last may be shorter, not empty."""
    gathered: list[memoryview] = []
    remaining = size
    for chunk in chunks:
        digest.update(chunk)
        rest = memoryview(chunk)
        while len(rest) >= remaining:
            yield (*gathered, rest[:remaining])
            rest, gathered, remaining = rest[remaining:], [], size
        if rest:
            gathered.append(rest)
            remaining -= len(rest)
    if gathered:
        yield tuple(gathered)
