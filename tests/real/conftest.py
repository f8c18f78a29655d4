"""Disks that are costly to make, shared by the tests of a session."""

import os
import struct
from contextlib import suppress
from dataclasses import dataclass

import pytest

from lago_images.building.bases.bootstrap import build
from lago_images.host.process import Runner
from tests.support import images
from tests.support.customised import OPERATIONS, Customised, run_commands
from tests.tools import need

# linux/posix_acl_xattr.h: version 2; owner, group, another user, mask and others may do all.
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 7, user)
    for tag, user in ((1, 2**32 - 1), (2, 1234), (4, 2**32 - 1), (16, 2**32 - 1), (32, 2**32 - 1))
)
_DEBIAN13_BIOS = """\
#name=Debian 13
#base=bootstrap:debian-13
#arch=x86_64
#distro=debian
#firmware=bios
#packages=open-iscsi nvme-cli dropbear ssl-cert bind9 postfix
"""


@pytest.fixture(scope="session")
def debian12() -> images.Image:
    """A bootstrapped Debian 12: read it, or take a copy."""
    _need_tools()
    return images.debian12()


@pytest.fixture(scope="session")
def debian12_cloud() -> images.Image:
    """The same with cloud-init."""
    _need_tools()
    return images.debian12_cloud()


@pytest.fixture(scope="session")
def debian13_cloud() -> images.Image:
    """A bootstrapped Debian 13 with cloud-init."""
    _need_tools()
    return images.debian13_cloud()


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory, debian12: images.Image) -> Customised:
    """A layer on the bootstrapped Debian 12; its disk is to be read only."""
    need("virt-sysprep")
    return run_commands(tmp_path_factory.mktemp("layer"), debian12, OPERATIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrapped:
    """A bootstrapped disk, and its files with private keys or identities."""

    image: images.Image
    secrets: tuple[str, ...] | None


@pytest.fixture(scope="session")
def debian13_bios(tmp_path_factory: pytest.TempPathFactory) -> Bootstrapped:
    """A Debian 13 for a BIOS alone, with packages that make keys.

    It is built in a folder whose rights its files inherit: the default ACL and the set-group-id
    bit are of a file server's shared folder.
    """
    _need_tools()
    folder = tmp_path_factory.mktemp("debian13")
    work = folder / "work"
    work.mkdir()
    work.chmod(0o2777)
    with suppress(OSError):
        os.setxattr(work, "system.posix_acl_default", _ACL)
    context = images.a_context(folder)
    spec = images.a_spec(_DEBIAN13_BIOS, "my-image")
    prepared = build.prepare(spec, "tests", work, context, Runner(environ=os.environ))
    return Bootstrapped(image=images.Image.of(prepared), secrets=prepared.secrets)


def _need_tools() -> None:
    need("mmdebstrap", "sfdisk", "mke2fs", "debugfs", "mkfs.vfat", "mcopy")
