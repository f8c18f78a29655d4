"""Define the contract of a store, and the values that go in and out of one."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lago_images.console import Advance, Console
from lago_images.errors import StorageError, TamperedError
from lago_images.host.retry import RetryPolicy

# Bytes. Below the 128 KiB from which glibc's malloc begins by asking the kernel for cleared pages
# (M_MMAP_THRESHOLD in mallopt(3)).
BLOCK = 120 * 1024

Blocks = tuple[bytes | memoryview, ...]


class Body:
    """Body hands blocks on as the body of a request, with what botocore asks of a file."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._next = 0

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def read(self, _amount: int = -1) -> bytes | memoryview:
        """Return the next block, whole: urllib3 asks for 16 KiB, and sends what it gets."""
        if self._next == len(self._blocks):
            return b""
        self._next += 1
        return self._blocks[self._next - 1]

    def seek(self, position: int) -> None:
        """Go back to the begin, to send it again."""
        # botocore rewinds a body before it sends it anew, and asks for nothing else.
        if position:
            raise ValueError(position)
        self._next = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """Headers that HTTP clients of an object get."""

    content_type: str = "application/octet-stream"
    cache_control: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """Stat holds what is known of an object without reading it.

    Attributes:
        key: Relative to the repository's root, with ``/``.
        size: Bytes.
        etag: Opaque; equal for equal content as long as nobody writes the key.
        modified: Seconds since the epoch, by the store's clock.
        headers: As the store keeps them; None from a listing, and where it keeps none.
    """

    key: str
    size: int
    etag: str
    modified: float
    headers: Headers | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Blob holds a small object, read whole. ``headers`` are None where the store keeps none."""

    key: str
    data: bytes
    etag: str
    headers: Headers | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """Uploaded holds what was stored, proven to be what was sent.

    ``sha256`` is hexadecimal, of the bytes that were sent.
    """

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """Unfinished names an upload that was not finished. ``begun``: seconds since the epoch."""

    key: str
    upload_id: str
    begun: float


class Store(Protocol):
    """Objects under keys. Every method may raise ``StorageError``; see ``check_key`` for keys.

    Writes are atomic: a reader sees the whole old or the whole new object.
    """

    @property
    def url(self) -> str:
        """Return the store's address as the user would write it; without credentials."""
        ...

    @property
    def folder(self) -> Path | None:
        """Return the folder of this machine with all of the objects; None for any other store.

        It need not exist: then the store is empty, and the first write makes it.
        """
        ...

    def ensure_safe_writes(self, *, single_writer: bool, console: Console) -> None:
        """Let only a store that supports conditional writes be published to.

        To be called before the first conditional write. A directory keeps them by construction,
        if it can be written at all; a bucket is probed, and the answer remembered in it.

        Args:
            single_writer: Use a store without conditional writes all the same: nobody else writes.
            console: Warned of what that risks.

        Raises:
            UnsafeStoreError: The store does not keep conditional writes, and others may write.
            StorageError: It could not be asked, or written.
        """
        ...

    def list(
        self, prefix: str = "", *, marks: Sequence[str] = (), without: Collection[str] = ()
    ) -> Iterator[Stat]:
        """List the objects whose key starts with ``prefix``, by key. Complete, or an error.

        The keys are names that others chose: one may be no key that the other methods take.

        ``marks`` are keys that cut a long list into parts of similar lengths. They need not be
        there: a store that answers page by page lists the parts side by side, no more.

        ``without`` are folders, each with ``/`` at its end, that the caller does not look at: what
        is in them is left out where that is less work.
        """
        ...

    def sizes(
        self, prefix: str, keys: Collection[str], *, marks: Sequence[str] = ()
    ) -> dict[str, int]:
        """Return the sizes of objects, all of which start with ``prefix``.

        Those that are missing are left out; that is proven, or an error. ``marks`` are for
        ``list``, which some stores make it of.
        """
        ...

    def head(self, key: str) -> Stat:
        """Look at an object. Raises ``NotFoundError`` on a 404 and on nothing weaker."""
        ...

    def get(self, key: str) -> Blob:
        """Read a small object whole. Raises ``NotFoundError`` on a 404 and on nothing weaker."""
        ...

    def read(self, key: str, *, start: int = 0) -> Iterator[bytes]:
        """Read a large object from ``start`` on, in pieces; broken reads are taken up again."""
        ...

    def check_readable(self, key: str) -> None:
        """Read one byte: an object that can be looked at may still refuse to be read.

        Raises:
            NotFoundError: It is missing.
            UnreadableError: The store refuses to give its bytes; the hint is the repair.
        """
        ...

    def download(self, key: str, path: Path, *, advance: Advance | None = None) -> None:
        """Write a large object into a file, as fast as it comes and in no order.

        Whoever asks compares the bytes with a checksum. When it raises, the file has some of them.
        """
        ...

    def put(
        self,
        key: str,
        data: bytes,
        *,
        expected: str | None,
        headers: Headers = ...,
        retry: RetryPolicy | None = None,
    ) -> str:
        """Write a small object if nobody else did; returns its new ETag.

        Args:
            key: The object.
            data: Its new content.
            expected: The ETag it must still have; None if it must not exist.
            headers: For its HTTP clients.
            retry: For a store that is away; its own by default.

        Raises:
            ConflictError: It exists, or has another ETag now. Nothing was written. A write that
                was applied though its answer was lost counts as done and is not a conflict.
        """
        ...

    def upload(
        self,
        key: str,
        chunks: Iterable[bytes],
        *,
        headers: Headers = ...,
        advance: Advance | None = None,
        retry: RetryPolicy | None = None,
    ) -> Uploaded:
        """Store a large object as its bytes come, in one pass and parallel parts.

        The key must be unique by construction. If ``chunks`` raises, nothing is stored. With
        ``retry``, for a store that is away, the parts that are on their way wait in memory.

        Raises:
            ConflictError: The key exists already, and the store refuses to overwrite it (Ceph 18
                does not, of objects in parts).
        """
        ...

    def copy(
        self,
        source: str,
        target: str,
        *,
        etag: str,
        size: int,
        sha256: str,
        headers: Headers = ...,
    ) -> None:
        """Copy a large object inside the store, and prove the copy's bytes.

        The source may be overwritten at any time by others, so the copy is what is proved: by the
        store's own SHA-256 of it where the probe saw that the store computes one, else by reading
        it once. A call that failed may be made again with another target.

        Args:
            source: The object to copy.
            target: The new object's key, unique by construction: nobody else ever writes it.
            etag: The ETag that the source must still have.
            size: Bytes that the copy must have.
            sha256: Of the bytes that the copy must have; hexadecimal.
            headers: For the copy's HTTP clients; the source's are not taken over.

        Raises:
            NotFoundError: The source is missing.
            ConflictError: The source has another ETag now, or the target exists already.
            TamperedError: The copy had other bytes; it was removed again.
        """
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; a missing one is not an error.

        Raises:
            StorageError: Some are left; all others are removed all the same.
        """
        ...

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """List the uploads of keys that start with ``prefix``, neither finished nor aborted."""
        ...

    def abort(self, upload: Unfinished) -> None:
        """Drop an unfinished upload and its parts; a missing one is not an error."""
        ...


# Where a bucket keeps how its store was found to be, and a folder that is there while that is found
# out: see ``Store.ensure_safe_writes``. Who asks for that has published nothing.
PROBED, PROBING = "state/store.json", "state/probe/"
# Bytes: S3's limit.
_LONGEST_KEY = 1024
_SHOWN = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def is_key(key: str) -> bool:
    """Tell whether this is a key in every store, and means no other object on the way to it.

    Servers and proxies take ``a/../b`` and ``a//b`` for other paths, and control characters have
    no form in XML.
    """
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        # A file's name that is not UTF-8 comes as lone surrogates, which no request can have.
        return False
    has_good_parts = {"", ".", ".."}.isdisjoint(key.split("/"))
    return has_good_parts and length <= _LONGEST_KEY and not _CONTROL.search(key)


def check_key(key: str) -> None:
    """Refuse what ``is_key`` does not take.

    Raises:
        StorageError: It has an empty, ``.`` or ``..`` part, a control character, or is too long.
    """
    if not is_key(key):
        raise StorageError(
            f"{key[:_SHOWN]!r} cannot be a key of a repository",
            hint="if it is in the store, remove it with the store's own tools",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentDigest:
    """The bytes that an object must have: their number, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.size} bytes with SHA-256 {self.sha256}"

    def check_copy(self, source: str, target: str, actual: "ContentDigest") -> None:
        """Compare with what a copy has; raises ``TamperedError`` where it differs."""
        if actual != self:
            raise tampered(source, target, f"expected {self}, but the copy had {actual}")


def tampered(source: str, target: str, difference: str) -> TamperedError:
    """Return the error for a source whose bytes are not those that were judged."""
    return TamperedError(
        f"copying {source} to {target}: {difference}",
        hint="somebody has written to this build since it was judged: find out who used the "
        "builder's credentials, then build the image anew",
    )


def remaining(failures: Sequence[StorageError]) -> StorageError:
    """Return the one error for all objects that could not be removed."""
    first = failures[0]
    if len(failures) == 1:
        return first
    return StorageError(f"{first.message} (and {len(failures) - 1} more)", hint=first.hint)
