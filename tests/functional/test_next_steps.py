"""What the command line says to do next: each command it names works as it is written."""

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

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


def test_after_a_build_serve_and_list_are_suggested(repo):
    ran = repo.run("build")
    assert ran.code == 0, ran.err
    assert f"next: lago-images serve {repo.root}/image-repo" in ran.err
    assert "lago-images repo list" in ran.err
    [catalogue] = re.findall(r"^catalogue: file://(.*)$", ran.err, re.MULTILINE)
    assert "one" in Path(unquote(catalogue)).read_text()
    again = repo.run("build", "--base-url", "https://images.example.org/x/")
    assert "catalogue: https://images.example.org/x/index.html" in again.err


def test_after_a_failed_build_serve_is_not_suggested(repo):
    repo.spec("one", "simple:missing.img")
    repo.write("missing.img", "")
    ran = repo.run("build")
    assert ran.code == 1
    assert "next:" not in ran.err


def test_ci_build_suggests_ci_publish_which_names_the_catalogue(repo):
    ran = repo.run("ci", "build", "one")
    assert (ran.code, "next: lago-images ci publish" in ran.err) == (0, True), ran.err
    ran = repo.run("ci", "publish")
    assert (ran.code, "next: lago-images serve" in ran.err) == (0, True), ran.err


def test_gc_reports_what_waits_for_the_grace_period_and_until_when(repo):
    assert repo.run("ci", "build", "one").code == 0
    ran = repo.run("repo", "gc")
    assert ran.code == 0, ran.err
    assert "to delete: 0 builds, 0 B" in ran.out
    day = r"\d{4}-\d\d-\d\d"
    assert re.search(
        rf"^waiting: 1 builds, .*: the first on {day}, the last on {day}$", ran.out, re.MULTILINE
    )
    assert len(repo.run("repo", "gc", "--format", "json").json()["waiting"]) == 1


@pytest.mark.parametrize("lost", ["*.qcow2.xz", "manifest.json"])
def test_the_yank_command_that_verify_suggests_works(repo, lost):
    assert repo.run("build").code == 0
    [path] = repo.root.glob(f"image-repo/images/one/x86_64/*/{lost}")
    path.unlink()
    ran = repo.run("repo", "verify")
    assert ran.code == 1
    commands = re.findall(r"(lago-images repo yank .*?'[^']*')", ran.out)
    assert commands, ran.out
    for command in set(commands):
        words = shlex.split(command)[1:]
        assert words[words.index("--arch") + 1] == "x86_64"
        assert words[words.index("--revision") + 1] == "1"
        yanked = repo.run(*words)
        assert yanked.code == 0, yanked.err
