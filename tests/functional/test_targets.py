"""What is written at the end of long work is tried before it."""

import pytest

from tests.support.specs import SpecsRepo
from tests.tools import need

need("git", "qemu-img")


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("one.img")
    repo.spec("one", "simple:one.img")
    repo.commit()
    return repo


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
