"""Bootstrapped folders that are kept: found by all they were made of, and believed by digest."""

import os
import stat

import pytest

from lago_images.building.bases.bootstrap import tree_cache
from lago_images.building.bases.bootstrap.tree_cache import Trees
from lago_images.host.process import Runner

PARTS = {"packages": [["bash", "5.2", "amd64", "0" * 64]], "hostname": "a"}
NAMES = ("rootfs", "secrets.json")


@pytest.fixture
def trees(tmp_path):
    return Trees(cache=tmp_path / "cache", runner=Runner(), prefix=())


@pytest.fixture
def made(tmp_path):
    """A folder with all that a package may bring, as far as this user may make it."""
    folder = tmp_path / "made"
    (folder / "rootfs/etc").mkdir(parents=True)
    (folder / "secrets.json").write_text("[]")
    file = folder / "rootfs/etc/file"
    file.write_text("content\n")
    file.chmod(0o4755)
    os.link(file, folder / "rootfs/linked")
    os.setxattr(file, "user.note", b"kept")
    (folder / "rootfs/link").symlink_to("/nowhere")
    (folder / "rootfs" / os.fsdecode(b"\xff \n")).mkdir(mode=0o700)
    os.utime(file, ns=(5, 1_600_000_000_123_456_789))
    os.utime(folder / "rootfs/etc", (7, 7))
    return folder


def facts(folder):
    found = {}
    for path in sorted((folder / "rootfs").rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[path.relative_to(folder)] = (
            *(status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns),
            *(content, os.listxattr(path, follow_symlinks=False)),
        )
    return found


def empty(tmp_path, name="taken"):
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_a_folder_comes_back_as_it_was(trees, made, tmp_path):
    assert trees.keep(PARTS, made, NAMES)
    taken = empty(tmp_path)
    assert trees.take(PARTS, taken)
    assert facts(taken) == facts(made)
    assert (taken / "secrets.json").read_text() == "[]"
    assert os.getxattr(taken / "rootfs/linked", "user.note") == b"kept"


def test_a_folder_that_is_kept_twice_is_kept_once(trees, made):
    trees.keep(PARTS, made, NAMES)
    os.utime(made / "rootfs/etc/file", ns=(9, (made / "rootfs/etc/file").stat().st_mtime_ns))
    trees.keep(PARTS, made, NAMES)
    assert len(list((trees.cache / "trees").iterdir())) == 1


@pytest.mark.parametrize(
    "other",
    [
        {**PARTS, "hostname": "b"},
        {**PARTS, "packages": [["bash", "5.2", "amd64", "1" * 64]]},
        {**PARTS, "more": None},
    ],
)
def test_whatever_differs_it_is_another_folder(trees, made, tmp_path, other):
    trees.keep(PARTS, made, NAMES)
    taken = empty(tmp_path)
    assert not trees.take(other, taken)
    assert not list(taken.iterdir())


@pytest.mark.parametrize("how", ["changed", "cut", "longer"])
def test_a_damaged_one_is_not_unpacked_and_forgotten(trees, made, tmp_path, how):
    trees.keep(PARTS, made, NAMES)
    [kept] = (trees.cache / "trees").iterdir()
    data = kept.read_bytes()
    at = data.index(b"content\n")
    changed = {
        "changed": data[:at] + b"CONTENT" + data[at + 7 :],
        "cut": data[:-512],
        "longer": data + b"\0",
    }
    kept.write_bytes(changed[how])
    taken = empty(tmp_path)
    assert not trees.take(PARTS, taken)
    assert not list(taken.iterdir())
    assert not kept.exists()


def test_an_undamaged_one_beside_a_damaged_one_is_taken(trees, made, tmp_path):
    trees.keep(PARTS, made, NAMES)
    [kept] = (trees.cache / "trees").iterdir()
    key = kept.name.partition("-")[0]
    damaged = kept.with_name(f"{key}-{'0' * 64}.tar")
    damaged.write_bytes(b"x")
    assert trees.take(PARTS, empty(tmp_path))
    assert not damaged.exists()


def test_nothing_is_kept_where_others_would_lack_the_space(trees, made, monkeypatch):
    monkeypatch.setattr(tree_cache, "_SPARE", 2**62)
    assert not trees.keep(PARTS, made, NAMES)
    assert not list((trees.cache / "trees").iterdir())
