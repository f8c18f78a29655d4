"""Name the UEFI firmware that guests are started with, and the Debian packages that have it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """The UEFI of an architecture's guests.

    Attributes:
        title: What it is to people.
        files: Its own files on this host: the code, then what it keeps, where that is apart.
        package: The Debian package that has them.
    """

    title: str
    files: tuple[str, ...]
    package: str

    def missing(self, root: Path) -> list[Path]:
        """Return those of its files that are not installed below ``root``."""
        files = (root / file.lstrip("/") for file in self.files)
        return [file for file in files if not file.exists()]


# By the guest's architecture. Debian's names: Secure Boot with Microsoft's keys, which trust the
# shim of the distributions.
UEFI: Mapping[str, Firmware] = {
    "x86_64": Firmware(
        title="UEFI with Secure Boot",
        files=("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
        package="ovmf",
    ),
    "aarch64": Firmware(
        title="UEFI",
        files=("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd",),
        package="qemu-efi-aarch64",
    ),
}
