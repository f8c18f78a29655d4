"""A file system made of a folder: its times, and that the same files give the same bytes."""

import os
import shutil
import time
from dataclasses import replace

import pytest

from lago_images.building.customise.namespace.unpack_ext4 import Ext4
from lago_images.building.ext4 import Place, settle_times, used_inodes, write_ext4
from lago_images.errors import BuildError
from lago_images.host.process import Runner
from tests.tools import need

need("mke2fs", "debugfs", "dumpe2fs")
MIB = 2**20
RELEASED = 1_686_355_200
PACKAGED = RELEASED + 1000
PLACE = Place(
    start=MIB,
    size=16 * MIB,
    uuid="0a1b2c3d-1111-2222-3333-444455556666",
    label="root",
    hash_seed="1a1b2c3d-1111-2222-3333-444455556666",
)
DUMPED = """\
Inode count:              40
First inode:              11

Group 0: (Blocks 0-32767)
  Free inodes: 14-15, 18-20
Group 1: (Blocks 32768-65535)
  Free inodes:
Group 2: (Blocks 65536-98303)
  Free inodes: 30
"""


def times(tree):
    return {str(path.relative_to(tree)): path.lstat().st_mtime for path in tree.rglob("*")}


@pytest.fixture
def tree(tmp_path):
    """What packages brought before, and what a build wrote now."""
    root = tmp_path / "root with a blank [x]"
    (root / "dev").mkdir(parents=True)
    for name in ("packaged", "older", "written"):
        (root / name).touch()
    (root / "link").symlink_to("/nowhere")
    os.utime(root / "packaged", (PACKAGED, PACKAGED))
    os.utime(root / "older", (5, 5))
    return root


def test_what_was_written_now_is_as_old_as_the_newest_packaged_file(tree):
    assert settle_times(tree, time.time(), RELEASED, Runner()) == PACKAGED
    assert times(tree) == {
        **dict.fromkeys(("dev", "link", "packaged", "written"), PACKAGED),
        "older": 5,
    }


def test_nothing_is_older_than_its_release(tree):
    (tree / "packaged").unlink()
    assert settle_times(tree, time.time(), RELEASED, Runner()) == RELEASED


def test_a_link_that_leads_outside_is_not_followed(tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    os.utime(outside, (7, 7))
    (tree / "away").symlink_to(outside)
    settle_times(tree.name, time.time(), RELEASED, Runner(), cwd=tree.parent)
    assert outside.stat().st_mtime == 7
    assert (tree / "away").lstat().st_mtime == PACKAGED


def written(folder, tree, place=PLACE, runner=None):
    """The bytes of a disk of a tree, made in a folder."""
    folder.mkdir(exist_ok=True)
    disk = folder / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(place.start + place.size)
    write_ext4(str(tree), str(disk), place, folder, PACKAGED, runner or Runner())
    assert [path.name for path in folder.iterdir()] == ["disk.raw"]
    return disk.read_bytes()


def test_the_same_files_give_the_same_bytes(tree, tmp_path):
    """Whenever, wherever and in whichever order they were written."""
    for number in range(300):
        (tree / f"dev/{number}").write_text("x" * number)
    settle_times(tree, time.time(), RELEASED, Runner())
    other = tmp_path / "copy"
    (other / "dev").mkdir(parents=True)
    for path in sorted(tree.rglob("*"), reverse=True):
        if not path.is_dir():
            copy = other / path.relative_to(tree)
            shutil.copy2(path, copy, follow_symlinks=False)
    shutil.copystat(tree / "dev", other / "dev")
    first = written(tmp_path / "one", tree)
    assert first == written(tmp_path / "two", other)
    assert first != written(tmp_path / "three", tree, replace(PLACE, label="other"))


def attributes(disk, name):
    """Those of a file in the root folder of the disk."""
    with disk.open("rb") as file:
        source = Ext4(file.fileno(), PLACE.start)
        number = dict(source.entries(source.inode(2)))[name]
        return dict(source.attributes(source.inode(number)))


def test_the_order_in_which_a_host_names_attributes_does_not_count(tree, tmp_path):
    """A host's file system has one of its own, of an ACL and the one that is inherited, too."""
    values = {"user.a": b"\0\xff", "user.b": b"", "user.c": b'"\\ \n'}
    digests = {}
    for name, order in (("one", list(values)), ("two", sorted(values, reverse=True))):
        copy = tmp_path / name / "tree"
        shutil.copytree(tree, copy, symlinks=True)
        try:
            for each in order:
                os.setxattr(copy / "packaged", each, values[each])
        except OSError as error:
            pytest.skip(f"the file system of this folder keeps no attributes: {error}")
        settle_times(copy, 0, PACKAGED, Runner())
        digests[name] = written(tmp_path / f"disk-{name}", copy)
    assert digests["one"] == digests["two"]
    found = attributes(tmp_path / "disk-two/disk.raw", b"packaged")
    assert found == {name.encode(): value for name, value in values.items()}


def test_an_attribute_that_debugfs_could_not_be_given_stays_where_it_is(tree, tmp_path):
    names = {"user.b": b"x" * 1500, "user.a": b"y" * 1500}
    try:
        for name, value in names.items():
            os.setxattr(tree / "packaged", name, value)
    except OSError as error:
        pytest.skip(f"the file system of this folder keeps no attributes: {error}")
    written(tmp_path / "disk", tree)
    found = attributes(tmp_path / "disk/disk.raw", b"packaged")
    assert found == {name.encode(): value for name, value in names.items()}


def test_this_hosts_settings_of_mke2fs_do_not_count(tree, tmp_path):
    mine = tmp_path / "mke2fs.conf"
    mine.write_text("[defaults]\ninode_size = 128\nreserved_ratio = 9\n[fs_types]\next4 = {\n}\n")
    settle_times(tree, time.time(), RELEASED, Runner())
    first = written(tmp_path / "one", tree)
    runner = Runner(prefix=("env", f"MKE2FS_CONFIG={mine}"))
    assert written(tmp_path / "two", tree, runner=runner) == first


def test_the_inodes_in_use_are_those_that_are_not_free():
    assert list(used_inodes(DUMPED)) == [2, 11, 12, 13, 16, 17, *range(21, 30), *range(31, 41)]


def test_a_dump_without_numbers_is_refused():
    with pytest.raises(BuildError, match="number of inodes"):
        list(used_inodes("dumpe2fs: something else\n"))
