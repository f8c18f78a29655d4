"""Specs that try to speak to GitHub's runner, the report and the index through CI."""

import json
import os
import re

import pytest

from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import manifest, put_build, put_release, release
from tests.support.specs import SpecsRepo, git
from tests.unit.ci.report.test_markdown import ACTIVE, rendered
from tests.unit.ci.test_environment import is_command, parsed

OURS = re.compile(r"::(error|warning|group|endgroup)\b")
# What a spec's author tries, as the name of a file in image-specs/.
NAMES = [
    "a b",
    "$(touch pwned)",
    "`touch pwned`",
    "a;touch pwned",
    "-rf",
    "--format=json",
    "a\nwork=true",
    "a\n[section]",
    "::set-env name=PATH::x",
    "a::b",
    "##[add-path]x",
    "\x1b[31mred",
    "é",
    "a'b",
    'a"b',
    "${{ secrets.KEY }}",
    "a|b",
    "@octocat",
]
# The same in a property's value and in a command.
TEXTS = [
    "::set-env name=PATH::/tmp/evil ##[add-path]/tmp/evil",
    "\x1b[2J\x1b]0;title\x07\u200b::add-path::/tmp/evil",
    "x | <img src=https://evil.example/i> @octocat [x](https://evil.example) ${{ secrets.KEY }}",
    "]\n[section]\nfile=x",
]


@pytest.fixture
def repo(tmp_path) -> SpecsRepo:
    made = SpecsRepo.create(
        tmp_path / "specs",
        environ={
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            "GITHUB_EVENT_PATH": "",
        },
    )
    made.disk("disk.raw")
    made.spec("good", "simple:disk.raw")
    return made


def check_log(text: str) -> None:
    """Every command in a log is one of ours, with nothing of theirs in its place."""
    for line in re.split(r"[\r\n]", text):
        if is_command(line):
            assert OURS.match(line), line
    assert "\x1b" not in text


def test_hostile_names_are_refused_by_every_command(repo, tmp_path):
    for name in NAMES:
        (repo.root / "image-specs" / name).write_text((repo.root / "image-specs/good").read_text())
    repo.commit()
    for command in (["lint"], ["ci", "plan", "--format", "github"], ["ci", "rebuild", "--changed"]):
        ran = repo.run(*command)
        assert ran.code == 2, (command, ran.out, ran.err)
        check_log(ran.out + ran.err)
    linted = repo.run("lint", "--format", "json")
    assert len({each["path"] for each in linted.json()["problems"]}) == len(NAMES)
    assert not (tmp_path / "output").exists()
    assert not (repo.root / "pwned").exists()


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_hostile_text_is_escaped(repo, tmp_path, text):
    """As a property, as a wrong command, as the reason in a plan and a report."""
    repo.spec("bad", "simple:disk.raw", f"#notes={text}".replace("\n", "\n#"), f"instal {text}")
    repo.commit(f"Change\n\n{text}")
    linted = repo.run("lint")
    assert linted.code == 2
    check_log(linted.out + linted.err)

    repo.spec("bad", "simple:broken.raw.xz", f"#notes={text}".replace("\n", "\n#"))
    repo.write("broken.raw.xz", b"\xfd7zXZ\x00" + text.encode())
    repo.commit(text)
    plan = str(tmp_path / "plan.json")
    ran = repo.run("ci", "plan", "--format", "github", "--output", plan)
    if ran.code == 2:
        # The spec itself was refused, which is as good.
        check_log(ran.out + ran.err)
        return
    assert ran.code == 0, ran.err
    check_log(ran.out + ran.err)
    lines = parsed((tmp_path / "output").read_text())
    assert set(lines) == {"matrix", "count", "promote", "work", "plan-sha256"}
    assert [each["chain"] for each in json.loads(lines["matrix"])["include"]] == ["bad", "good"]

    results = str(tmp_path / "results")
    built = repo.run("ci", "build", "--plan", plan, "--results", results, "bad", "good")
    assert built.code == 1
    check_log(built.out + built.err)
    told = repo.run("ci", "report", "--plan", plan, "--results", results)
    assert told.code == 0, told.err
    check_log(told.out + told.err)
    shown = rendered((tmp_path / "summary.md").read_text()).replace("<h3>Images</h3>", "")
    assert not ACTIVE.search(shown)
    assert not re.search(r"@\w", re.sub(r"(?s)<pre>.*?</pre>", "", shown))


def test_bytes_that_are_not_utf_8_are_reported_escaped(repo, tmp_path):
    """In the subject of a commit and the name of a file: the plan and the report hold."""
    repo.spec("more", "simple:disk.raw", "copy-in files:/srv")
    for text in ("one", "two"):
        (repo.root / "files").mkdir(exist_ok=True)
        (repo.root / os.fsdecode(b"files/caf\xe9")).write_text(text)
        (tmp_path / "subject").write_bytes(b"Caf\xe9 " + text.encode())
        git(repo.root, "add", "-A")
        # Of an encoding that git does not know it keeps the bytes; else it makes them UTF-8.
        encoding = ("-c", "i18n.commitEncoding=none")
        git(repo.root, *encoding, "commit", "-q", "-F", str(tmp_path / "subject"))
    store, before = DirectoryStore(path=repo.root / "image-repo"), git(repo.root, "rev-parse", "@~")
    put_build(store, manifest("more"))
    put_release(store, release(name="more", commit=before))
    plan = str(tmp_path / "plan.json")
    ran = repo.run("ci", "plan", "--output", plan)
    assert (ran.code, ran.err) == (0, "")
    assert "Caf\ufffd" in ran.out
    told = repo.run("ci", "report", "--plan", plan, "--results", str(tmp_path / "none"))
    assert told.code == 0, told.err
    assert "Caf\ufffd" in rendered((tmp_path / "summary.md").read_text())
    linted = repo.run("lint")
    assert linted.code == 0
    (repo.root / os.fsdecode(b"image-specs/caf\xe9")).write_text("#base=libguestfs:x\n")
    linted = repo.run("lint")
    assert (linted.code, "Traceback" in linted.err) == (2, False)


def test_the_runners_output_format_is_parsed(tmp_path):
    """Else the tests of outputs prove nothing."""
    assert parsed("a<<X\n1\n2\nX\nb<<Y\n3\nY\n") == {"a": "1\n2", "b": "3"}
