"""Read the header of a qcow2 file without any tool: what it needs, and what it brings along.

docs/interop/qcow2.txt of QEMU has the format, whose offsets the comments give. Nothing is believed:
a header may name any file of this host, and a broken one has made qemu-img crash.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path

from lago_images.disks.decompress import EndsEarlyError
from lago_images.errors import BuildError

MAGIC = b"QFI\xfb"
# Magic, version, backing file's offset and size, cluster bits, virtual size, encryption, L1 table's
# size and offset, refcount table's offset and clusters, number and offset of internal snapshots.
_VERSION_2 = struct.Struct(">4sIQIIQIIQQIIQ")
# From version 3 on: incompatible, compatible and autoclear features, refcount order, own length.
_VERSION_3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_FEATURE_NAMES = 0x6803F857
# Room for every extension that there is, and no more than the first cluster of any file.
_READ = 2**16
EXTERNAL_DATA = 1 << 2
_CORRUPT = 1 << 1
# Dirty, corrupt, external data, compression type, extended L2 entries: what QEMU 7.2 knows.
_KNOWN = 0b11111
_DEFAULT_CLUSTER_BITS = 16
_HINT = "convert it with qemu-img convert -O qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The header of a qcow2 file, as far as it decides what becomes of the file.

    Attributes:
        version: 2 or 3.
        backing: Where the name of a backing file is; 0 without one.
        cluster_bits: A cluster has two to the power of this bytes.
        encryption: 0 for none, 1 for AES, 2 for LUKS.
        clusters: Where the table of clusters is, the L1 table, and how many entries it has.
        counts: Where the table of reference counts is, and how many clusters it has.
        snapshots: How many internal snapshots there are.
        incompatible: Features that a reader must know.
        other_features: The compatible and autoclear features.
        extensions: The kinds of header extensions.
    """

    version: int
    backing: int
    cluster_bits: int
    encryption: int
    clusters: tuple[int, int]
    counts: tuple[int, int]
    snapshots: int
    incompatible: int = 0
    other_features: int = 0
    extensions: frozenset[int] = field(default_factory=frozenset)

    @property
    def is_plain(self) -> bool:
        """Return whether it is as ``qemu-img convert`` writes it, and holds only the disk."""
        return (
            self.version == 3  # noqa: PLR2004 -- the format's
            and self.cluster_bits == _DEFAULT_CLUSTER_BITS
            and not (self.backing or self.encryption or self.snapshots)
            and not (self.incompatible or self.other_features)
            and self.extensions <= {_FEATURE_NAMES}
        )


def read_header(disk: Path, label: str) -> Header:
    """Read a qcow2 file's header.

    Args:
        disk: The file, which begins with ``MAGIC``.
        label: Its name, for messages.

    Raises:
        EndsEarlyError: The file ends in its header.
        BuildError: Its version is unknown, or its header has no end.
    """
    with disk.open("rb") as file:
        data = file.read(_READ)
    if len(data) < _VERSION_2.size:
        raise EndsEarlyError(f"{label} is a qcow2 that ends in its header")
    first = _VERSION_2.unpack_from(data)
    version, backing, cluster_bits, encryption, snapshots = (first[at] for at in (1, 2, 4, 6, 11))
    if version not in {2, 3}:
        raise BuildError(f"{label} is a qcow2 of version {version}, not 2 or 3", hint=_HINT)
    incompatible = other = 0
    length = _VERSION_2.size
    if version > 2:  # noqa: PLR2004 -- the format's
        if len(data) < length + _VERSION_3.size:
            raise EndsEarlyError(f"{label} is a qcow2 that ends in its header")
        incompatible, compatible, autoclear, _, length = _VERSION_3.unpack_from(data, length)
        other = compatible | autoclear
    return Header(
        version=version,
        backing=backing,
        cluster_bits=cluster_bits,
        encryption=encryption,
        clusters=(first[8], first[7]),
        counts=(first[9], first[10]),
        snapshots=snapshots,
        incompatible=incompatible,
        other_features=other,
        extensions=_extensions(data, length, label),
    )


def refuse_unusable(header: Header, label: str) -> None:
    """Refuse a file that depends on another, is encrypted, damaged, or newer than its readers.

    Raises:
        BuildError: Says which, and what to do about it.
    """
    if header.backing:
        raise BuildError(f"{label} has a backing file", hint="flatten it with qemu-img convert")
    if header.encryption:
        raise BuildError(f"{label} is an encrypted qcow2", hint="decrypt it with qemu-img convert")
    if header.incompatible & EXTERNAL_DATA:
        raise BuildError(f"{label} keeps its data in another file", hint="use qemu-img convert")
    if header.incompatible & _CORRUPT:
        raise BuildError(
            f"{label} is a qcow2 that is marked as corrupt", hint="repair it: qemu-img check -r all"
        )
    if unknown := header.incompatible & ~_KNOWN:
        raise BuildError(f"{label} is a qcow2 with unknown features ({unknown:#x})", hint=_HINT)


def _extensions(data: bytes, at: int, label: str) -> frozenset[int]:
    kinds: set[int] = set()
    while at + _EXTENSION.size <= len(data):
        kind, length = _EXTENSION.unpack_from(data, at)
        # This kind ends the list.
        if kind == 0:
            return frozenset(kinds)
        kinds.add(kind)
        # The next one starts at a multiple of eight.
        at += _EXTENSION.size + -(-length // 8) * 8
    if len(data) < _READ:
        return frozenset(kinds)
    raise BuildError(f"{label} is a qcow2 whose header has no end", hint=_HINT)
