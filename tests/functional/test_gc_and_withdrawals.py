"""``repo gc``, ``yank`` and ``rollback`` as an operator calls them, in a directory and a bucket."""

import json
import os
import time
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from lago_images.cli.main import main
from lago_images.repository.records.state import survey
from lago_images.storage.base import Store
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.s3.store import S3Store
from tests.support.builders import copy_of, layer_on, manifest, publish_by_hand, put_build

DAY = 86_400
BUILDS = [manifest(build_id=f"b{n}", fingerprint=f"f{n}") for n in (1, 2, 3, 4)]
OLDEST = copy_of(BUILDS[0])


@dataclass
class Repository:
    store: Store
    environ: dict

    def call(self, *args, code=0, stdin=None):
        clean = {n: None for n in os.environ if n.startswith(("LAGO_IMAGES_", "GITHUB_"))}
        done = CliRunner(env={**clean, **self.environ}).invoke(main, ["repo", *args], input=stdin)
        assert done.exit_code == code, done.output
        return done

    def json(self, *args):
        return json.loads(self.call(*args, "--format", "json").stdout)

    @property
    def revisions(self):
        return {one["name"]: one["revision"] for one in self.json("list")["images"]}


@pytest.fixture(params=["directory", "ceph20"])
def repo(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environ = {
        "LAGO_IMAGES_BASE_URL": "http://images.test",
        "LAGO_IMAGES_KEEP_REVISIONS": "2",
        "LAGO_IMAGES_KEEP_DAYS": "0",
        "LAGO_IMAGES_GRACE_DAYS": "1",
    }
    if request.param == "directory":
        store: Store = DirectoryStore(path=tmp_path / "repo")
    else:
        server = request.getfixturevalue("ceph20")
        store = S3Store.open(server.new_bucket(), "p", environ=server.environ)
        environ |= server.environ
    publish_by_hand(store, *BUILDS)
    return Repository(store=store, environ={**environ, "LAGO_IMAGES_REPOSITORY": store.url})


def begin_an_upload(store):
    """As a builder that is killed leaves it."""
    key = manifest(build_id="cut").key.staging.disk
    if isinstance(store, S3Store):
        bucket = store.bucket
        bucket.small.create_multipart_upload(Bucket=bucket.name, Key=bucket.key(key))
    else:
        folder = store.path / ".lago-images" / "uploads" / "cut"
        path = folder / key
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
    assert [upload.key for upload in store.unfinished()] == [key]


def test_publishing_yank_rollback_and_gc_follow_each_other(repo, monkeypatch):
    put_build(repo.store, manifest(build_id="waiting"))
    repo.call("refresh")
    begin_an_upload(repo.store)
    assert repo.json("verify")["ok"]

    # Everything is young: nothing goes.
    planned = repo.json("gc")
    assert (planned["applied"], planned["retire"]["builds"], planned["abort"]) == (False, [], [])

    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 2 * DAY)
    before = {stat.key for stat in repo.store.list()}
    told = repo.call("gc")
    assert f"to retire: {OLDEST.folder}: 5 objects" in told.stdout
    assert "to delete: builds/debian-12/x86_64/b1/: 5 objects" in told.stdout
    assert "nothing was removed" in told.stderr
    planned = repo.json("gc")
    retired = {one["build"]["build_id"] for one in planned["retire"]["builds"]}
    assert retired == {"b1.0123abcd", "b2.0123abcd"}
    assert planned["retire"]["bytes"] == sum(
        stat.size
        for stat in repo.store.list("images/")
        if any(f"/{build}/" in stat.key for build in retired)
    )
    # What is staged goes once it is old, released or not.
    staged = {one["build"]["build_id"] for one in planned["delete"]["builds"]}
    assert staged == {"b1", "b2", "b3", "b4", "waiting"}
    assert len(planned["abort"]) == 1
    assert {stat.key for stat in repo.store.list()} == before

    done = repo.json("gc", "--apply")
    assert done["applied"] is True
    assert list(repo.store.unfinished()) == []
    assert repo.store.head(OLDEST.disk)
    assert list(repo.store.list("builds/")) == []
    assert repo.json("verify")["ok"]
    assert repo.revisions == {"debian-12": 4}

    # A rollback goes to what is kept, and not to what is about to be removed.
    assert "removed by repo gc" in repo.call("rollback", "debian-12", "--to", "1", code=2).stderr
    back = repo.json("rollback", "debian-12", "--reason", "b4 is bad")
    assert (back["about"], back["current"]["revision"]) == (3, 5)

    monkeypatch.setattr("time.time", lambda: now + 4 * DAY)
    deleted = repo.json("gc", "--apply")["delete"]["builds"]
    assert {one["build"]["build_id"] for one in deleted} == retired
    assert list(repo.store.list(OLDEST.folder)) == []
    assert repo.json("verify")["ok"]
    assert repo.revisions == {"debian-12": 5}

    yanked = repo.call("yank", "debian-12", "--reason", "b3 is bad too")
    assert yanked.stdout.splitlines() == [
        "debian-12 (x86_64): revision 5 withdrawn, and revision 3 of the same build",
        "debian-12 (x86_64): clients get revision 4",
    ]
    assert (
        "withdrawn already"
        in repo.call("yank", "debian-12", "--revision", "5", "--reason", "again").stdout
    )
    assert repo.revisions == {"debian-12": 4}
    assert repo.json("verify")["ok"]


def put_strangers(store):
    """As everybody can who has the builder's key; returns the keys."""
    keys = [
        "builds/a\x01b/x86_64/b9/manifest.json",
        "builds/debian-12/x86_64/b9/x\x7fy",
        "builds/a b/x86_64/b9/manifest.json",
        "images/-a/x86_64/b9/manifest.json",
    ]
    if isinstance(store, S3Store):
        keys += ["builds/../x86_64/b9/manifest.json", "builds/debian-12/../b9/manifest.json"]
        keys += [
            "builds/debian-12/x86_64/b9/../../../releases/x",
            "builds//x86_64/b9/manifest.json",
        ]
        for key in keys:
            bucket = store.bucket
            bucket.small.put_object(Bucket=bucket.name, Key=f"p/{key}", Body=b"{}")
    else:
        for key in keys:
            path = store.path / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    return keys


def test_names_outside_the_layout_stop_no_command(repo, monkeypatch):
    repo.call("refresh")
    strangers = put_strangers(repo.store)
    survey(repo.store)
    report = repo.json("verify")
    assert report["ok"]
    named = {
        each["where"] for each in report["findings"] if "nothing of lago-images" in each["what"]
    }
    assert named == {key if key.isprintable() else ascii(key) for key in strangers}
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 9 * DAY)
    repo.call("gc", "--apply")
    left = {stat.key for stat in repo.store.list()}
    assert {key for key in left if key.startswith("builds/")} == set(strangers[:3] + strangers[4:])
    assert not [key for key in left if ".." in key and key.startswith("releases/")]
    assert repo.revisions == {"debian-12": 4}


def test_a_mistyped_path_creates_no_repository(tmp_path):
    path = tmp_path / "image-rpeo"
    environ = {"LAGO_IMAGES_BASE_URL": "http://images.test", "LAGO_IMAGES_REPOSITORY": str(path)}
    done = Repository(store=DirectoryStore(path=path), environ=environ).call("gc", "--apply")
    assert f"there is no folder {path}: nothing is published there" in done.stderr
    assert not path.exists()


def test_other_applications_in_the_bucket_keep_their_uploads(ceph20, monkeypatch):
    store = S3Store.open(ceph20.new_bucket(), environ=ceph20.environ)
    publish_by_hand(store, *BUILDS)
    begin_an_upload(store)
    client, bucket = store.bucket.small, store.bucket.name
    client.create_multipart_upload(Bucket=bucket, Key="other-application/dump")
    repo = Repository(
        store=store,
        environ={
            **ceph20.environ,
            "LAGO_IMAGES_BASE_URL": "http://images.test",
            "LAGO_IMAGES_REPOSITORY": store.url,
        },
    )
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 8 * DAY)
    repo.call("gc", "--apply")
    assert [upload.key for upload in store.unfinished()] == ["other-application/dump"]


def test_unknown_names_and_revisions_exit_2(repo):
    assert "never published" in repo.call("yank", "debian", "--reason", "x", code=2).stderr
    repo.call("yank", "debian-12", code=2)
    repo.call("rollback", "debian-12", "--to", "0", code=2)
    said = repo.call("rollback", "debian-12", "--to", "9", code=2).stderr
    assert "no such release" in said
    assert "lago-images repo show debian-12 shows its revisions" in said


def test_a_lost_release_keeps_all_that_there_is(repo, monkeypatch):
    repo.call("refresh")
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 9 * DAY)
    lost = "releases/debian-12/x86_64/2.json"
    repo.store.delete([lost])
    before = {stat.key for stat in repo.store.list() if not stat.key.startswith("state/")}
    for args in ((), ("--apply",)):
        done = repo.call("gc", *args, code=1)
        assert f"{lost} is missing: nothing is cleared up until it is restored" in done.stderr
        assert done.stdout == ""
    told = json.loads(repo.call("gc", "--format", "json", code=1).stdout)
    assert told["missing"] == [{"name": "debian-12", "arch": "x86_64", "first": 2, "last": 2}]
    left = {stat.key for stat in repo.store.list() if not stat.key.startswith("state/")}
    assert {key for key in left if key.startswith(("images/", "builds/", "releases/"))} == {
        key for key in before if key.startswith(("images/", "builds/", "releases/"))
    }
    assert f"{lost} is missing; restore it from a copy" in repo.call("list").stderr


def test_a_withdrawal_needs_a_reason(repo):
    assert "say why" in repo.call("yank", "debian-12", "--reason", " ", code=2).stderr
    assert repo.revisions == {"debian-12": 4}


def test_layers_of_a_withdrawn_build_are_listed_and_withdrawn_with_layers(repo):
    layer = manifest("layer", "l1", fingerprint="l1", base=layer_on(BUILDS[3]))
    publish_by_hand(repo.store, layer, bases=BUILDS)
    shown = repo.call("yank", "debian-12", "--reason", "leak", "--dry-run")
    assert "withdraw revision 4 of debian-12" in shown.stdout
    assert "layer (x86_64) 1 contains it, and stays: --with-layers" in shown.stdout
    both = ("--dry-run", "--with-layers")
    shown = repo.call("yank", "debian-12", "--reason", "leak", *both)
    assert shown.stdout.splitlines() == [
        "to do: withdraw revision 4 of debian-12",
        "debian-12 (x86_64): clients would get revision 3",
        "to do: withdraw revision 1 of layer: layer (x86_64) 1 contains it",
    ]
    shown = repo.call("rollback", "debian-12", *both)
    assert "layer (x86_64) 1 contains it, and stays: it has no older build" in shown.stdout
    assert "debian-12 (x86_64): clients would get revision 5" in shown.stdout
    plain = repo.json("rollback", "debian-12", "--dry-run")
    assert (plain["withdrawn"], plain["current"]) == ([], 5)
    assert [one["name"] for one in plain["layers"]] == ["layer"]
    assert repo.revisions == {"debian-12": 4, "layer": 1}
    done = repo.call("yank", "debian-12", "--reason", "leak")
    assert "layer (x86_64) 1 is offered, and contains what was taken back" in done.stderr
    yank = (
        "lago-images repo yank layer --arch x86_64 --revision 1 --reason 'its base was withdrawn'"
    )
    assert f"withdraw it too: {yank}" in done.stderr
    assert not repo.call("verify", code=1).stdout.endswith(" 0 problems")
    done = repo.call("yank", "debian-12", "--revision", "4", "--reason", "leak", "--with-layers")
    assert "layer (x86_64): revision 1 withdrawn" in done.stdout
    assert repo.revisions == {"debian-12": 3}
    assert repo.json("verify")["ok"]


def test_a_dry_run_tells_all_that_the_real_run_does(repo):
    repo.call("rollback", "debian-12", "--to", "2", "--yes")
    dry = ("yank", "debian-12", "--reason", "leak", "--dry-run")
    assert repo.call(*dry).stdout.splitlines() == [
        "to do: withdraw revision 5 of debian-12, and revision 2 of the same build",
        "debian-12 (x86_64): clients would get revision 4",
    ]
    told = repo.json(*dry)
    done = repo.json(*dry[:-1])
    assert (told["withdrawn"], told["current"]) == ([5, 2], 4)
    assert (done["withdrawn"], done["current"]["revision"]) == ([5, 2], 4)
    for revision in ("1", "3"):
        repo.call("yank", "debian-12", "--revision", revision, "--reason", "leak")
    assert "debian-12 (x86_64): would be offered no more" in repo.call(*dry).stdout
    assert repo.json(*dry)["current"] is None


@pytest.mark.parametrize(("answer", "code", "revision"), [("n\n", 1, 4), ("y\n", 0, 3)])
def test_a_withdrawal_asks_for_confirmation_on_a_terminal(
    repo, monkeypatch, answer, code, revision
):
    monkeypatch.setattr("lago_images.cli.withdrawals.is_terminal", lambda: True)
    done = repo.call("yank", "debian-12", "--reason", "leak", code=code, stdin=answer)
    assert "to do: withdraw revision 4" in done.stdout
    assert repo.revisions == {"debian-12": revision}
    repo.call("rollback", "debian-12", "--yes")


def test_a_withdrawal_with_json_asks_on_stderr(repo, monkeypatch):
    monkeypatch.setattr("lago_images.cli.withdrawals.is_terminal", lambda: True)
    json_of = ("yank", "debian-12", "--reason", "leak", "--format", "json")
    assert repo.call(*json_of, code=1, stdin="n\n").stdout == ""
    assert json.loads(repo.call(*json_of, stdin="y\n").stdout)["about"] == 4
