"""Unpack a base's disk file: plain, xz or gzip, recognised by its content."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

from lago_images.disks.decompress import LARGEST, PIECE, DamagedError, unpacked
from lago_images.disks.sparse import write_sparse
from lago_images.errors import BuildError

# What must stay free when a disk has been unpacked: it is customised next.
_RESERVE = 2**28
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


class ChecksumError(DamagedError):
    """A file is not the one that was meant."""


def unpack(
    source: Path,
    target: Path,
    *,
    expected: Checksum | None,
    what: str,
    largest: int = LARGEST,
) -> Checksum:
    """Write the disk in ``source`` to ``target``; one pass, holes stay holes.

    Args:
        source: Plain, xz or gzip, by its first bytes.
        target: The new file; removed again on failure.
        expected: Of ``source`` as it is.
        what: The source's name, for messages.
        largest: Bytes that the disk may have.

    Returns:
        The checksum of ``source``, with sha256 where none was expected.

    Raises:
        ChecksumError: It has another checksum than expected.
        BuildError: It is damaged, ends early, or is larger than the free space or ``largest``.
    """
    try:
        algorithm = expected.algorithm if expected else "sha256"
        digest = hashlib.new(algorithm)
        with source.open("rb", buffering=0) as file:
            disk = unpacked(_hashed(file, digest), largest=largest, what=what)
            write_sparse(disk, target, what=what, reserve=_RESERVE)
    except BuildError as error:
        # Damage and a wrong checksum are one fault: the checksum tells which file it is not.
        if expected:
            _compare(_checksum(source, expected.algorithm), expected, what, error)
        raise
    found = Checksum(algorithm=algorithm, digits=digest.hexdigest())
    if expected and found != expected:
        target.unlink()
        _compare(found, expected, what, None)
    return found


def disk_format(disk: Path, what: str) -> str:
    """Return ``qcow2`` or ``raw``, from the file's header alone.

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
    while piece := file.read(PIECE):
        digest.update(piece)
        yield piece


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
