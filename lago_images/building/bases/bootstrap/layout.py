"""Lay out a disk: its partitions, where GRUB lies for a BIOS, and every identifier on it.

Identifiers are made of the image's fingerprint: the same inputs give the same disk.
"""

import struct
import uuid
from dataclasses import dataclass
from typing import Self

from lago_images.errors import BuildError
from lago_images.specs.bases import has_bios

SECTOR = 512
MIB = 2**20
# Debian's GRUB and shim are 6 MiB; firmware updates (fwupd) want 50 MiB more for a moment.
ESP_SIZE = 126 * MIB
# UEFI specification 2.10, table 5.7; GRUB's manual, "BIOS installation"; Linux file system data.
_ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_BIOS_BOOT_TYPE = "21686148-6449-6E6F-744E-656564454649"
_LINUX_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
_NAMESPACE = uuid.UUID("b4a8f6f5-5c3e-4f0b-9d0a-6f2f5d7a3c11")
# boot.img's first 440 bytes are code; the partition table follows. At 0x5c it has the sector of
# core.img (grub-core/boot/i386/pc/boot.S), whose own first sector ends in a list of where the rest
# is: its start, its length and a segment (grub-core/boot/i386/pc/diskboot.S).
_BOOT_CODE = 440
_CORE_SECTOR = 0x5C
_REST_SECTOR = SECTOR - 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition: its first byte, its length in bytes, its GPT type, name and GUID."""

    start: int
    size: int
    type: str
    name: str
    guid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A disk to make: for a BIOS alone (one partition, MBR), for UEFI too, or for UEFI alone (GPT).

    The root partition is the last on the disk and has the highest number: growing is simple, and
    virt-resize, which numbers partitions by their place, keeps its number.

    Attributes:
        size: The disk's bytes, whole MiB.
        has_uefi: Whether there is an EFI system partition.
        identity: What all identifiers are made of, such as the image's fingerprint.
        distribution: Whose boot files are on it: ``Debian`` or ``Ubuntu``.
        arch: Of the machines it is for; where those never have a BIOS there is no GRUB for one.
    """

    size: int
    has_uefi: bool
    identity: str
    distribution: str = "Debian"
    arch: str = "x86_64"

    @property
    def has_bios(self) -> bool:
        """Tell whether GRUB for a BIOS is on it."""
        return has_bios(self.arch)

    @property
    def root_start(self) -> int:
        """Return the root partition's first byte."""
        return self.esp.start + ESP_SIZE if self.has_uefi else MIB

    @property
    def root_size(self) -> int:
        """Return the root partition's bytes; GPT's second copy is behind it."""
        return self.size - self.root_start - (MIB if self.has_uefi else 0)

    @property
    def core_start(self) -> int:
        """Return the first byte of GRUB's image for a BIOS."""
        return MIB if self.has_uefi else SECTOR

    @property
    def grub_prefix(self) -> str:
        """Return GRUB's folder on the disk that the BIOS booted from."""
        return "(,gpt3)/boot/grub" if self.has_uefi else "(,msdos1)/boot/grub"

    @property
    def esp(self) -> Partition:
        """Return the EFI system partition, which comes after GRUB's for a BIOS, of a MiB."""
        start = 2 * MIB if self.has_bios else MIB
        return self._partition("ESP", start, ESP_SIZE, _ESP_TYPE)

    @property
    def root_uuid(self) -> str:
        return self.guid("root file system")

    @property
    def hash_seed(self) -> str:
        """Return the seed of the root file system's directory hashes."""
        return self.guid("directory hash seed")

    @property
    def esp_serial(self) -> str:
        """Return the ESP's volume serial number, as mkfs.vfat takes it: 8 hexadecimal digits."""
        return self.guid("ESP volume")[:8].upper()

    @property
    def esp_uuid(self) -> str:
        """Return the ESP's serial number as ``/etc/fstab`` names it."""
        return f"{self.esp_serial[:4]}-{self.esp_serial[4:]}"

    @property
    def script(self) -> str:
        """Return the partition table, as sfdisk reads it."""
        if not self.has_uefi:
            label = f"label: dos\nlabel-id: 0x{self.guid('disk')[:8]}\n"
            return f"{label}start={MIB // SECTOR}, type=83, bootable\n"
        partitions = [
            self.esp,
            self._partition("root", self.root_start, self.root_size, _LINUX_TYPE),
        ]
        if self.has_bios:
            partitions.insert(0, self._partition("BIOS boot", MIB, MIB, _BIOS_BOOT_TYPE))
        lines = ["label: gpt", f"label-id: {self.guid('disk')}"]
        lines += [
            f"start={each.start // SECTOR}, size={each.size // SECTOR}, type={each.type}, "
            f'uuid={each.guid}, name="{each.name}"'
            for each in partitions
        ]
        return "\n".join((*lines, ""))

    def guid(self, purpose: str) -> str:
        """Return the identifier of one thing on the disk, the same for the same inputs."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.identity} {purpose}"))

    def _partition(self, name: str, start: int, size: int, kind: str) -> Partition:
        guid = self.guid(f"{name} partition")
        return Partition(start=start, size=size, type=kind, name=name, guid=guid)


@dataclass(frozen=True, slots=True, kw_only=True)
class BiosLoader:
    """GRUB for a BIOS: the code of the disk's first sector, and the image that it loads."""

    boot_code: bytes
    core: bytes

    @classmethod
    def at(cls, layout: Layout, boot_img: bytes, core_img: bytes) -> Self:
        """Bind GRUB's two images to their place on the disk.

        Raises:
            BuildError: The second is too large for its place.
        """
        room = MIB if layout.has_uefi else MIB - SECTOR
        if len(core_img) > room:
            raise BuildError(f"GRUB's image has {len(core_img)} bytes, more than its {room}")
        sector = layout.core_start // SECTOR
        boot, core = bytearray(boot_img[:_BOOT_CODE]), bytearray(core_img)
        struct.pack_into("<Q", boot, _CORE_SECTOR, sector)
        struct.pack_into("<Q", core, _REST_SECTOR, sector + 1)
        return cls(boot_code=bytes(boot), core=bytes(core))
