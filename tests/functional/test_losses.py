"""Release records that are lost for good, given up by an operator, and what follows of that."""

import json
import os
import time

import pytest
from click.testing import CliRunner

from lago_images.cli.main import main
from lago_images.repository.publishing import retention
from lago_images.repository.publishing.retention import Retention
from lago_images.repository.records import layout
from lago_images.repository.records.state import outlined, read, survey
from lago_images.settings import Settings
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import SITE, manifest, publish_by_hand, publisher, put_copy
from tests.support.schemas import validator
from tests.support.specs import SpecsRepo

BUILDS = [manifest(build_id=f"b{n}", fingerprint=f"f{n}") for n in (1, 2, 3, 4)]
NAME = "debian-12"
FOLDER = f"releases/{NAME}/x86_64/"
WHY = ("--reason", "no copy is  left")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Four revisions of one image, rendered, and another image."""
    monkeypatch.chdir(tmp_path)
    store = DirectoryStore(path=tmp_path / "repo")
    publish_by_hand(store, *BUILDS, manifest("other"))
    publisher(store).refresh()
    return store


def call(store, *args, code=0, stdin=None):
    clean: dict[str, str | None] = {
        n: None for n in os.environ if n.startswith(("LAGO_IMAGES_", "GITHUB_"))
    }
    # The settings that the repository was rendered with.
    clean |= {
        "LAGO_IMAGES_REPOSITORY": store.url,
        "LAGO_IMAGES_NAME": SITE.name,
        "LAGO_IMAGES_BASE_URL": SITE.base_url,
    }
    done = CliRunner(env=clean).invoke(main, ["repo", *args], input=stdin)
    assert done.exit_code == code, done.output
    return done


def report(store, code):
    return json.loads(call(store, "verify", "--format", "json", code=code).stdout)


def of_records(found):
    return {
        each["where"]: (each["severity"], each["what"])
        for each in found["findings"]
        if each["where"].startswith(layout.RELEASES)
    }


def damage(store, revision):
    key = f"{FOLDER}{revision}.json"
    store.put(key, b"{", expected=store.get(key).etag)
    return key


def test_a_missing_record_is_given_up_and_told_as_a_note(store):
    store.delete([f"{FOLDER}2.json"])
    call(store, "refresh")
    assert of_records(report(store, 1))[f"{FOLDER}2.json"][0] == "problem"
    before = {stat.key: stat for stat in store.list()}
    offered = read(store).live(NAME, "x86_64")
    done = call(store, "accept-loss", NAME, *WHY, "--format", "json")
    document = json.loads(done.stdout)
    assert not list(validator("loss-acceptance").iter_errors(document))
    assert document["lost"] == [f"{FOLDER}2.json is missing"]
    key = f"{FOLDER}lost/2-2.json"
    assert document["accepted"] == [key]
    record = json.loads(store.get(key).data)
    assert not list(validator("accepted-loss").iter_errors(record))
    assert (record["reason"], record["sha256"]) == ("no copy is left", None)
    assert record["by"]["actor"]
    # Nothing is deleted or written but the record; what is offered is what was.
    after = {stat.key: stat for stat in store.list()}
    assert {name for name in after if after[name] != before.get(name)} - {layout.CACHE} == {key}
    assert not before.keys() - after.keys()
    assert read(store).live(NAME, "x86_64") == offered
    assert [release.revision for release in offered] == [3, 4]
    severity, what = of_records(report(store, 0))[f"{FOLDER}2.json"]
    assert severity == "note"
    assert what.startswith("the history has a gap: it is missing; accepted as lost by ")
    assert what.endswith(": no copy is left")
    assert call(store, "list").stderr == ""


def test_gc_goes_on_and_leaves_what_the_lost_record_may_have_named(store):
    """Of another image, what no release names goes."""
    put_copy(store, manifest("other", build_id="orphan"))
    store.delete([f"{FOLDER}2.json"])

    def swept():
        now = time.time() + 1_000 * 86_400
        return retention.plan(survey(store), (), Retention.of(Settings()), now)

    assert (swept().missing[0].first, swept().delete) == (2, ())
    call(store, "accept-loss", NAME, *WHY)
    assert swept().missing == ()
    steps = [step.build for step in swept().retire + swept().delete]
    # What was released is cleared of builds/ alone.
    going = {b.key.build_id.partition(".")[0] for b in steps if b.root == layout.IMAGES}
    assert "orphan" in going
    assert going & {"b1", "b2", "b3", "b4"} == set()


def test_a_record_that_cannot_be_read_is_given_up_as_it_is_and_not_otherwise(store):
    key = damage(store, 3)
    call(store, "refresh", code=1)
    assert of_records(report(store, 1))[key][0] == "problem"
    call(store, "accept-loss", NAME, "--revision", "3", *WHY)
    assert of_records(report(store, 0))[key][0] == "note"
    assert call(store, "list").stderr == ""
    call(store, "refresh")
    # It is offered no more than before: what is lost may have withdrawn what is older.
    assert [release.revision for release in read(store).live(NAME, "x86_64")] == [4]
    # Nobody has looked at these bytes.
    store.put(key, b"[", expected=store.get(key).etag)
    assert of_records(report(store, 1))[key][0] == "problem"
    assert key in call(store, "list", code=1).stderr
    assert outlined(store).damaged_unaccepted.keys() == read(store).damaged.keys()


def test_a_new_loss_is_none_that_was_accepted(store):
    store.delete([f"{FOLDER}1.json"])
    call(store, "refresh")
    call(store, "accept-loss", NAME, *WHY)
    report(store, 0)
    store.delete([f"{FOLDER}2.json"])
    call(store, "refresh")
    assert of_records(report(store, 1))[f"{FOLDER}1.json"][0] == "problem"
    assert call(store, "gc", code=1).output.count("nothing is cleared up until") == 1
    call(store, "accept-loss", NAME, *WHY)
    report(store, 0)


def test_a_restored_record_is_as_it_was(store):
    data = store.get(f"{FOLDER}2.json").data
    store.delete([f"{FOLDER}2.json"])
    call(store, "accept-loss", NAME, *WHY)
    store.put(f"{FOLDER}2.json", data, expected=None)
    call(store, "refresh")
    assert f"{FOLDER}2.json" not in of_records(report(store, 0))
    assert [release.revision for release in read(store).live(NAME, "x86_64")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ((NAME, "--revision", "3"), "the record of revision 3 of debian-12 (x86_64) is not lost"),
        (("other",), "other (x86_64) has no lost record"),
        (("debain-12",), "did you mean 'debian-12'?"),
        ((NAME, "--reason", " "), "say why"),
    ],
)
def test_what_is_not_lost_cannot_be_given_up(store, args, why):
    store.delete([f"{FOLDER}2.json"])
    done = call(store, "accept-loss", *(WHY if "--reason" not in args else ()), *args, code=2)
    assert why in done.output
    assert not [stat for stat in store.list(FOLDER) if "/lost/" in stat.key]


def test_a_dry_run_says_what_is_lost_and_writes_nothing(store):
    store.delete([f"{FOLDER}2.json", f"{FOLDER}3.json"])
    done = call(store, "accept-loss", NAME, *WHY, "--dry-run")
    assert done.stdout == f"lost: {FOLDER}2.json is missing, as are all up to revision 3\n"
    assert not [stat for stat in store.list(FOLDER) if "/lost/" in stat.key]
    # Nothing is left to accept where somebody did.
    call(store, "accept-loss", NAME, *WHY)
    assert (
        "has no lost record that is still to be accepted"
        in call(store, "accept-loss", NAME, *WHY, code=2).output
    )


def test_an_acceptance_that_cannot_be_read_accepts_nothing(store):
    store.delete([f"{FOLDER}2.json"])
    store.put(f"{FOLDER}lost/2-2.json", b"{}", expected=None)
    call(store, "refresh")
    found = of_records(report(store, 1))
    assert found[f"{FOLDER}2.json"][0] == found[f"{FOLDER}lost/2-2.json"][0] == "problem"


@pytest.mark.parametrize(("answer", "made"), [("n\n", []), ("y\n", [f"{FOLDER}lost/2-2.json"])])
def test_who_calls_it_on_a_terminal_is_asked(store, monkeypatch, answer, made):
    monkeypatch.setattr("lago_images.cli.losses.is_terminal", lambda: True)
    store.delete([f"{FOLDER}2.json"])
    call(store, "accept-loss", NAME, *WHY, stdin=answer, code=0 if made else 1)
    assert [stat.key for stat in store.list(FOLDER) if "/lost/" in stat.key] == made


def test_after_the_newest_record_was_given_up_a_rebuild_publishes_again(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("a.raw")
    for line in ("", "#notes=once\n", "#notes=twice\n"):
        repo.spec("one", "simple:a.raw", line)
        repo.commit()
        assert repo.run("ci", "rebuild", "one").code == 0
    folder = repo.root / "image-repo/releases/one/x86_64"
    newest = folder / "3.json"
    newest.write_text("{")
    refused = repo.run("ci", "rebuild", "one")
    assert refused.code == 1, refused.out
    assert "releases/one/x86_64/3.json is not a release" in refused.err
    assert repo.run("repo", "accept-loss", "one", *WHY).code == 0
    rebuilt = repo.run("ci", "rebuild", "one")
    assert rebuilt.code == 0, rebuilt.err
    # Its number is taken: what it was is not known.
    assert "one: released revision 4" in rebuilt.out
    assert newest.read_text() == "{"
    verified = repo.run("repo", "verify")
    assert verified.code == 0, verified.err
    assert repo.run("repo", "list").out.splitlines()[1].split()[:3] == ["one", "x86_64", "4"]
    assert repo.run("ci", "plan", "--exit-code").code == 0
    yanked = repo.run("repo", "yank", "one", "--reason", "it is bad")
    assert yanked.code == 0, yanked.err
    assert repo.run("repo", "list").out.splitlines()[1:] == []
    # Other bytes are nobody's to give up but who looks at them.
    newest.write_text("[")
    assert repo.run("ci", "rebuild", "one").code == 1
