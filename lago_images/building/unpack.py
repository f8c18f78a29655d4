"""A disk file from what a base comes in: plain, xz or gzip, told by its content."""

import hashlib
import lzma
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from itertools import chain
from pathlib import Path
from typing import Protocol

from lago_images.errors import BuildError
from lago_images.host import space

_PIECE = 2**20
_ZEROS = bytes(_PIECE)
# What must stay free when a disk has been unpacked: it is customised next.
_RESERVE = 2**28
_LARGEST = 2**41
_FOREIGN = {
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"KDMV": "VMDK",
    b"vhdxfile": "VHDX",
    b"conectix": "VHD",
    b"QED\0": "QED",
    b"<!DOCTY": "HTML",
    b"<html": "HTML",
}
_QCOW2 = b"QFI\xfb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """``sha256`` or ``sha512`` and its hexadecimal digits."""

    algorithm: str
    digits: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digits}"


class ChecksumError(BuildError):
    """A file is not the one that was meant."""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def unpack(source: Path, target: Path, *, expected: Checksum | None, what: str) -> Checksum:
    """Write the disk in ``source`` to ``target``; one pass, holes stay holes.

    Args:
        source: Plain, xz or gzip; told by its first bytes.
        target: The new file; removed again on failure.
        expected: Of ``source`` as it is.
        what: The source's name, for messages.

    Returns:
        The checksum of ``source``, with sha256 where none was expected.

    Raises:
        ChecksumError: It has another checksum than expected.
        BuildError: It is damaged, ends early, or is larger than the free space.
    """
    try:
        found = _unpack(source, target, expected.algorithm if expected else "sha256", what)
    except BuildError as error:
        # Damage and a wrong checksum are one fault: the checksum tells which file it is not.
        if expected:
            _compare(_checksum(source, expected.algorithm), expected, what, error)
        raise
    if expected and found != expected:
        target.unlink()
        _compare(found, expected, what, None)
    return found


def _unpack(source: Path, target: Path, algorithm: str, what: str) -> Checksum:
    digest = hashlib.new(algorithm)
    with target.open("xb") as out:
        try:
            with source.open("rb", buffering=0) as file:
                _write(_plain(_hashed(file, digest), what), out.fileno(), target, what)
        except BaseException:
            target.unlink()
            raise
    return Checksum(algorithm=algorithm, digits=digest.hexdigest())


def disk_format(disk: Path, what: str) -> str:
    """``qcow2`` or ``raw``, from the file's header alone.

    No tool opens the file before this: a qcow2's header may name any file of this host, which
    the tool would then read.

    Raises:
        BuildError: It is a qcow2 with a backing file or external data file, or another format.
    """
    with disk.open("rb") as file:
        header = file.read(80)
    for magic, name in _FOREIGN.items():
        if header.startswith(magic):
            raise BuildError(f"{what} is {name}", hint="a base is raw or qcow2, plain, xz or gzip")
    if not header.startswith(_QCOW2):
        if not header:
            raise BuildError(f"{what} is empty")
        return "raw"
    if len(header) < struct.calcsize(">4sIQ"):
        raise BuildError(f"{what} is a qcow2 that ends in its header")
    # docs/interop/qcow2.txt: version at 4, backing_file_offset at 8; from version 3 on the
    # incompatible features at 72, of which bit 2 means an external data file.
    version, backing = struct.unpack_from(">IQ", header, 4)
    if backing:
        raise BuildError(f"{what} has a backing file", hint="flatten it with qemu-img convert")
    if version >= 3 and len(header) == 80 and struct.unpack_from(">Q", header, 72)[0] & 4:  # noqa: PLR2004 -- see above
        raise BuildError(f"{what} keeps its data in another file", hint="use qemu-img convert")
    return "qcow2"


def _hashed(file: RawIOBase, digest: "hashlib._Hash") -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        digest.update(piece)
        yield piece


def _plain(pieces: Iterator[bytes], what: str) -> Iterator[bytes]:
    first = next(pieces, b"")
    rest = chain([first], pieces)
    if first.startswith(b"\xfd7zXZ\0"):
        return _decoded(rest, _xz, what)
    if first.startswith(b"\x1f\x8b"):
        return _decoded(rest, _Gzip, what)
    return rest


def _decoded(pieces: Iterator[bytes], new: Callable[[], _Decoder], what: str) -> Iterator[bytes]:
    """The content of one stream or several; each piece that is given has a bounded size."""
    decoder, begun = new(), False
    try:
        for piece in pieces:
            # Zeros may fill the room between streams and after the last.
            data = piece if begun else piece.lstrip(b"\0")
            while data or (begun and not decoder.needs_input):
                begun = True
                yield decoder.decompress(data, _PIECE)
                data = b""
                if decoder.eof:
                    data = decoder.unused_data.lstrip(b"\0")
                    decoder, begun = new(), False
    except (lzma.LZMAError, zlib.error) as error:
        raise BuildError(f"{what} is damaged: {error}") from error
    if begun:
        raise BuildError(f"{what} ends before its compressed data does")


def _xz() -> _Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ)


class _Gzip:
    """zlib's decompressor with the interface of lzma's."""

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
        self._full = len(plain) == max_length
        return plain


def _write(pieces: Iterator[bytes], fd: int, target: Path, what: str) -> None:
    room = space.free(target.parent) - _RESERVE
    size = written = 0
    for piece in pieces:
        if size + len(piece) > _LARGEST:
            raise BuildError(f"{what} holds a disk of more than {space.shown(_LARGEST)}")
        if piece != _ZEROS[: len(piece)]:
            written += len(piece)
            if written > room:
                raise BuildError(
                    f"{what} does not fit into {target.parent}, "
                    f"where {space.shown(room + _RESERVE)} were free",
                    hint=space.HINT,
                )
            _write_at(fd, piece, size)
        size += len(piece)
    os.ftruncate(fd, size)


def _write_at(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        try:
            done = os.pwrite(fd, view, at)
        except OSError as error:
            raise BuildError(f"writing a disk: {error.strerror}") from error
        view, at = view[done:], at + done


def _checksum(source: Path, algorithm: str) -> Checksum:
    with source.open("rb") as file:
        digits = hashlib.file_digest(file, algorithm).hexdigest()
    return Checksum(algorithm=algorithm, digits=digits)


def _compare(found: Checksum, expected: Checksum, what: str, cause: Exception | None) -> None:
    if found != expected:
        raise ChecksumError(
            f"{what} has the checksum {found}, not {expected}",
            hint="if it was changed on purpose, change the checksum; else do not use it",
        ) from cause
