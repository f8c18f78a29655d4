"""The rule of which files of the host may be read, whoever reads them."""

import os

import pytest

from lago_images.specs.host_folder import ForbiddenPathError, HostFolder

OUT = "leads out of the repository"
GIT = "leads to git's own files, which may hold credentials"
WHOLE = "takes git's own files along, which may hold credentials"


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "folder/deep").mkdir(parents=True)
    (root / "folder/deep/file").write_text("content")
    (root / ".git").mkdir()
    (root / ".git/config").write_text("token")
    (tmp_path / "root-secret").write_text("secret")
    os.mkfifo(root / "pipe")
    for name, target in {
        "file": "folder/deep/file",
        "linked": "folder",
        "absolute": str(root / "folder/deep/file"),
        "out": "../root-secret",
        "above": "..",
        "git": ".git/config",
        "gitdir": ".git",
        "root": ".",
        "zero": "/dev/zero",
        "to-pipe": "pipe",
        "loop": "loop",
    }.items():
        (root / name).symlink_to(target)
    return root


@pytest.mark.parametrize(
    "path", ["folder/deep/file", "./folder//deep/file", "file", "linked/deep/file", "absolute"]
)
def test_a_file_of_the_repository_is_read_also_through_links(root, path):
    folder = HostFolder(root)
    assert folder.resolve(path) == str(root / "folder/deep/file")
    assert folder.read(path, most=7) == b"content"


def test_a_linked_folder_contains_its_files(root, tmp_path):
    (tmp_path / "here").symlink_to(root)
    assert HostFolder(tmp_path / "here").read("absolute", most=7) == b"content"


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("out", OUT),
        ("../root-secret", OUT),
        ("above/root-secret", OUT),
        ("above", OUT),
        ("..", OUT),
        ("folder/../../root-secret", OUT),
        ("zero", OUT),
        (".git/config", GIT),
        ("git", GIT),
        ("gitdir/config", GIT),
        ("gitdir", GIT),
        (".", WHOLE),
        ("", WHOLE),
        ("root", WHOLE),
        ("folder/..", WHOLE),
    ],
)
def test_paths_out_of_the_repository_are_refused(root, path, tree, reason):
    with pytest.raises(ForbiddenPathError, match=f"^{reason}$"):
        HostFolder(root).resolve(path, tree=tree)
    with pytest.raises(ForbiddenPathError, match=f"^{reason}$"):
        HostFolder(root).read(path, most=1 << 20)


@pytest.mark.parametrize("path", ["pipe", "to-pipe"])
def test_a_pipe_is_refused_without_blocking(root, path):
    with pytest.raises(ForbiddenPathError, match="is not a regular file"):
        HostFolder(root).read(path, most=1)
    with pytest.raises(ForbiddenPathError, match="is not a file or folder"):
        HostFolder(root).resolve(path, tree=True)


def test_a_folder_is_accepted_only_where_allowed(root):
    folder = HostFolder(root)
    assert folder.resolve("linked/deep", tree=True) == str(root / "folder/deep")
    with pytest.raises(ForbiddenPathError, match="is not a regular file"):
        folder.resolve("linked/deep")


def test_a_file_over_the_size_limit_is_refused(root):
    with pytest.raises(ForbiddenPathError, match="has 7 bytes, more than 6"):
        HostFolder(root).read("file", most=6)


@pytest.mark.parametrize(("path", "error"), [("gone", FileNotFoundError), ("loop", OSError)])
def test_an_unreadable_file_raises_the_operating_systems_error(root, path, error):
    with pytest.raises(error):
        HostFolder(root).resolve(path)


@pytest.mark.parametrize("swapped", ["folder/deep/file", "folder/deep", "folder"])
def test_a_file_replaced_by_a_link_after_the_check_is_not_followed(root, tmp_path, swapped):
    folder = HostFolder(root)
    real = folder.resolve("folder/deep/file")
    outside = tmp_path / "outside"
    (root / swapped).rename(outside)
    (root / swapped).symlink_to(outside)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        folder.open(real)


def test_a_file_replaced_by_a_pipe_after_the_check_does_not_block(root, monkeypatch):
    folder = HostFolder(root)
    real = folder.resolve("file")
    (root / "folder/deep/file").unlink()
    os.mkfifo(root / "folder/deep/file")
    monkeypatch.setattr(folder, "resolve", lambda _path: real)
    with pytest.raises(ForbiddenPathError, match="is not a regular file"):
        folder.read("file", most=7)


def test_submodules_are_read_inside_the_repository_only(root, tmp_path):
    (tmp_path / "modules").write_text('[submodule "sub"]\n\tpath = sub\n')
    (root / ".gitmodules").symlink_to("../modules")
    assert not HostFolder(root).is_in_submodule("sub/file")
