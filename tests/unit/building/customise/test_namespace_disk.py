"""Read an ext4 file system, made by mke2fs and debugfs, and refuse what a copy would lose."""

import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lago_images.building.customise.namespace import disk, guest_root
from lago_images.building.customise.namespace.disk import Root
from lago_images.building.customise.namespace.unpack_ext4 import (
    Ext4,
    Unpacker,
    UnsupportedError,
)
from lago_images.building.ext4 import Place, write_ext4
from lago_images.host.process import Runner
from tests.support.trees import files
from tests.tools import need

need("mke2fs", "debugfs", "dumpe2fs", "sfdisk")
MIB = 2**20
MOUNTS = [os.fsencode(path) for path in guest_root.MOUNTS]
# As bootstrap: lays disks out, for a BIOS and for UEFI too: one partition, and three.
MBR = "label: dos\nstart=2048, type=83, bootable\n"
GPT = """\
label: gpt
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
start=4096, size=8192, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
start=12288, size=65536, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
"""
START = MIB
MADE = 1_700_000_000
PLACE = Place(
    start=START,
    size=32 * MIB,
    uuid="0a1b2c3d-1111-2222-3333-444455556666",
    label="root",
    hash_seed="1a1b2c3d-1111-2222-3333-444455556666",
)
ROOT = Root(disk_size=START + 32 * MIB, place=PLACE, made=MADE, has_esp=False)


def debugfs(made: Path, *requests: str) -> None:
    text = "".join(f"{request}\n" for request in requests)
    argv = ["debugfs", "-w", "-f", "-", f"{made}?offset={START}"]
    done = subprocess.run(argv, input=text, text=True, capture_output=True, check=True, timeout=60)
    assert len(done.stderr.splitlines()) <= 1, done.stderr


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "source"
    for name in ("dev", "proc", "sys", "etc"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/plain").write_bytes(b"plain")
    (folder / "etc/plain").chmod(0o4750)
    os.link(folder / "etc/plain", folder / "etc/other-name")
    with (folder / "etc/sparse").open("wb") as file:
        file.write(b"a" * 4096)
        file.seek(3 * 2**20)
        file.write(b"b" * 5000)
    (folder / "etc/short").symlink_to("plain")
    (folder / "etc/long").symlink_to("x" * 200)
    os.mkfifo(folder / "etc/fifo", 0o640)
    (folder / "many").mkdir()
    for number in range(700):
        (folder / f"many/{'name' * 10}{number}").touch()
    (folder / "etc/sticky").mkdir()
    (folder / "etc/sticky").chmod(0o3777)
    os.utime(folder / "etc/plain", (10**9, 10**9 + 7))
    return folder


def make_disk(target: Path, tree: Path, root: Root, table: str) -> Path:
    with target.open("wb") as file:
        file.truncate(root.disk_size)
    subprocess.run(["sfdisk", "-q", target], input=table, text=True, check=True, timeout=60)
    write_ext4(str(tree), str(target), root.place, target.parent, MADE, Runner())
    return target


@pytest.fixture
def made(tree, tmp_path):
    return make_disk(tmp_path / "disk.raw", tree, ROOT, MBR)


def test_the_root_is_found_by_an_mbr(made):
    assert disk.find_root(made) == ROOT


def test_the_root_is_found_by_a_gpt(tree, tmp_path):
    start = 6 * MIB
    place = replace(PLACE, start=start, label="")
    root = replace(ROOT, disk_size=start + 34 * MIB, place=place, has_esp=True)
    assert disk.find_root(make_disk(tmp_path / "gpt.raw", tree, root, GPT)) == root


def test_every_file_is_unpacked_as_it_was(made, tree, tmp_path):
    if os.geteuid() != 0:
        # Who is not root cannot give files away: they are written as their own.
        debugfs(made, *(f"sif /etc/plain {who} {os.geteuid()}" for who in ("uid", "gid")))
        pytest.skip("owners can be set by root only; tests/real does it in a namespace")
    with (tmp_path / "disk.raw").open("rb") as file:
        folder = tmp_path / "unpacked"
        folder.mkdir()
        Unpacker(Ext4(file.fileno(), START), os.fsencode(folder), MOUNTS).unpack()
    for path in [tree, *tree.rglob("*")]:
        other = folder / path.relative_to(tree)
        first, second = path.lstat(), other.lstat()
        same = ("st_mode", "st_uid", "st_gid", "st_nlink")
        for name in same if not path.is_dir() else same[1:3]:
            assert getattr(first, name) == getattr(second, name), (path, name)
        if not path.is_symlink():
            assert int(first.st_mtime) == int(second.st_mtime) or path == tree
        if stat.S_ISREG(first.st_mode):
            assert path.read_bytes() == other.read_bytes()
            assert second.st_blocks <= first.st_blocks + 8
        if path.is_symlink():
            assert path.readlink() == other.readlink()
    assert (folder / "etc/plain").samefile(folder / "etc/other-name")
    assert {path.name for path in folder.iterdir()} - {path.name for path in tree.iterdir()} == {
        "lost+found"
    }


def test_attributes_are_read_as_the_kernel_would_tell_them(made, tmp_path):
    value = tmp_path / "value"
    value.write_bytes(b"v" * 300)
    debugfs(
        made,
        "ea_set /etc/plain user.short x",
        f"ea_set -f {value} /etc/plain user.long",
    )
    attributes = dict(files(made)["/etc/plain"].attributes)
    assert attributes[b"user.short"] == b"x"
    assert attributes[b"user.long"] == b"v" * 300


def test_device_files_are_told_and_made_again(made, tmp_path):
    debugfs(made, "cd /dev", "mknod null c 1 3", "sif null mode 020666", "mknod far b 259 1000")
    debugfs(made, "sif /dev/far mode 060640", "sif /dev/far gid 6")
    with made.open("rb") as file:
        unpacker = Unpacker(Ext4(file.fileno(), START), b"", ())
        for number, name in unpacker_devices(unpacker):
            unpacker._device(name, number)
    found = {each["name"]: each for each in unpacker.devices}
    assert (found["null"]["kind"], found["null"]["major"], found["null"]["minor"]) == ("c", 1, 3)
    assert (found["far"]["kind"], found["far"]["major"], found["far"]["minor"]) == ("b", 259, 1000)
    requests = "".join(map(disk._make_device, unpacker.devices)).splitlines()
    debugfs(made, "cd /dev", "rm null", "rm far", *requests)
    again = files(made)
    assert again["/dev/null"].mode == 0o20666
    assert (again["/dev/far"].mode, again["/dev/far"].gid) == (0o60640, 6)


def unpacker_devices(unpacker):
    source = unpacker._source
    folder = next(number for name, number in source.entries(source.inode(2)) if name == b"dev")
    return [
        (source.inode(number), b"/dev/" + name)
        for name, number in source.entries(source.inode(folder))
    ]


def read(made):
    return disk.find_root(made), files(made)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ("sif /etc/plain flags 0x80010", "attributes"),
        ("sif /etc/plain uid 70000", "belongs to 70000"),
        ("sif /etc/plain flags 0", "has no extents"),
        ("ssv state 2", "not unmounted"),
        ("ssv volume_name o;ther", "unusual label"),
        ("feature -dir_index", "other features"),
        ("feature needs_recovery", "other features"),
    ],
)
def test_what_a_copy_would_lose_is_refused(made, request_, why):
    debugfs(made, request_)
    with pytest.raises(UnsupportedError, match=why):
        read(made)


def test_a_mount_point_that_is_no_folder_is_refused(made, tmp_path):
    for path in ("/dev/shm", "/etc/short", "/etc/plain", "/missing/efi"):
        folder = tmp_path / path.replace("/", "-")
        folder.mkdir()
        with made.open("rb") as file:
            unpacker = Unpacker(Ext4(file.fileno(), START), os.fsencode(folder), [path.encode()])
            with pytest.raises(UnsupportedError, match=f"{path} is no folder"):
                unpacker.unpack()


def test_a_file_system_of_lies_is_refused_and_ends(made):
    """A folder that is in itself, a block that is outside, a name that leads away."""
    original = made.read_bytes()
    folder = made.parent / "loop"
    folder.mkdir()
    debugfs(made, "link /etc /etc/again", "sif /etc links_count 3")
    with made.open("rb") as file:
        unpacker = Unpacker(Ext4(file.fileno(), START), os.fsencode(folder), MOUNTS)
        with pytest.raises((UnsupportedError, OSError)):
            unpacker.unpack()
    made.write_bytes(original.replace(b"other-name", b"../../name"))
    with pytest.raises(UnsupportedError, match="damaged"):
        files(made)


def test_all_around_the_root_is_kept_and_its_content_is_not(tree, tmp_path):
    start = 6 * MIB
    place = replace(PLACE, start=start)
    root = replace(ROOT, disk_size=start + 34 * MIB, place=place, has_esp=True)
    made = make_disk(tmp_path / "gpt.raw", tree, root, GPT)
    with made.open("r+b") as file:
        for at in (0, MIB, 2 * MIB + 5, start - 3, start + root.place.size):
            file.seek(at)
            file.write(b"kept")
    new = tmp_path / "new.raw"
    disk.copy_around(made, root, new)
    old, copy, end = made.read_bytes(), new.read_bytes(), start + root.place.size
    # What was written across its start is of both.
    assert (copy[:start], copy[end:]) == (old[:start], old[end:])
    assert not copy[start:end].strip(b"\0")
    assert new.stat().st_blocks * 512 < 8 * MIB
