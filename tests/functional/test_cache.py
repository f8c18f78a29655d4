"""``cache list`` and ``clear``, over what a build has left."""

import pytest

from lago_images.building.downloads import locked
from tests.support.schemas import validator
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git", "qemu-img")


@pytest.fixture
def repo(tmp_path):
    """A layer that was built after its base: the base's disk came from the repository."""
    repo = SpecsRepo.with_one(tmp_path / "specs")
    assert repo.run("build").code == 0
    repo.spec("layer", "layer:one")
    repo.commit()
    assert repo.run("build").code == 0
    return repo


def document(repo, schema, *args):
    ran = repo.run("cache", *args, "--format", "json")
    assert ran.code == 0, ran.err
    assert not list(validator(schema).iter_errors(ran.json()))
    return ran.json()


def test_what_is_kept_is_listed_and_cleared_and_builds_go_on(repo):
    content = document(repo, "cache", "list")
    [entry, *logs] = content["entries"]
    assert [entry["kind"], *(each["kind"] for each in logs)] == ["layers", "logs", "logs"]
    assert sorted(each["name"].rpartition("/")[2] for each in logs) == ["layer.log", "one.log"]
    assert entry["name"].startswith("sha256-")
    sizes = {each["kind"]: each["size"] for each in content["kinds"]}
    others = dict.fromkeys(("downloads", "guest-packages", "packages", "trees"), 0)
    assert sizes == {
        **others,
        "layers": entry["size"],
        "logs": sum(each["size"] for each in logs),
    }
    assert [each["size"] > 0 for each in logs] == [True, True]
    text = repo.run("cache", "list", "layers").out.splitlines()
    assert text[0].split()[:3] == ["kind", "files", "size"]
    assert [line.split()[:2] for line in text[1:]] == [["layers", "1"]]

    assert document(repo, "cache-clearing", "clear", "trees")["removed"] == []
    assert document(repo, "cache-clearing", "clear", "layers")["removed"] == [entry]
    assert document(repo, "cache-clearing", "clear")["removed"] == logs
    assert document(repo, "cache", "list")["entries"] == []
    assert repo.run("ci", "rebuild", "layer").code == 0
    assert document(repo, "cache", "list")["entries"][0]["name"] == entry["name"]


def test_what_another_run_has_locked_is_left_and_named(repo):
    [entry] = document(repo, "cache", "list", "layers")["entries"]
    kept = repo.root.parent / "cache/lago-images/layers" / entry["name"]
    with locked(kept):
        ran = repo.run("cache", "clear")
    assert ran.code == 0
    assert f"layers/{entry['name']} is in use by another run, and was left" in ran.err
    assert kept.exists()
    assert "removed 1 file, " in repo.run("cache", "clear").out, "the logs were cleared before"
    assert not kept.exists()


def test_an_unknown_kind_is_a_usage_error(repo):
    ran = repo.run("cache", "clear", "everything")
    assert ran.code == 2
    assert "'downloads', 'guest-packages', 'layers', 'logs', 'packages', 'trees'" in ran.err
