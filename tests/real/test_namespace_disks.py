"""Disks that boot under UEFI, too: their root file system is written, and nothing else of them."""

import os
import subprocess
from dataclasses import replace

import pytest

from lago_images.building.customise.namespace.disk import find_root
from lago_images.building.customise.namespace.unpack_ext4 import (
    Ext4,
    Unpacker,
    UnsupportedError,
)
from tests.support import trees
from tests.support.images import write_ext4
from tests.support.namespaces import in_namespaces, need_namespaces, small
from tests.tools import need

pytestmark = pytest.mark.real
need("sfdisk", "e2fsck", "debugfs")
need_namespaces()

MOUNTED = "UUID=ABCD-1234 /boot/efi vfat umask=0077,nofail 0 0"


@pytest.fixture(scope="module")
def base(debian12):
    return small(debian12)


def test_the_root_is_written_and_all_around_it_kept(tmp_path, base):
    seen = "ls /boot/efi; cp /etc/fstab /boot/efi/x 2>/dev/null || echo denied"
    text = f"mkdir /srv/made\nrun-command ({seen}) > /srv/made/efi\n"
    new = in_namespaces(tmp_path, base, text).disk
    root = find_root(new)
    assert root == find_root(base.disk)
    assert root.has_esp
    end = root.place.start + root.place.size
    with base.disk.open("rb") as one, new.open("rb") as other:
        assert one.read(root.place.start) == other.read(root.place.start)
        assert one.seek(end) == other.seek(end)
        assert one.read() == other.read()
    before, made = trees.files(base.disk), trees.files(new)
    assert made["/srv/made/efi"].size == len("denied\n")
    changed = [path for path in made if made[path] != before.get(path)]
    assert {"/srv/made", "/srv/made/efi"} <= set(changed)
    assert not [path for path in changed if path.startswith("/boot")]
    subprocess.run(["e2fsck", "-fn", f"{new}?offset={root.place.start}"], check=True, timeout=300)
    subprocess.run(["sfdisk", "--verify", new], check=True, timeout=60)


@pytest.fixture
def btrfs(tmp_path):
    """A file system in which files can share what they both have."""
    need("mkfs.btrfs", "filefrag")
    image, folder = tmp_path / "btrfs.img", tmp_path / "btrfs"
    with image.open("wb") as file:
        file.truncate(4 * 2**30)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True, timeout=120)
    folder.mkdir()
    argv = ["mount", "-o", "loop", image, folder]
    tried = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if tried.returncode:
        pytest.skip(f"nothing can be mounted here: {tried.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True, timeout=300)


def extents(path):
    """The flags of each of a file's extents."""
    argv = ["filefrag", "-v", path]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    return [line.rpartition(":")[2] for line in shown.splitlines() if line.lstrip()[:1].isdigit()]


def test_a_tree_shares_what_its_disk_has_where_the_file_system_can(btrfs, base):
    disk, tree = base.copy(btrfs).disk, btrfs / "tree"
    tree.mkdir()
    with disk.open("rb") as file:
        source = Ext4(file.fileno(), find_root(disk).place.start)
        Unpacker(source, os.fsencode(tree), ()).unpack()
    large = [
        path
        for path in tree.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size > 2**20
    ]
    assert len(large) > 5
    assert all(flags and all("shared" in each for each in flags) for flags in map(extents, large))


def test_commands_write_the_same_disk_where_files_are_shared(btrfs, tmp_path, base):
    text = "write /etc/made:made\ndelete /usr/bin/perl\nappend-line /etc/hosts:10.0.0.1 other\n"
    made = []
    for folder in (tmp_path / "copied", btrfs / "shared"):
        folder.mkdir()
        made.append(in_namespaces(folder, base, text).disk)
    argv = ["qemu-img", "compare", "-f", "raw", "-F", "raw", *map(str, made)]
    subprocess.run(argv, check=True, timeout=600)


STANZA = r"printf '\nPackage: grub-efi-amd64\nStatus: install ok installed\nVersion: 1\n' >>"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("write /boot/efi/x:y", "/boot/efi/x is not of the guest's own files"),
        ("delete /boot/efi", "/boot/efi is not of the guest's own files"),
        (f"run-command {STANZA} /var/lib/dpkg/status", "grub-efi-amd64 was changed"),
    ],
)
def test_what_may_touch_the_esp_is_for_the_appliance(tmp_path, base, text, why):
    with pytest.raises(UnsupportedError, match=why):
        in_namespaces(tmp_path, base, f"{text}\n")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["base.raw"]


@pytest.mark.parametrize(
    "line", ["", "UUID=ABCD-1234 /efi vfat defaults 0 0", f"{MOUNTED}\n/dev/sda9 /data ext4"]
)
def test_a_disk_that_mounts_other_parts_of_itself_is_for_the_appliance(tmp_path, base, line):
    disk = base.copy(tmp_path).disk
    root = f"UUID={find_root(disk).place.uuid} / ext4 errors=remount-ro 0 1\n"
    write_ext4(disk, "/etc/fstab", f"{root}{line}\n")
    (tmp_path / "build").mkdir()
    with pytest.raises(UnsupportedError, match="mounts other parts of its disk"):
        in_namespaces(tmp_path / "build", replace(base, disk=disk), "mkdir /srv/a\n")
