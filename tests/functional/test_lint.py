"""``lago-images lint``, called as a user calls it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.specs import SpecsRepo

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repo(tmp_path):
    return SpecsRepo.create(tmp_path / "specs")


def test_valid_specs_have_no_problem(repo):
    repo.spec("a", "libguestfs:x")
    ran = repo.run("lint")
    assert (ran.code, ran.out, ran.err) == (0, "", "1 spec: no problems\n")


def test_every_problem_of_every_spec_is_reported(repo):
    repo.spec("a", "layer:c", "instal x", "#vesion=1")
    repo.spec("b", "simple:disk.img", "upload /etc/passwd:/x")
    ran = repo.run("lint")
    assert ran.code == 2
    assert ran.out.splitlines() == [
        (
            "image-specs/a:2: there is no spec 'c'; a base that is no spec is written "
            "bootstrap:RELEASE, libguestfs:TEMPLATE or simple:DISK"
        ),
        "image-specs/a:8: unknown command 'instal'; did you mean 'install'?",
        "image-specs/a:9: unknown property 'vesion'; did you mean 'version'?",
        (
            "image-specs/b:2: host path 'disk.img' is missing (paths start at the root of the "
            "repository)"
        ),
        "image-specs/b:8: host path '/etc/passwd' must be relative to the root of the repository",
    ]
    assert ran.err == "2 specs: 5 problems\n"


@pytest.mark.parametrize("name", ["old/gone", "old/deep/gone"])
def test_a_spec_in_a_sub_folder_is_reported(repo, name):
    repo.spec("a", "libguestfs:x")
    moved = repo.root / "image-specs" / name
    moved.parent.mkdir(parents=True)
    moved.write_text((repo.root / "image-specs/a").read_text())
    ran = repo.run("lint")
    assert (ran.code, ran.out) == (
        2,
        (
            f"image-specs/{name}: looks like a spec, which are not read in sub-folders: move it to "
            "image-specs/\n"
        ),
    )


def test_files_to_upload_are_not_taken_for_specs(repo):
    repo.spec("a", "libguestfs:x")
    files = repo.root / "image-specs/files"
    (files / ".git").mkdir(parents=True)
    (files / "notes").write_text("#base=layer:x is said in each\n")
    (files / "a.bak").write_text((repo.root / "image-specs/a").read_text())
    (files / ".git/a").write_text((repo.root / "image-specs/a").read_text())
    (files / "link").symlink_to("../a")
    assert repo.run("lint").code == 0


def test_a_command_removed_in_newer_guestfs_tools_is_noted(repo):
    repo.spec("a", "libguestfs:x", "sm-register")
    for arguments in ([], ["image-specs/a"]):
        ran = repo.run("lint", *arguments)
        assert ran.code == 0
        assert "image-specs/a:8: note: sm-register is in guestfs-tools up to 1.55.1 only" in ran.err


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_output_is_utf_8_in_any_locale(repo, tmp_path, locale):
    repo.spec("a", "libguestfs:x", "write /etc/motd:Grüße €", "upload für:/x", "instal ü")
    (repo.root / "für").write_text("")
    (repo.root / "lago_images.py").write_text("raise SystemExit('imported from the specs')")
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from lago_images.cli import main; main()", "lint"],
        cwd=repo.root,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LC_ALL": locale,
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.decode()) == (
        2,
        "image-specs/a:10: unknown command 'instal'; did you mean 'install'?\n",
    )


def test_one_spec_is_checked_among_the_others(repo):
    repo.spec("a", "layer:b")
    repo.spec("b", "libguestfs:x", "bad")
    ran = repo.run("lint", "image-specs/a")
    assert (ran.code, ran.out) == (0, "")
    ran = repo.run("lint", "image-specs/b", "image-specs/b", "image-specs/a")
    assert (ran.code, ran.out) == (2, "image-specs/b:8: unknown command 'bad'\n")


@pytest.mark.parametrize(
    ("wanted", "what", "hint"),
    [
        ("image-specs/webb", "no file image-specs/webb, and no spec", "did you mean 'web'?"),
        ("specs/web", "no file specs/web\n", "did you mean 'web'?"),
        ("webb", "no spec 'webb'", "did you mean 'web'?"),
        ("image-specs/nope", "no file image-specs/nope, and no spec", "the specs are in "),
        ("nope", "no spec 'nope'", "the specs are in "),
    ],
)
def test_a_spec_that_is_not_there_is_told_with_what_is_near(repo, wanted, what, hint):
    repo.spec("web", "libguestfs:x")
    ran = repo.run("lint", wanted)
    assert (ran.code, ran.out) == (2, "")
    assert f"error: there is {what}" in ran.err
    assert f"hint: {hint}" in ran.err


def test_another_folder_of_specs_is_checked(repo, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "x").write_text("#base=libguestfs:x\n#arch=x86_64\n")
    ran = repo.run("lint", str(other))
    assert ran.code == 2
    assert ran.out == "x: no distro: lago chooses how to set up a machine by it; add #distro=…\n"


def test_json_output_has_every_problem(repo):
    repo.spec("a", "libguestfs:x", "bad")
    ran = repo.run("lint", "--format", "json")
    assert ran.code == 2
    assert ran.json() == {
        "schema": 1,
        "specs": 1,
        "problems": [{"path": "image-specs/a", "line": 8, "what": "unknown command 'bad'"}],
    }


def test_problems_are_annotated_on_github(repo):
    repo.spec("a", "libguestfs:x", "::set-output name=x::y")
    ran = repo.run("lint", environ={"GITHUB_ACTIONS": "true"})
    assert ran.code == 2
    assert ran.out == "image-specs/a:8: unknown command '::set-output'\n"
    commands = [line for line in ran.err.splitlines() if line.lstrip().startswith("::")]
    assert len(commands) == 1
    assert commands[0].startswith("::error file=image-specs/a,line=8::unknown command ")
    assert "set-output name" not in commands[0]


def test_a_missing_folder_of_specs_exits_2(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    (repo.root / "image-specs").rmdir()
    ran = repo.run("lint")
    assert ran.code == 2
    assert "image-specs: the folder of the specs cannot be read: No such file" in ran.out


def a_private_folder(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "id_ed25519").write_text("b3BlbnNzaC1rZXk\n")
    return folder


def test_a_folder_of_specs_outside_the_repository_is_refused(repo, tmp_path):
    (repo.root / "image-specs").rmdir()
    (repo.root / "image-specs").symlink_to(a_private_folder(tmp_path))
    ran = repo.run("lint")
    assert ran.code == 2
    assert ran.out == "image-specs: the folder of the specs leads out of the repository\n"


@pytest.mark.parametrize("folder", ["../private", "/etc", "a/../../private", "~", ".git"])
def test_settings_cannot_make_lint_read_outside_the_repository(repo, tmp_path, folder):
    a_private_folder(tmp_path)
    repo.write("lago-images.toml", f'specs = "{folder}"\n')
    ran = repo.run("lint")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"lago-images.toml:1: specs must be a folder inside the repository, not '{folder}'\n"
    )


def test_gits_own_files_are_not_taken_for_specs(repo):
    (repo.root / "image-specs/a").symlink_to("../.git/config")
    (repo.root / "specs").symlink_to(".git")
    why = "leads to git's own files, which may hold credentials"
    assert repo.run("lint").out == f"image-specs/a: the link {why}\n"
    ran = repo.run("lint", environ={"LAGO_IMAGES_SPECS": "specs"})
    assert (ran.code, ran.out) == (2, f"specs: the folder of the specs {why}\n")


def test_a_settings_file_linked_from_outside_the_repository_is_refused(repo, tmp_path):
    (tmp_path / "credentials.toml").write_text('token = "b3BlbnNzaC1rZXk"\n')
    (repo.root / "lago-images.toml").symlink_to("../credentials.toml")
    ran = repo.run("lint")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "lago-images.toml: the link leads out of the repository\n"


def test_hostile_specs_are_refused(tmp_path):
    root = tmp_path / "hostile"
    shutil.copytree(ROOT / "tests" / "hostile-specs", root, symlinks=True)
    for name in (
        "::set-env name=A::b",
        "\x1b[31mred",
        "a|b",
        "<img src=x>",
        "--output",
        "new\nline",
    ):
        (root / "image-specs" / name).write_text("#base=libguestfs:x\n#arch=x86_64\n#distro=x\n")
    ran = SpecsRepo(root=root).run("lint", environ={"GITHUB_ACTIONS": "true"})
    assert ran.code == 2
    for line in [*ran.out.splitlines(), *ran.err.splitlines()]:
        assert line.isprintable() or "\u200b" in line
        assert not line.startswith("::") or line.startswith("::error file=image-specs/")
        assert "##[" not in line
    assert ran.err.count("cannot name an image") == 6


def test_the_repositorys_own_specs_are_valid(tmp_path):
    repo = SpecsRepo(root=ROOT)
    ran = repo.run("lint", environ={"XDG_CACHE_HOME": str(tmp_path)})
    assert (ran.code, ran.out) == (0, "")


@pytest.mark.parametrize(
    "name", ["Jenkinsfile", "README.md", "image-specs/README", "image-specs/a~"]
)
def test_files_that_are_not_specs_are_refused_with_a_hint(tmp_path, name):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.spec("a", "libguestfs:x")
    repo.write(name, "update\n")
    ran = repo.run("lint", name)
    assert (ran.code, ran.out) == (2, "")
    assert f"{name} is n" in ran.err
    assert "hint: " in ran.err


@pytest.mark.parametrize("inside", [True, False])
def test_the_folder_above_the_specs_is_accepted(tmp_path, inside):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.spec("a", "libguestfs:x", "bad")
    repo.write("Jenkinsfile", "pipeline {}\n")
    ran = repo.run("lint", *(["."] if inside else ["specs"]), folder=None if inside else tmp_path)
    assert (ran.code, ran.out) == (2, "image-specs/a:8: unknown command 'bad'\n")
