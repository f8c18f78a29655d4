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
def test_help_is_utf_8_in_any_locale(repo, environ, command):
    done = call(repo, *command.split(), "--help", **environ)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "Usage: lago-images" in done.stdout.decode("utf-8")


@pytest.mark.parametrize("environ", [ASCII, LATIN_1, {**ASCII, **LATIN_1}], ids=str)
def test_non_ascii_names_are_printed_unchanged(repo, environ):
    done = call(repo, "lint", "--format", "json", "image-specs/später", **environ)
    assert done.returncode == 2, done.stderr
    problems = json.loads(done.stdout.decode("utf-8"))["problems"]
    assert {problem["path"] for problem in problems} == {"image-specs/später"}
    text = call(repo, "lint", **environ)
    assert text.returncode == 2
    assert "image-specs/später" in text.stdout.decode("utf-8")


@pytest.fixture(scope="module", params=["en_US", "de_DE"])
def latin_1(request, tmp_path_factory):
    """A locale whose characters are Latin-1, as glibc has it and not as Python is told."""
    need("localedef")
    folder = tmp_path_factory.mktemp("locales")
    name = f"{request.param}.ISO-8859-1"
    argv = ["localedef", "-i", request.param, "-f", "ISO-8859-1", folder / name]
    subprocess.run(argv, check=True, timeout=60)
    probe = [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"]
    locale = {"LOCPATH": str(folder), "LANG": name, "LC_ALL": "", "PYTHONUTF8": "0"}
    environ = {**os.environ, **locale}
    assert subprocess.check_output(probe, env=environ, text=True).strip() == "iso8859-1"
    return locale


def test_a_real_latin_1_locale_changes_nothing(repo, latin_1):
    test_help_is_utf_8_in_any_locale(repo, latin_1, "lint")
    test_non_ascii_names_are_printed_unchanged(repo, latin_1)


def test_files_written_into_images_are_utf_8_under_latin_1(repo, latin_1):
    """Of the layer's own files, too: the plan of it names the euro sign as the spec has it."""
    (repo.root / "image-specs/später").unlink()
    repo.write("image-specs/files/größe", "€\n")
    repo.spec("one", "simple:image-specs/files/größe", "write /etc/motd:Grüße, 5 €")
    repo.commit()
    done = call(repo, "lint", **latin_1)
    assert done.returncode == 0, done.stdout + done.stderr
    plans = [call(repo, "ci", "plan", "--format", "json", **each) for each in (latin_1, {})]
    assert [plan.returncode for plan in plans] == [0, 0], plans[0].stderr
    first, second = (json.loads(plan.stdout)["images"][0]["fingerprint"] for plan in plans)
    assert first == second


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "2>&- <&-"])
def test_a_closed_output_stream_does_not_change_the_exit_code(repo, closed):
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
