"""Disks that are costly to make, shared by the tests of a session."""

import pytest

from tests.support import images
from tests.tools import need


@pytest.fixture(scope="session")
def debian12() -> images.Image:
    """A bootstrapped Debian 12: read it, or take a copy."""
    need("mmdebstrap", "sfdisk", "mke2fs", "debugfs", "grub-mkimage")
    return images.debian12()


@pytest.fixture(scope="session")
def debian12_cloud() -> images.Image:
    """One for BIOS and UEFI, with cloud-init."""
    need("mmdebstrap", "sfdisk", "mke2fs", "debugfs", "grub-mkimage", "mkfs.vfat", "mcopy")
    return images.debian12_cloud()
