"""Unpack a disk piece by piece, within a given size and a given memory.

A kilobyte of xz can hold six megabytes of zeros. So whoever decompresses says how large the
content may be, and is handed pieces of at most ``PIECE`` bytes.
"""

import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

from lago_images.disks.checksums import Checksums, Digests
from lago_images.disks.sparse import write_sparse
from lago_images.disks.xz import MAGIC
from lago_images.errors import BuildError
from lago_images.host import space

PIECE = 2**20
# The most that a disk of unknown size may have.
LARGEST = 2**41
# xz's largest preset, -9, takes 65 MiB; a stream's header may ask for 4 GiB.
_MEMORY = 128 * 2**20
_GZIP = b"\x1f\x8b"
# What files begin with that ``unpacked`` decompresses.
COMPRESSED = (MAGIC, _GZIP)


class DamagedError(BuildError):
    """A file is not as it must be: damaged, cut off, too large, or another one."""


class EndsEarlyError(DamagedError):
    """A file ends before what is compressed or packed in it does."""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def decompress(chunks: Iterable[bytes], target: Path, *, largest: int, label: str) -> Digests:
    """Write the disk that an xz stream holds to a new file; blocks of zeros become holes.

    Args:
        chunks: The stream.
        target: The file; removed again on failure.
        largest: Bytes that the disk may have.
        label: The stream's name, for messages.

    Raises:
        DamagedError: It is not one whole xz stream, or holds more.
        BuildError: The file cannot be written.
    """
    sums = Checksums()
    disk = xz_stream(sums.of_stream(chunks), largest=largest, label=label)
    write_sparse(sums.of_disk(disk), target, label=label)
    return sums.digests


def xz_stream(pieces: Iterable[bytes], *, largest: int, label: str) -> Iterator[bytes]:
    """Decompress exactly one xz stream, which is all that virt-builder reads of a file.

    Args:
        pieces: The stream. It is read to its end unless this raises.
        largest: Bytes that it may hold.
        label: Its name, for messages.

    Yields:
        Pieces of at most ``PIECE`` bytes.

    Raises:
        DamagedError: It is damaged or cut off, something follows it, or it holds more.
    """
    return bounded(_decoded(pieces, _xz, label, several=False), largest=largest, label=label)


def unpacked(pieces: Iterable[bytes], *, largest: int, label: str) -> Iterator[bytes]:
    """Unpack a plain, xz or gzip file, detected by its first bytes; of one stream or several.

    Arguments, pieces and errors are those of ``xz_stream``. Zeros may lie between streams and
    after the last.
    """
    pieces = iter(pieces)
    first = next(pieces, b"")
    content: Iterator[bytes] = chain([first], pieces)
    if first.startswith(MAGIC):
        content = _decoded(content, _xz, label, several=True)
    elif first.startswith(_GZIP):
        content = _decoded(content, _Gzip, label, several=True)
    return bounded(content, largest=largest, label=label)


def bounded(pieces: Iterable[bytes], *, largest: int, label: str) -> Iterator[bytes]:
    """Pass on pieces of at most so many bytes together; raises ``DamagedError`` for more."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > largest:
            raise DamagedError(f"{label} holds more than {space.shown(largest)}")
        yield piece


def _decoded(
    pieces: Iterable[bytes], new: Callable[[], _Decoder], label: str, *, several: bool
) -> Iterator[bytes]:
    padding = b"\0" if several else b""
    decoder, streams = None, 0
    for piece in pieces:
        data = piece if decoder else piece.lstrip(padding)
        while data or (decoder and not decoder.needs_input):
            if decoder is None:
                if streams and not several:
                    why = "goes on after the end of its xz stream, which virt-builder refuses"
                    raise DamagedError(f"{label} {why}")
                decoder, streams = new(), streams + 1
            yield _step(decoder, data, label)
            data = b""
            if decoder.eof:
                data, decoder = decoder.unused_data.lstrip(padding), None
    if decoder or not streams:
        raise EndsEarlyError(f"{label} ends before its compressed data does", hint="get it again")


def _step(decoder: _Decoder, data: bytes, label: str) -> bytes:
    try:
        return decoder.decompress(data, PIECE)
    except (lzma.LZMAError, zlib.error) as error:
        hint = f"at most {_MEMORY >> 20} MiB are given to it: compress it with xz -9 or less"
        raise DamagedError(
            f"{label} cannot be decompressed: {error}",
            hint=hint if "memory" in str(error).lower() else None,
        ) from error


def _xz() -> _Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)


class _Gzip:
    """A decompressor of zlib's with the interface of lzma's."""

    def __init__(self) -> None:
        # 16 + MAX_WBITS: a gzip header and trailer, both checked.
        self._inner = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not (self._full or self._inner.unconsumed_tail)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        plain = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        # zlib may have more output without any input left: only when it gives less than it may is
        # there none.
        self._full = len(plain) == max_length
        return plain
