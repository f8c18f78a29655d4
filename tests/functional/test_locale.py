"""The command line under locales and streams that are not what it hopes for."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.specs import SpecsRepo
from tests.tools import need

need("git")
# Without these two Python itself turns an ASCII locale into UTF-8.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN_1 = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.write("image-specs/später", "#base=nonsense:日本\n")
    return repo


def call(repo, *args, **environ):
    return subprocess.run(
        [sys.executable, "-m", "lago_images", *args],
        cwd=repo.root,
        env=repo.env(environ),
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("environ", [ASCII, LATIN_1, {**ASCII, **LATIN_1}], ids=str)
@pytest.mark.parametrize("command", ["build", "ci plan", "ci build", "ci rebuild", "lint"])
def test_help_is_utf_8_everywhere(repo, environ, command):
    done = call(repo, *command.split(), "--help", **environ)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "Usage: lago-images" in done.stdout.decode("utf-8")


@pytest.mark.parametrize("environ", [ASCII, LATIN_1, {**ASCII, **LATIN_1}], ids=str)
def test_names_that_are_not_ascii_come_out_as_they_went_in(repo, environ):
    done = call(repo, "lint", "--format", "json", "image-specs/später", **environ)
    assert done.returncode == 2, done.stderr
    problems = json.loads(done.stdout.decode("utf-8"))["problems"]
    assert {problem["path"] for problem in problems} == {"image-specs/später"}
    text = call(repo, "lint", **environ)
    assert text.returncode == 2
    assert "image-specs/später" in text.stdout.decode("utf-8")


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "2>&- <&-"])
def test_a_closed_stream_changes_no_exit_code(repo, closed):
    (repo.root / "image-specs/später").unlink()
    repo.spec("one", "libguestfs:fedora-40")
    shell = f'"$0" -m lago_images lint {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable],
        cwd=repo.root,
        env=repo.env(dict(os.environ)),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
