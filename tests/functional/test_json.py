"""What every command prints with --format json is a document of its published schema."""

import json

import click
import pytest

from lago_images.cli.main import main
from tests.support.schemas import PRINTED_BY, validator
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git", "qemu-img")


def formats(command=main, path=(), parent=None):
    """The choices of --format of every command that has it, by name."""
    ctx = click.Context(command, parent=parent, **command.context_settings)
    if isinstance(command, click.Group):
        below = (command.get_command(ctx, name) for name in command.list_commands(ctx))
        names = command.list_commands(ctx)
        found = {}
        for name, each in zip(names, below, strict=True):
            found |= formats(each, (*path, name), ctx)
        return found
    options = [param for param in command.params if "--format" in param.opts]
    return {" ".join(path): option.type.choices for option in options}


def test_every_command_that_prints_json_has_a_schema():
    assert {name for name, choices in formats().items() if "json" in choices} == set(PRINTED_BY)
    silent = {"run", "completion", "man"}
    assert set(formats()) | silent == set(leaves())


def leaves(command=main, path=()):
    if not isinstance(command, click.Group):
        return [" ".join(path)]
    ctx = click.Context(command, **command.context_settings)
    return [
        leaf
        for name in command.list_commands(ctx)
        for leaf in leaves(command.get_command(ctx, name), (*path, name))
    ]


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("one.img")
    repo.disk("two.img", seed=2)
    repo.spec("one", "simple:one.img")
    repo.spec("two", "simple:two.img")
    repo.commit()
    return repo


@pytest.fixture
def ask(repo):
    """Call a command with --format json, and check what it prints by its schema."""

    def ask(command, *args, schema=0, code=0):
        ran = repo.run(*command.split(), *args, "--format", "json")
        assert ran.code == code, ran.err
        # One document, and nothing beside it.
        document = json.loads(ran.out)
        problems = validator(PRINTED_BY[command][schema]).iter_errors(document)
        assert not [problem.message for problem in problems]
        return document

    return ask


def test_what_a_run_prints_is_of_its_schema(repo, ask, tmp_path):
    assert ask("lint")["problems"] == []
    assert ask("init", str(tmp_path / "new"))["written"]
    assert ask("doctor", code=repo.run("doctor").code)["checks"]
    tried = ask("try", "one", "--output", str(tmp_path / "one.qcow2"))
    assert [image["outcome"] for image in tried["images"]] == ["built"]
    plan = tmp_path / "plan.json"
    assert ask("ci plan", "--output", str(plan))["images"]
    results = ("--plan", str(plan), "--results", str(tmp_path / "results"))
    built = ask("ci build", *results, "one")
    assert [image["outcome"] for image in built["images"]] == ["built"]
    published = ask("ci publish", *results, code=1)
    assert {image["name"]: image["outcome"] for image in published["images"]} == {
        "one": "released",
        "two": "not published",
    }
    assert published["images"][1]["error"] == "it has no build"
    assert ask("ci report", *results)["ok"] is False
    assert ask("ci rebuild", "--changed", "--dry-run", schema=1)["images"]
    rebuilt = ask("ci rebuild", "--changed")
    assert [(image["name"], image["revision"]) for image in rebuilt["images"]] == [("two", 1)]
    assert ask("build") | {"repository": ""} == {
        "schema": 1,
        "ok": True,
        "repository": "",
        "catalogue": (repo.root / "image-repo/index.html").as_uri(),
        "images": [],
        "written": [],
        "findings": [],
    }


def test_what_is_told_of_a_repository_is_of_its_schema(repo, ask):
    ask("build", "one", "--base-url", "https://images.example.org")
    repo.disk("one.img", seed=3)
    repo.commit()
    changed = ask("build", "one")["images"][0]["changes"]
    assert changed["is_new"] is False
    assert len(ask("repo list")["images"]) == 1
    revisions = ask("repo show", "one")["revisions"]
    assert len(revisions) == 2
    assert "spec.txt" in revisions[0]["objects"]
    assert len(ask("repo log")["events"]) == 2
    assert ask("repo diff", "one")["old"]["revision"] == 1
    assert ask("repo refresh")["damaged"] == []
    assert ask("repo verify")["ok"]
    assert ask("repo provenance", "one")["steps"]
    assert ask("repo reproduce", "one", "--dry-run")["verdict"] is None
    assert ask("repo gc")["applied"] is False
    why = ("one", "--reason", "bad")
    preview = ask("repo yank", *why, "--dry-run", schema=1)
    assert preview["target"]["revision"] == 2
    assert ask("repo yank", *why)["withdrawn"] == [2]
    repo.disk("one.img", seed=4)
    repo.commit()
    ask("build", "one")
    assert ask("repo rollback", "one", "--dry-run", schema=1)["target"]["revision"] == 1
    assert ask("repo rollback", "one")["current"]["revision"] == 5


def test_a_failed_build_is_told_in_the_document_too(repo, ask):
    repo.spec("one", "simple:missing.img")
    repo.write("missing.img", "")
    repo.commit()
    images = {image["name"]: image for image in ask("build", code=1)["images"]}
    assert images["one"]["outcome"] == "failed"
    assert images["one"]["error"]
    assert images["one"]["log"].endswith("one.log")
    assert images["two"]["revision"] == 1
