"""``lago-images init``: what it writes works, and is written once."""

import io
import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from lago_images.ci import scaffold
from lago_images.cli.init import init
from lago_images.cli.invocation import Invocation
from lago_images.console import Console
from lago_images.settings import load
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


def test_the_written_files_lint_and_plan(made):
    ran = made.run("init")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [f"wrote {path}" for path in FILES]
    assert re.search(
        r" https://github\.com/[^/ ]+/[^/ ]+/blob/[^/ ]+/docs/ci\.md describes CI", ran.err
    )
    assert "for CI: set repository in lago-images.toml" in ran.err
    linted = made.run("lint")
    assert linted.code == 0, linted.err
    made.commit("Start")
    planned = made.run("ci", "plan", "--format", "json")
    assert planned.code == 0, planned.err
    assert planned.json()["chains"] == [["my-debian-12"]]


def test_facts_are_taken_from_git_and_the_installation(made):
    made.run("init")
    files = contents(made.root)
    assert b'branches: ["trunk"]' in files[".github/workflows/images.yml"]
    assert b'name = "my-specs"' in files["lago-images.toml"]
    assert not [path for path, text in files.items() if b"@tools@" in text or b"@ref@" in text]


def test_a_second_init_changes_nothing(made):
    made.run("init")
    before = contents(made.root)
    ran = made.run("init")
    assert ran.code == 0
    assert ran.out.splitlines() == [f"kept {path}, which exists" for path in FILES]
    assert contents(made.root) == before


def test_existing_files_are_kept(made):
    made.write("lago-images.toml", 'name = "mine"\n')
    ran = made.run("init")
    assert "kept lago-images.toml, which exists" in ran.out
    assert (made.root / "lago-images.toml").read_text() == 'name = "mine"\n'


def test_an_option_that_a_kept_file_does_not_follow_is_an_error(made):
    """Else a choice of whose builds are released is silently not made."""
    assert made.run("init").code == 0
    before = contents(made.root)
    ran = made.run("init", "--promote", "never", "--repository", "s3://bucket/p")
    assert (ran.code, contents(made.root)) == (1, before)
    assert "not all options were applied" in ran.err
    assert 'promote = "never" in lago-images.toml' in ran.err
    assert "builder-environment: builders below with: in .github/workflows/images.yml" in ran.err
    assert 'repository = "s3://bucket/p" in lago-images.toml' in ran.err
    for option in (("--promote", "same-repository"), ("--repository", "image-repo"), ()):
        assert made.run("init", *option).code == 0
    (made.root / ".github/workflows/images.yml").unlink()
    ran = made.run("init", "--promote", "attested")
    assert ran.code == 1
    assert 'hint: edit by hand: promote = "attested" in lago-images.toml\n' in ran.err
    ran = made.run("init", "--promote", "same-repository")
    assert (ran.code, "no attest: true below with:" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ("s3://bucket/prefix", {"endpoint-url": "https://s3.lab.example", "region": "lab"}),
        ("./image-repo", {}),
    ],
)
def test_the_workflow_asks_the_store_of_the_environment(tmp_path, place, asked):
    """Where it goes into a bucket: CI must not ask another store than whoever set it up."""
    environ = {"AWS_ENDPOINT_URL_S3": "https://s3.lab.example", "AWS_REGION": "lab"}
    repo = SpecsRepo(root=tmp_path, environ=environ)
    assert repo.run("init", "--repository", place).code == 0
    text = (tmp_path / ".github/workflows/images.yml").read_text()
    given = yaml.safe_load(text)["jobs"]["images"]["with"]
    assert {key: given[key] for key in ("endpoint-url", "region") if key in given} == asked
    assert ("# endpoint-url: https://s3.example.org" in text) is not bool(asked)


def test_a_folder_below_the_top_of_its_git_repository_is_told_of(made):
    ran = made.run("init", "servers")
    assert ran.code == 0
    assert "GitHub reads no workflow here" in ran.err
    assert re.search(r"https://github\.com/\S+/docs/several-repositories\.md", ran.err)
    assert "describes CI" not in ran.err
    assert "neither a workflow nor a Jenkinsfile was written" in ran.err
    assert set(contents(made.root / "servers")) == {*FILES} - {*scaffold.PINNED}
    assert "GitHub reads no workflow here" not in made.run("init").err


def test_an_example_that_was_deleted_does_not_come_back(made):
    made.run("init")
    made.spec("mine", "libguestfs:x")
    (made.root / "image-specs/my-debian-12").unlink()
    before = contents(made.root)
    ran = made.run("init", "--promote", "same-repository")
    assert (ran.code, contents(made.root)) == (0, before)
    assert "no example of a spec was written" in ran.err


@pytest.mark.parametrize("words", [("-C", "desktops", "init"), ("init", "-C", "desktops")])
def test_the_folder_that_is_named_is_made(made, words):
    ran = made.run(*words)
    assert ran.code == 0, ran.err
    assert (made.root / "desktops/lago-images.toml").is_file()


@pytest.mark.parametrize(
    "words", [("lint",), ("build",), ("serve",), ("doctor",), ("repo", "list")]
)
def test_no_other_command_takes_a_folder_that_is_missing(made, words):
    for call in (("-C", "mistyped", *words), (*words, "-C", "mistyped")):
        ran = made.run(*call)
        assert (ran.code, ran.out) == (2, "")
        assert "error: there is no folder mistyped" in ran.err
        assert "lago-images init FOLDER makes one" in ran.err
    assert not (made.root / "mistyped").exists()


def test_what_is_made_by_hand_is_not_committed(made):
    made.run("init")
    left = ["image-repo/index", "my-debian-12.qcow2", "plan.json", "results/a", "logs/a"]
    for path in left:
        made.write(path, "")
    made.write("disks/base.qcow2", "")
    status = git(made.root, "status", "--porcelain", "--untracked-files=all")
    listed = [line.split()[-1] for line in status.splitlines()]
    assert sorted(listed) == sorted([*FILES, "disks/base.qcow2"])


def test_init_creates_a_new_folder(tmp_path):
    repo = SpecsRepo(root=tmp_path)
    ran = repo.run("init", "new/place")
    assert ran.code == 0, ran.err
    assert "git init" in ran.err
    assert set(contents(tmp_path / "new/place")) == set(FILES)


def test_the_written_workflow_is_valid(made):
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


def test_folder_and_repository_are_options(tmp_path):
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


@pytest.mark.parametrize(
    ("folder", "branch", "pattern"),
    [
        ('we"ird \\ é', "a]b", "a]b"),
        ("x", "1.10", "1.10"),
        ("\x7f\U0001f427", "c++!", r"c\+\+\!"),
    ],
)
def test_detected_facts_are_quoted(tmp_path, folder, branch, pattern):
    repo = SpecsRepo(root=tmp_path / folder)
    repo.root.mkdir()
    git(repo.root, "init", "-q", "-b", branch)
    assert repo.run("init").code == 0
    linted = repo.run("lint")
    assert linted.code == 0, linted.err
    assert load(repo.root, {}).name == folder
    workflow = yaml.safe_load((repo.root / ".github/workflows/images.yml").read_text())
    # YAML 1.1 reads the key "on" as true.
    assert workflow[True]["push"]["branches"] == [pattern]


def test_bytes_that_are_not_utf_8_are_replaced_in_the_name(tmp_path):
    repo = SpecsRepo(root=tmp_path / os.fsdecode(b"a\xff"))
    repo.root.mkdir()
    assert repo.run("init").code == 0
    assert load(repo.root, {}).name == "a?"


@pytest.mark.parametrize(
    ("option", "extra"),
    [
        ((), {}),
        (("--promote", "same-repository"), {}),
        (("--promote", "attested"), {"attest": True}),
        (("--promote", "never"), {"builder-environment": "builders"}),
    ],
)
def test_promotion_is_set_by_one_option(made, option, extra):
    """Of the settings and of the workflow at once: the one without the other is no protection."""
    ran = made.run("init", *option)
    assert ran.code == 0, ran.err
    assert load(made.root, {}).promote == (option[1] if option else "same-repository")
    # It is said where it is chosen, too.
    assert (
        "believes everybody who may push a branch" in (made.root / "lago-images.toml").read_text()
    )
    called = yaml.safe_load((made.root / ".github/workflows/images.yml").read_text())["jobs"]
    plain = {"names", "tools-repository", "tools-ref"}
    asked = called["images"]["with"]
    assert {key: value for key, value in asked.items() if key not in plain} == extra
    assert called["images"]["name"] == "lago-images"
    refused = made.run("init", "--promote", "always")
    assert refused.code == 2


def recorded(url: str, **more) -> str:
    return json.dumps({"url": url, **more})


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/o/images.git", "o/images"),
        ("https://github.com/o/images", "o/images"),
        ("https://token@github.com/o/images", "o/images"),
        ("ssh://git@github.com/o/images.git", "o/images"),
        ("git@github.com:o/images.git", "o/images"),
        ("https://example.com/o/images.git", None),
    ],
)
def test_the_workflow_pins_the_installed_version(tmp_path, url, name):
    """By pip from git, and from a folder: that folder's commit."""
    commit = "1234567" * 5 + "89abc"
    expected = (name, commit) if name else (scaffold.HOME, "main")
    assert scaffold.tools(recorded(url, vcs_info={"commit_id": commit})) == expected

    checkout = SpecsRepo.create(tmp_path / "a checkout")
    checkout.write("below/x", "1")
    commit = checkout.commit()
    here = checkout.root.as_uri()
    assert scaffold.tools(recorded(here, dir_info={})) == (scaffold.HOME, "main")
    git(checkout.root, "remote", "add", "origin", url)
    expected = (name, commit) if name else (scaffold.HOME, "main")
    assert scaffold.tools(recorded(here, dir_info={"editable": True})) == expected
    below = recorded(f"{here}/below", dir_info={})
    assert scaffold.tools(below) == (scaffold.HOME, "main")


@pytest.mark.parametrize("text", ["", "{", '{"url": "file:///nowhere", "dir_info": {}}'])
def test_the_workflow_names_a_branch_where_no_version_is_recorded(text):
    assert scaffold.tools(text) == (scaffold.HOME, "main")


def test_files_that_are_not_pinned_are_listed(made, monkeypatch):
    monkeypatch.setattr(scaffold, "recorded", str)
    told = io.StringIO()
    invocation = Invocation(console=Console(stream=told))
    ran = CliRunner().invoke(init, [str(made.root)], obj=invocation)
    assert ran.exit_code == 0, ran.output
    assert "of its branch main into .github/workflows/images.yml and Jenkinsfile" in told.getvalue()
