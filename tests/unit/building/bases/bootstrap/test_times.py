"""The times of a bootstrapped tree: a package's files keep theirs, all others have one."""

import os
import time

import pytest

from lago_images.building.bases.bootstrap.debian import Mirrors, recipe
from lago_images.building.bases.bootstrap.tree import Tree, settle_times
from lago_images.host.process import Runner
from tests.support.builders import lines

TODO = recipe(lines(base="bootstrap:debian-12"), Mirrors.of("http://m/debian"))
PACKAGED = TODO.release.date + 1000


def times(tree):
    return {str(path.relative_to(tree)): path.lstat().st_mtime for path in tree.rglob("*")}


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "a blank [x]"
    return Tree(todo=TODO, hostname="h", folder=folder, runner=Runner())


@pytest.fixture
def tree(made):
    """What packages brought before, and what a bootstrap wrote now."""
    root = made.rootfs
    (root / "dev/pts").mkdir(parents=True)
    for name in ("packaged", "older", "written", "dev/null"):
        (root / name).touch()
    (root / "link").symlink_to("/nowhere")
    os.utime(root / "packaged", (PACKAGED, PACKAGED))
    os.utime(root / "older", (5, 5))
    return root


def test_what_was_written_now_is_as_old_as_the_newest_packaged_file(made, tree):
    assert settle_times(made, int(time.time())) == PACKAGED
    assert times(tree) == {
        **dict.fromkeys(("dev", "link", "packaged", "written"), PACKAGED),
        "older": 5,
    }


def test_nothing_is_older_than_its_release(made, tree):
    (tree / "packaged").unlink()
    assert settle_times(made, int(time.time())) == TODO.release.date


def test_a_link_in_place_of_dev_is_not_followed(made, tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    os.utime(outside, (7, 7))
    (tree / "dev/pts").rmdir()
    (tree / "dev/null").unlink()
    (tree / "dev").rmdir()
    (tree / "dev").symlink_to(outside)
    settle_times(made, int(time.time()))
    assert (outside / "kept").exists()
    assert outside.stat().st_mtime == 7
