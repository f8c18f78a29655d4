"""Names and patterns of images on the command line: what they choose, and help with wrong ones."""

import shlex

import pytest

from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import manifest, publish_by_hand
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git", "qemu-img")
MANY = [f"web-{number:02}" for number in range(1, 41)]
FAMILY = "40 names begin with 'web-': web-01, web-02, … web-40"


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("disk.img")
    for name in ("web-01", "web-02", "db"):
        repo.spec(name, "simple:disk.img")
    repo.commit()
    return repo


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Forty specs of similar names, all of them published."""
    repo = SpecsRepo.create(tmp_path_factory.mktemp("many") / "specs")
    repo.disk("disk.img")
    for name in MANY:
        repo.spec(name, "simple:disk.img")
    repo.commit()
    store = DirectoryStore(path=repo.root / "image-repo")
    publish_by_hand(store, *(manifest(name) for name in MANY))
    return repo


def built(ran):
    assert ran.code == 0, ran.err
    return [line.partition(":")[0] for line in ran.out.splitlines() if ": built in " in line]


def planned(ran):
    assert ran.code == 0, ran.err
    return [image["name"] for image in ran.json()["images"] if image["action"] == "build"]


@pytest.mark.parametrize("command", [["build"], ["ci", "rebuild"], ["ci", "build"]])
def test_a_pattern_builds_what_it_matches(repo, command):
    assert built(repo.run(*command, "web-*")) == ["web-01", "web-02"]


def test_a_pattern_plans_what_it_matches_and_chooses_of_a_saved_plan(repo):
    saved = repo.root.parent / "plan.json"
    ran = repo.run("ci", "plan", "web-*", "--output", str(saved), "--format", "json")
    assert {"web-01", "web-02"} <= set(planned(ran))
    assert built(repo.run("ci", "build", "--plan", str(saved), "*-02")) == ["web-02"]


def test_lint_takes_names_and_patterns_of_specs(repo):
    for name in ("web-02", "db"):
        repo.spec(name, "simple:disk.img", "instal x")
    ran = repo.run("lint", "web-*", "--format", "json")
    assert ran.code == 2
    assert {problem["path"] for problem in ran.json()["problems"]} == {"image-specs/web-02"}
    assert repo.run("lint", "web-01").code == 0
    # A file of that name here is meant first.
    repo.write("web-01", "no spec\n")
    assert repo.run("lint", "web-01").code == 2


@pytest.mark.parametrize(
    "command", ["build", "ci plan", "ci rebuild", "ci build", "lint", "ci rebuild --dry-run"]
)
@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_a_pattern_that_matches_nothing_is_wrong_usage(repo, command, quiet):
    ran = repo.run(*command.split(), "wbe-*", *quiet)
    assert (ran.code, ran.out) == (2, "")
    assert "no spec matches 'wbe-*'" in ran.err
    assert not (repo.root / "image-repo").exists()


def test_a_saved_plan_without_what_is_named_is_told_of(repo):
    saved = repo.root.parent / "plan.json"
    assert repo.run("ci", "plan", "--output", str(saved)).code == 0
    ran = repo.run("ci", "build", "--plan", str(saved), "web-1")
    assert (ran.code, ran.out) == (2, "")
    assert "there is no spec 'web-1' in the plan" in ran.err
    assert "did you mean 'web-01'?" in ran.err


def test_try_makes_one_disk_and_takes_no_pattern(repo):
    ran = repo.run("try", "web-*")
    assert (ran.code, ran.out) == (2, "")
    assert "web-* is a pattern" in ran.err
    assert "lago-images build 'web-*'" in ran.err


@pytest.mark.parametrize(
    "command",
    [
        "build NAME",
        "ci plan NAME",
        "ci rebuild NAME",
        "ci build NAME",
        "try NAME",
        "lint NAME",
        "run NAME",
        "repo list NAME",
        "repo list web-01 NAME --format json",
        "repo show NAME",
        "repo log NAME",
        "repo diff NAME",
        "repo reproduce NAME",
        "repo provenance NAME",
        "repo yank NAME --reason x",
        "repo yank NAME --reason x --arch x86_64",
        "repo rollback NAME",
    ],
)
def test_every_command_helps_who_gives_an_unknown_name(many, command):
    """One of many that are as near is a guess: what they have in common is none."""
    for name, hint in (("web-41", FAMILY), ("web-7", "did you mean 'web-07'?")):
        ran = many.run(*shlex.split(command.replace("NAME", name)))
        assert (ran.code, ran.out) == (2, "")
        assert name in ran.err
        assert hint in ran.err


def test_a_list_of_nothing_tells_of_names_and_patterns_that_match_nothing(many):
    ran = many.run("repo", "list", "wbe-*", "web-0*")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 10
    assert "no image that was ever published matches wbe-*: " in ran.err
    assert many.run("repo", "list", "web-0*").err == ""
    ran = many.run("repo", "list", "web-41", "nothing", "web-0*")
    assert (ran.code, ran.out) == (2, "")
    assert "no image web-41 was ever published; no image nothing was ever published" in ran.err
    assert FAMILY in ran.err
    assert many.run("repo", "list", "--arch", "riscv64").code == 0
    assert many.run("repo", "list", "web-01", "--state", "withdrawn").code == 0


def test_a_layer_on_an_unknown_spec_is_told_what_there_is(many):
    many.spec("zz-layer", "layer:web-41")
    try:
        ran = many.run("lint")
    finally:
        (many.root / "image-specs/zz-layer").unlink()
    assert f"image-specs/zz-layer:2: there is no spec 'web-41'; {FAMILY}\n" in ran.out


@pytest.mark.parametrize("command", ["run db", "repo show db", "repo log db", "repo reproduce db"])
def test_a_name_whose_records_cannot_be_read_is_no_wrong_name(repo, command):
    store = DirectoryStore(path=repo.root / "image-repo")
    publish_by_hand(store, manifest("db"), manifest("web-01"))
    for record in (store.path / "releases/db").rglob("*.json"):
        record.chmod(0o644)
        record.write_text("{")
    for cache in (store.path / "state").glob("*"):
        cache.unlink()
    ran = repo.run(*command.split())
    assert (ran.code, ran.out) == (1, ""), ran.err
    assert "releases/db/x86_64/1.json" in ran.err
    listed = repo.run("repo", "list", "db")
    assert listed.code == 1
    assert "was ever published" not in listed.err
