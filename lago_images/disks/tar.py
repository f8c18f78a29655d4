"""Take the one file out of a tar archive while it goes by.

Debian's cloud images are in such archives, and Google's clouds take no others. ``tarfile`` knows
their headers, GNU's sparse files included. Nothing is believed: a header may ask for gigabytes of
memory, or name sizes below zero, at which ``tarfile`` has read for ever.
"""

import tarfile
from collections import deque
from collections.abc import Iterable, Iterator
from io import RawIOBase
from typing import IO, Self, cast

from lago_images.disks.decompress import PIECE, DamagedError, EndsEarlyError
from lago_images.errors import BuildError

# Bytes of a header's extension, a long name or a list of attributes.
_LARGEST_EXTENSION = 2**16
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.GNUTYPE_SPARSE)
_HINT = "unpack it, and name the disk in it"


class _Header(tarfile.TarInfo):
    """A header whose sizes are within bounds."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        is_extension = header.type not in tarfile.SUPPORTED_TYPES or header.type in (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if header.size < 0 or (is_extension and header.size > _LARGEST_EXTENSION):
            raise tarfile.HeaderError(f"a header of {header.size} bytes")
        return header


class _Pieces(RawIOBase):
    """Read pieces as a file; ``is_over`` once more was asked for than there is."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.is_over = False

    def read(self, size: int = -1, /) -> bytes:
        data = self._rest or next(self._pieces, b"")
        self.is_over = not data
        self._rest = data[size:]
        return data[:size]


def is_tar(start: bytes) -> bool:
    """Return whether a file that begins so is a tar archive."""
    return start.startswith(b"ustar", 257)


def only_file(pieces: Iterable[bytes], *, largest: int, label: str) -> Iterator[bytes]:
    """Yield the content of the only file in a tar archive, in pieces of at most ``PIECE`` bytes.

    Args:
        pieces: The archive.
        largest: Bytes that the file may have; holes count, too.
        label: The archive's name, for messages.

    Raises:
        BuildError: It has no file, several, or something else.
        EndsEarlyError: It is cut off.
        DamagedError: It is damaged, or the file is larger.
    """
    pieces = iter(pieces)
    source = _Pieces(pieces)
    file = cast("IO[bytes]", source)
    try:
        with tarfile.open(fileobj=file, mode="r|", bufsize=PIECE, tarinfo=_Header) as archive:
            member = archive.next()
            if member is None or member.type not in _FILES:
                why = "is a tar archive that does not begin with a file"
                raise BuildError(f"{label} {why}", hint=_HINT)
            _refuse_odd_sizes(member, largest, label)
            content = archive.extractfile(member)
            assert content is not None  # noqa: S101 -- a regular file has content
            while piece := content.read(PIECE):
                yield piece
            if archive.next() is not None:
                raise BuildError(f"{label} is a tar archive of several files", hint=_HINT)
        # Whoever sums the archive sums all that is in it.
        deque(pieces, maxlen=0)
    except tarfile.TarError as error:
        if source.is_over:
            raise EndsEarlyError(
                f"{label} ends before the file in its tar archive does", hint="get it again"
            ) from error
        raise DamagedError(f"{label} is a damaged tar archive: {error}") from error


def _refuse_odd_sizes(member: tarfile.TarInfo, largest: int, label: str) -> None:
    """Refuse a file that is too large, or whose parts overlap or lie outside of it."""
    size: int = member.size
    if size > largest:
        raise DamagedError(f"{label} holds a file of {size} bytes, more than {largest}")
    # typeshed does not know it: the offset and the size of each part that is no hole.
    parts: list[tuple[int, int]] = getattr(member, "sparse", None) or []
    end = 0
    for offset, length in parts:
        if offset < end or length < 0 or offset + length > size:
            raise DamagedError(f"{label} holds a sparse file whose parts overlap")
        end = offset + length
