"""The files of an EFI system partition are read from a raw disk, by mtools."""

import hashlib
import subprocess

import pytest

from lago_images.building.bases.prepared import Prepared
from lago_images.building.esp import with_esp
from lago_images.host.process import Runner
from lago_images.repository.records.boot_files import BootFile, BootFiles
from tests.tools import need

need("sfdisk", "mkfs.vfat", "mcopy")
MIB = 2**20
KERNEL = BootFile(path="/boot/vmlinuz", size=1, sha256="a" * 64)
UNREAD = BootFiles(files=(KERNEL,), unread=("/boot/efi",))
SHIM, MENU = "/EFI/BOOT/BOOTX64.EFI", "/EFI/debian/grub config.cfg"
TABLE = "label: gpt\nstart=2048, size=20480, type=uefi\nstart=22528, type=linux\n"


def run(*argv, stdin=b""):
    subprocess.run(argv, input=stdin, check=True, capture_output=True, timeout=60)


def disk_with(folder, files, table=TABLE):
    """A raw disk whose first partition has these files."""
    esp, disk = folder / "esp.img", folder / "it's a disk.raw"
    esp.write_bytes(bytes(10 * MIB))
    run("mkfs.vfat", esp)
    for name, content in files.items():
        for depth in range(1, name.count("/")):
            parent = "/".join(name.split("/")[: depth + 1])
            subprocess.run(["mmd", "-D", "s", "-i", esp, f"::{parent}"], check=False)
        run("mcopy", "-i", esp, "-", f"::{name}", stdin=content)
    with disk.open("wb") as file:
        file.truncate(20 * MIB)
    run("sfdisk", "--quiet", disk, stdin=table.encode())
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(esp.read_bytes())
    return Prepared(disk=disk, format="raw", record=None, boot_files=UNREAD)


def test_the_files_of_an_unmounted_partition_are_listed_where_it_belongs(tmp_path):
    files = {SHIM: b"shim" * 1000, MENU: b"menu"}
    listed = with_esp(disk_with(tmp_path, files), Runner()).boot_files
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert listed.unread == ()
    assert listed.files == (
        BootFile(path=f"/boot/efi{SHIM}", size=4000, sha256=digests[SHIM]),
        BootFile(path=f"/boot/efi{MENU}", size=4, sha256=digests[MENU]),
        KERNEL,
    )


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("/a[b]", TABLE),
        ("/a", "label: gpt\nstart=2048, size=20480, type=linux\n"),
        ("/a", "label: gpt\nstart=2048, size=20480, type=uefi\nstart=22528, type=uefi\n"),
    ],
    ids=["a pattern", "none", "two"],
)
def test_a_partition_that_cannot_be_read_stays_unread(tmp_path, name, table):
    (tmp_path / "log").touch()
    prepared = disk_with(tmp_path, {name: b"x"}, table)
    assert with_esp(prepared, Runner(log=tmp_path / "log")).boot_files == UNREAD
    assert "the files of /boot/efi are not listed: " in (tmp_path / "log").read_text()


def test_only_a_raw_disk_that_names_one_is_looked_at(tmp_path):
    prepared = Prepared(disk=tmp_path / "none", format="qcow2", record=None, boot_files=UNREAD)
    assert with_esp(prepared, Runner()) == prepared
    known = BootFiles(files=(KERNEL,))
    prepared = Prepared(disk=tmp_path / "none", format="raw", record=None, boot_files=known)
    assert with_esp(prepared, Runner()) == prepared
