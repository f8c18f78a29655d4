"""Add up every checksum of a disk and of its xz stream while both go by."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """The sizes and checksums of a disk and of its xz stream.

    Attributes:
        size: Bytes of the disk file.
        sha1: Of the disk file, hexadecimal, like the others.
        plain_sha256: Of the disk file.
        compressed_size: Bytes of the xz stream.
        sha256: Of the xz stream.
        sha512: Of the xz stream.
    """

    size: int
    sha1: str
    plain_sha256: str
    compressed_size: int
    sha256: str
    sha512: str


class Checksums:
    """Add up the digests of a disk and of its xz stream, whichever is made from the other."""

    def __init__(self) -> None:
        self._size = self._compressed_size = 0
        # lago knows no other, and a Python in FIPS mode refuses this one if it is to protect.
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._plain_sha256 = hashlib.sha256()
        self._sha256, self._sha512 = hashlib.sha256(), hashlib.sha512()

    def add_disk(self, data: bytes) -> None:
        """Add the next bytes of the disk."""
        self._sha1.update(data)
        self._plain_sha256.update(data)
        self._size += len(data)

    def add_stream(self, data: bytes) -> None:
        """Add the next bytes of the xz stream."""
        self._sha256.update(data)
        self._sha512.update(data)
        self._compressed_size += len(data)

    def of_disk(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on a disk's pieces, each once it is added."""
        for piece in pieces:
            self.add_disk(piece)
            yield piece

    def of_stream(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on an xz stream's pieces, each once it is added."""
        for piece in pieces:
            self.add_stream(piece)
            yield piece

    @property
    def digests(self) -> Digests:
        """Return the digests of what has been added so far."""
        return Digests(
            size=self._size,
            sha1=self._sha1.hexdigest(),
            plain_sha256=self._plain_sha256.hexdigest(),
            compressed_size=self._compressed_size,
            sha256=self._sha256.hexdigest(),
            sha512=self._sha512.hexdigest(),
        )
