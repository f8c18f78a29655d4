"""A disk file becomes one xz stream, and back, in one pass with every checksum.

Measured on a bootstrapped Debian 12 (420 MB qcow2; processor seconds, MB): level 0 38 and 125.3,
1 60 and 118.8, 2 80 and 115.0; levels 6 and up take 215 and more for 102. Level 2 is the default:
every client downloads what is compressed once. liblzma's filter for x86 code took off 0.3 % only.
"""

import hashlib
import lzma
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENXIO
from pathlib import Path

from lago_images.building import xz
from lago_images.console import Advance
from lago_images.errors import BuildError

_ZEROS = bytes(xz.BLOCK_SIZE)
_PIECE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """What one pass over a disk file has shown.

    Attributes:
        size: Bytes of the disk file.
        sha1: Of the disk file, hexadecimal, like the others.
        compressed_size: Bytes of the xz stream.
        sha256: Of the xz stream.
        sha512: Of the xz stream.
    """

    size: int
    sha1: str
    compressed_size: int
    sha256: str
    sha512: str


class Compression:
    """The xz stream of a disk file, made by several threads as it is iterated over, once.

    No more than ``threads + 2`` blocks are in memory at a time. Holes are not read, and blocks
    of zeros are compressed once.
    """

    def __init__(self, disk: Path, *, level: int, threads: int, advance: Advance | None) -> None:
        self._disk = disk
        self._level = level
        self._threads = threads
        self._advance = advance or (lambda _amount: None)
        self._digests: Digests | None = None
        self._zeros: Future[xz.Block] | None = None

    @property
    def digests(self) -> Digests:
        """Known once the stream has ended.

        Raises:
            BuildError: The stream was not read to its end.
        """
        if self._digests is None:
            raise BuildError(f"{self._disk} was not compressed to its end")
        return self._digests

    def __iter__(self) -> Iterator[bytes]:
        sha256, sha512 = hashlib.sha256(), hashlib.sha512()
        sha1 = hashlib.sha1(usedforsecurity=False)
        compressed = size = 0
        for chunk, plain in self._stream(sha1):
            sha256.update(chunk)
            sha512.update(chunk)
            compressed += len(chunk)
            size += plain
            yield chunk
            self._advance(plain)
        self._digests = Digests(
            size=size,
            sha1=sha1.hexdigest(),
            compressed_size=compressed,
            sha256=sha256.hexdigest(),
            sha512=sha512.hexdigest(),
        )

    def _stream(self, sha1: "hashlib._Hash") -> Iterator[tuple[bytes, int]]:
        """Pieces of the stream, each with how many bytes of the disk it stands for."""
        yield xz.HEADER, 0
        records: list[tuple[int, int]] = []
        with _pool(self._threads) as pool:
            pending: deque[Future[xz.Block]] = deque()
            for data in blocks(self._disk):
                sha1.update(data)
                pending.append(self._submit(pool, data))
                if len(pending) > self._threads + 1:
                    yield _record(pending.popleft().result(), records)
            while pending:
                yield _record(pending.popleft().result(), records)
        yield xz.ending(records), 0

    def _submit(self, pool: ThreadPoolExecutor, data: bytes) -> "Future[xz.Block]":
        if data is not _ZEROS:
            return pool.submit(xz.encode, data, self._level)
        if self._zeros is None:
            self._zeros = pool.submit(xz.encode, data, self._level)
        return self._zeros


def compress(
    disk: Path,
    *,
    level: int,
    threads: int | None = None,
    advance: Advance | None = None,
) -> Compression:
    """The xz stream of a disk file, and its checksums once that has been read.

    Args:
        disk: The file; must not change meanwhile.
        level: xz's preset, 0 to 9.
        threads: How many blocks are compressed side by side; by default one a processor.
        advance: Told how many bytes of the disk are done.
    """
    return Compression(
        disk,
        level=level,
        threads=threads or len(os.sched_getaffinity(0)),
        advance=advance,
    )


def blocks(disk: Path) -> Iterator[bytes]:
    """A file in blocks; every full block of zeros is the same object."""
    with disk.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for start in range(0, size, xz.BLOCK_SIZE):
            length = min(xz.BLOCK_SIZE, size - start)
            if _data_after(file.fileno(), start, size) >= start + length:
                data = _ZEROS[:length]
            else:
                data = _read(file.fileno(), start, length, disk)
            yield _ZEROS if data == _ZEROS else data


def decompress(chunks: Iterable[bytes], target: Path, *, what: str) -> Digests:
    """Write what an xz stream holds to a new file; blocks of zeros become holes.

    Args:
        chunks: The stream.
        target: The file; removed again on failure.
        what: The stream's name, for messages.

    Raises:
        BuildError: It is not one whole xz stream.
    """
    with target.open("xb") as file:
        try:
            return _unpack(chunks, file.fileno(), what)
        except BaseException:
            target.unlink()
            raise


def _unpack(chunks: Iterable[bytes], fd: int, what: str) -> Digests:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    sha1, size = hashlib.sha1(usedforsecurity=False), 0
    sha256, sha512, compressed = hashlib.sha256(), hashlib.sha512(), 0
    for chunk in chunks:
        sha256.update(chunk)
        sha512.update(chunk)
        compressed += len(chunk)
        for plain in _decoded(decoder, chunk, what):
            sha1.update(plain)
            _write(fd, plain, size)
            size += len(plain)
    if not decoder.eof:
        raise BuildError(f"{what} ends before its xz stream does", hint="download it again")
    os.ftruncate(fd, size)
    return Digests(
        size=size,
        sha1=sha1.hexdigest(),
        compressed_size=compressed,
        sha256=sha256.hexdigest(),
        sha512=sha512.hexdigest(),
    )


def _decoded(decoder: lzma.LZMADecompressor, chunk: bytes, what: str) -> Iterator[bytes]:
    """What a chunk adds, in pieces of bounded size: a block of zeros is 1 : 6000."""
    if decoder.eof and chunk:
        raise BuildError(f"{what} goes on after the end of its xz stream")
    try:
        while chunk or not (decoder.needs_input or decoder.eof):
            if plain := decoder.decompress(chunk, _PIECE):
                yield plain
            chunk = b""
    except lzma.LZMAError as error:
        raise BuildError(f"{what} cannot be decompressed: {error}") from error
    if decoder.unused_data:
        raise BuildError(f"{what} goes on after the end of its xz stream")


def _write(fd: int, data: bytes, at: int) -> None:
    if data == _ZEROS[: len(data)]:
        return
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def _data_after(fd: int, start: int, size: int) -> int:
    """Where the next data of a file is; its size when the rest is a hole."""
    try:
        return os.lseek(fd, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno == ENXIO:
            return size
        raise


def _read(fd: int, start: int, length: int, disk: Path) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = os.pread(fd, length - len(data), start + len(data))
        if not piece:
            raise BuildError(f"{disk} became shorter while it was compressed")
        if len(piece) == length:
            return piece
        data += piece
    return bytes(data)


def _record(block: xz.Block, records: list[tuple[int, int]]) -> tuple[bytes, int]:
    records.append((block.unpadded, block.size))
    return block.data, block.size


@contextmanager
def _pool(threads: int) -> Generator[ThreadPoolExecutor]:
    """Threads that are told to stop, and not waited for block by block, when the work ends."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="xz")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
