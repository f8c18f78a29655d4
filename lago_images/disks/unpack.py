"""Unpack a base's disk file: plain, xz, gzip, or alone in a tar; recognised by its content."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lago_images.console import counted
from lago_images.disks import qcow2_header, tar
from lago_images.disks.decompress import LARGEST, PIECE, DamagedError, bounded, unpacked
from lago_images.disks.ending import Ending, ending_of
from lago_images.disks.sparse import write_sparse
from lago_images.errors import BuildError

# What must stay free when a disk has been unpacked: it is customised next.
_RESERVE = 2**28
# What a file begins with that is no disk, and what it is; by where in the file that stands.
_FOREIGN: Mapping[int, Mapping[bytes, str]] = {
    0: {
        b"BZh": "bzip2",
        b"\x28\xb5\x2f\xfd": "zstd",
        b"\x04\x22\x4d\x18": "lz4",
        b"\x5d\x00\x00": "lzma",
        b"\x89LZO": "lzop",
        b"LZIP": "lzip",
        b"\xfd7zXZ\0": "xz inside what was unpacked",
        b"\x1f\x8b": "gzip inside what was unpacked",
        b"PK\x03\x04": "zip",
        b"7z\xbc\xaf\x27\x1c": "7z",
        b"Rar!": "rar",
        b"!<arch>\n": "an ar archive",
        b"070701": "a cpio archive",
        b"KDMV": "VMDK",
        b"COWD": "VMDK",
        b"# Disk DescriptorFile": "a VMDK's descriptor, without the disk",
        b"vhdxfile": "VHDX",
        b"conectix": "VHD",
        b"QED\0": "QED",
        b"WithoutFreeSpace": "a Parallels disk",
        b"WithouFreSpacExt": "a Parallels disk",
        b"Bochs Virtual HD Image": "a Bochs disk",
        b"LUKS\xba\xbe": "encrypted with LUKS",
        b"hsqs": "squashfs",
        b"\x7fELF": "a program",
        b"#!": "a script",
        b"<!DOCTY": "HTML",
        b"<!docty": "HTML",
        b"<html": "HTML",
        b"<?xml": "XML",
        b"version https://git-lfs": "a Git LFS pointer",
    },
    64: {b"\x7f\x10\xda\xbe": "VDI"},
    257: {b"ustar": "a tar archive inside what was unpacked"},
}
# A fixed VHD is a raw disk with this at the start of its last sector; macOS's dmg ends likewise.
_FOOTERS = {b"conectix": "VHD", b"koly": "dmg"}
_SECTOR = 512
_HINT = "a base is raw or qcow2, plain, xz or gzip: qemu-img convert -O qcow2 makes one of a disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """``sha256`` or ``sha512`` and its hexadecimal digits."""

    algorithm: str
    digits: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digits}"


class ChecksumError(DamagedError):
    """A file is not the one that was meant; ``ending`` tells how it ends, where that is known."""

    def __init__(
        self, message: str, *, hint: str | None = None, ending: Ending | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.ending = ending


def unpack(
    source: Path,
    target: Path,
    *,
    expected: Checksum | None,
    label: str,
    largest: int = LARGEST,
    check: Callable[[], None] = lambda: None,
) -> Checksum:
    """Write the disk in ``source`` to ``target``; one pass, holes stay holes.

    Args:
        source: Plain, xz or gzip, by its first bytes; a disk or a tar archive with one alone, as
            Debian's and Google's clouds take them.
        target: The new file; removed again on failure.
        expected: Of ``source`` as it is.
        label: The source's name, for messages.
        largest: Bytes that the disk may have.
        check: Called now and then; what it raises ends the work.

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

            def pieces() -> Iterator[bytes]:
                while piece := file.read(PIECE):
                    check()
                    digest.update(piece)
                    yield piece

            disk = bounded(_disk(pieces(), largest, label), largest=largest, label=label)
            write_sparse(disk, target, label=label, reserve=_RESERVE)
    except BuildError as error:
        # Damage and a wrong checksum are one fault: the checksum tells which file it is not.
        if expected:
            _compare(source, _checksum(source, expected.algorithm), expected, label, error)
        raise
    actual = Checksum(algorithm=algorithm, digits=digest.hexdigest())
    if expected and actual != expected:
        target.unlink()
        _compare(source, actual, expected, label, None)
    return actual


def _disk(pieces: Iterator[bytes], largest: int, label: str) -> Iterator[bytes]:
    # A tar's headers and padding are little.
    content = unpacked(pieces, largest=largest + PIECE, label=label)
    first = next(content, b"")
    whole = chain([first], content)
    if tar.is_tar(first):
        return tar.only_file(whole, largest=largest, label=label)
    return whole


def disk_format(disk: Path, label: str) -> str:
    """Return ``qcow2`` or ``raw``, from the file's header alone.

    No tool opens the file before this: a qcow2's header may name any file of this host, which
    the tool would then read.

    Raises:
        BuildError: It is a qcow2 that depends on another file, is encrypted, damaged or unknown to
            QEMU, or another format.
    """
    with disk.open("rb") as file:
        start = file.read(_SECTOR)
        file.seek(max(0, disk.stat().st_size - _SECTOR))
        end = file.read(_SECTOR)
    if not start:
        raise BuildError(f"{label} is empty")
    names = [
        name
        for at, magics in _FOREIGN.items()
        for magic, name in magics.items()
        if start.startswith(magic, at)
    ]
    names += [name for magic, name in _FOOTERS.items() if end.startswith(magic)]
    if names:
        raise BuildError(f"{label} is {names[0]}", hint=_HINT)
    if not start.startswith(qcow2_header.MAGIC):
        if len(start) < _SECTOR:
            size = counted(len(start), "byte")
            raise BuildError(f"{label} has {size}, less than a sector: it is no disk")
        return "raw"
    qcow2_header.refuse_unusable(qcow2_header.read_header(disk, label), label)
    return "qcow2"


def _checksum(source: Path, algorithm: str) -> Checksum:
    with source.open("rb") as file:
        digits = hashlib.file_digest(file, algorithm).hexdigest()
    return Checksum(algorithm=algorithm, digits=digits)


def _compare(
    source: Path, actual: Checksum, expected: Checksum, label: str, cause: Exception | None
) -> None:
    if actual == expected:
        return
    ending = ending_of(source, cause)
    message = f"{label} has the checksum {actual}, not {expected}"
    hint = "if it was changed on purpose, change the checksum; else do not use it"
    if ending.is_whole is False:
        message += f": it is incomplete, {ending}"
        hint = "get it again, or from where it is whole"
    raise ChecksumError(message, hint=hint, ending=ending) from cause
