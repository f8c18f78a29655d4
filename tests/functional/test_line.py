"""The line of the published branch: what git knows of two commits is asked once."""

import pytest

from lago_images.planning.git import Git
from lago_images.planning.line import Line
from tests.support.specs import SpecsRepo, git
from tests.tools import need

need("git")


@pytest.fixture
def repo(tmp_path):
    return SpecsRepo.with_one(tmp_path / "specs")


@pytest.fixture
def asked(monkeypatch):
    """The pairs that git was asked about."""
    pairs = []
    ask = Git.is_ancestor

    def counted(self, old, new):
        pairs.append((old, new))
        return ask(self, old, new)

    monkeypatch.setattr(Git, "is_ancestor", counted)
    return pairs


def next_commit(repo: SpecsRepo, text: str) -> str:
    repo.write("README.md", text)
    return repo.commit()


def test_two_commits_are_compared_once_in_each_direction(repo, asked):
    old, new = repo.head, next_commit(repo, "new")
    with Git(repo.root) as found:
        line = Line(git=found)
        for _ in range(3):
            assert line.is_older(old, new) is True
            assert line.is_older(new, old) is False
    assert (asked.count((old, new)), asked.count((new, old))) == (1, 1)


def test_what_git_did_not_know_is_asked_again(repo, tmp_path):
    old = repo.head
    git(tmp_path, "clone", "-q", str(repo.root), "clone")
    clone = tmp_path / "clone"
    new = next_commit(repo, "new")
    git(clone, "remote", "set-url", "origin", str(tmp_path / "away"))
    with Git(clone) as found:
        line = Line(git=found, branch="main")
        assert line.is_older(old, new) is None
        git(clone, "fetch", "-q", str(repo.root), "main:refs/remotes/origin/main")
        assert line.is_older(old, new) is True
