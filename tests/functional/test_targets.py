"""What is written at the end of long work is tried before it."""

import os

import pytest

from lago_images.host.files import replace
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git", "qemu-img")


@pytest.fixture
def repo(tmp_path):
    return SpecsRepo.with_one(tmp_path / "specs")


@pytest.mark.parametrize(
    "words",
    [
        "build --timings one.img/new/file",
        "build --logs one.img/new",
        "try one --logs one.img/new",
        "try one --output one.img/file",
        "try one --output nosuch/file",
        "ci plan --output one.img/file",
        "ci build one --timings one.img/file",
        "ci build one --results one.img/new",
        "ci build one --logs one.img/new",
        "ci publish --results one.img/new",
        "ci rebuild one --timings one.img/file",
        "ci rebuild one --logs one.img/new",
        "ci report --junit one.img/file",
    ],
)
def test_what_could_not_be_written_is_refused_before_the_work(repo, words):
    ran = repo.run(*words.split())
    assert (ran.code, ran.out) == (2, ""), ran.err
    message, hint = ran.err.splitlines()
    assert "one.img" in message or "there is no folder" in message
    assert hint.startswith("hint: ")
    assert not (repo.root / "image-repo").exists()
    assert sorted(path.name for path in repo.root.iterdir() if path.name[0] != ".") == [
        "image-specs",
        "one.img",
    ]


@pytest.mark.parametrize(
    "words",
    ["ci plan --output", "build --timings", "try one --force --output", "ci report --junit"],
)
def test_a_pipe_or_device_is_not_replaced_by_a_file(repo, words):
    """As in /dev: a link to a device, and /dev/stdout, whose output a shell sends to a file."""
    pipe, link, stream = (repo.root.parent / name for name in ("pipe", "link", "stream"))
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    regular = repo.root.parent / "regular"
    with regular.open("wb") as file:
        stream.symlink_to(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        for path in (pipe, link, stream):
            ran = repo.run(*words.split(), str(path))
            assert (ran.code, ran.out) == (2, ""), ran.err
            assert f"{path}: it is no regular file, and would be replaced" in ran.err
    assert (pipe.is_fifo(), link.is_symlink(), stream.is_symlink()) == (True, True, True)
    for path in (pipe, link):
        with pytest.raises(OSError, match="no regular file"):
            replace(path, b"data")


def test_folders_of_what_is_written_are_made_where_they_are_missing(repo):
    words = "build --timings new/times/a.json --logs new/logs"
    ran = repo.run(*words.split())
    assert ran.code == 0, ran.err
    assert (repo.root / "new/times/a.json").is_file()
    assert (repo.root / "new/logs/one.log").is_file()


def test_a_disk_goes_into_a_folder_that_is_there(repo):
    ran = repo.run("try", "one", "--output", "new/one.qcow2")
    assert f"there is no folder {repo.root}/new" in ran.err
    assert f"hint: make it: mkdir -p {repo.root}/new" in ran.err
    (repo.root / "new").mkdir()
    assert repo.run("try", "one", "--output", "new/one.qcow2").code == 0
    assert [path.name for path in (repo.root / "new").iterdir()] == ["one.qcow2"]
