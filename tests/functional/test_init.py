"""``lago-images init``: what it writes works, and is written once."""

import re
import subprocess
import sys

import pytest

from tests.support.specs import SpecsRepo, git

FILES = [
    "image-specs/my-debian-12",
    "lago-images.toml",
    ".gitignore",
    ".github/workflows/images.yml",
    "Jenkinsfile",
]


def contents(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and ".git/" not in str(p.relative_to(folder)) + "/"
    }


@pytest.fixture
def made(tmp_path):
    repo = SpecsRepo(root=tmp_path / "my-specs")
    repo.root.mkdir()
    git(repo.root, "init", "-q", "-b", "trunk")
    return repo


def test_what_it_writes_works(made):
    ran = made.run("init")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [f"wrote {path}" for path in FILES]
    assert re.search(
        r" https://github\.com/[^/ ]+/[^/ ]+/blob/[^/ ]+/docs/ci\.md tells of CI", ran.err
    )
    assert "for CI: set repository in lago-images.toml" in ran.err
    linted = made.run("lint")
    assert linted.code == 0, linted.err
    made.commit("Start")
    planned = made.run("ci", "plan", "--format", "json")
    assert planned.code == 0, planned.err
    assert planned.json()["chains"] == [["my-debian-12"]]


def test_it_finds_out_what_it_can(made):
    made.run("init")
    files = contents(made.root)
    assert b"branches: [trunk]" in files[".github/workflows/images.yml"]
    assert b'name = "my-specs"' in files["lago-images.toml"]
    assert not [path for path, text in files.items() if b"@tools@" in text or b"@ref@" in text]


def test_twice_changes_nothing(made):
    made.run("init")
    before = contents(made.root)
    ran = made.run("init")
    assert ran.code == 0
    assert ran.out.splitlines() == [f"kept {path}, which was there" for path in FILES]
    assert contents(made.root) == before


def test_what_is_there_is_kept(made):
    made.write("lago-images.toml", 'name = "mine"\n')
    ran = made.run("init")
    assert "kept lago-images.toml, which was there" in ran.out
    assert (made.root / "lago-images.toml").read_text() == 'name = "mine"\n'


def test_a_new_folder(tmp_path):
    repo = SpecsRepo(root=tmp_path)
    ran = repo.run("init", "new/place")
    assert ran.code == 0, ran.err
    assert "git init" in ran.err
    assert set(contents(tmp_path / "new/place")) == set(FILES)


def test_the_workflow_is_valid(made):
    made.run("init")
    workflow = made.root / ".github/workflows/images.yml"
    schema = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
    ]
    done = subprocess.run([*schema, str(workflow)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_where_and_for_which_repository_can_be_said(tmp_path):
    repo = SpecsRepo(root=tmp_path)
    (tmp_path / "new").mkdir()
    ran = repo.run("-C", "new", "init", "--repository", 'say "public"')
    assert ran.code == 0, ran.err
    assert set(contents(tmp_path)) == {f"new/{path}" for path in FILES}
    listed = repo.run("-C", "new", "repo", "list")
    assert f'there is no folder {tmp_path}/say "public"' in listed.err
    both = repo.run("-C", "new", "init", "elsewhere")
    assert (both.code, (tmp_path / "elsewhere").exists()) == (2, False)
    ran = repo.run("init", "bucket", "--repository", "s3://bucket/prefix")
    assert 'repository = "s3://bucket/prefix"' in (tmp_path / "bucket/lago-images.toml").read_text()
