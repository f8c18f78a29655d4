"""What a publication checks at its end, and what a damaged build does to the others."""

import json

import pytest

from lago_images.host.retry import RetryPolicy
from lago_images.repository.publishing import withdrawals
from lago_images.repository.records.release import Released
from lago_images.repository.verifying import after_publish
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import manifest, publish_by_hand, release
from tests.support.builders import publisher as open_publisher
from tests.support.specs import SpecsRepo
from tests.tools import need

NAME = "debian-12"


@pytest.fixture
def publisher(tmp_path):
    store = DirectoryStore(path=tmp_path / "repo")
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2", fingerprint="f2"))
    made = open_publisher(store)
    made.refresh()
    return made


NEWEST = release(2, "b2", fingerprint="f2", published=1_700_000_001)


def quick(publisher, *releases):
    found = after_publish.quick(
        publisher, releases, retry=RetryPolicy(attempts=4, sleep=lambda _seconds: None)
    )
    return {one.where: one.what for one in found}


def test_a_published_release_is_offered(publisher):
    assert quick(publisher, NEWEST) == {}
    # Somebody else was faster: clients are offered what is newer.
    assert quick(publisher, release(1, "b1")) == {}


def test_a_release_that_is_not_offered_is_reported(publisher):
    publish_by_hand(publisher.store, manifest("other"))
    assert "not in it" in quick(publisher, release(1, "b1", "other"))["index"]
    publisher.store.delete([NEWEST.public.disk])
    assert quick(publisher, NEWEST) == {NEWEST.public.disk: "it is offered, and missing"}
    publisher.store.delete(["repo.metadata"])
    assert "repo.metadata" in quick(publisher)


def test_a_release_withdrawn_since_need_not_be_offered(publisher):
    withdrawals.yank(publisher, NAME, reason="x", released=Released(commit="c"))
    assert quick(publisher, NEWEST) == {}


@pytest.mark.parametrize(
    ("ending", "text", "wrong"),
    [
        ("hash", b"0" * 40 + b"\n", "is not the disk's"),
        ("metadata", b"[" * 200_000, "is not what the spec makes"),
        ("metadata", b" " * 5_000_000, "more than the 4194304 that are read"),
    ],
    ids=["other", "deep", "large"],
)
def test_a_damaged_build_does_not_prevent_the_others_from_being_published(
    tmp_path, ending, text, wrong
):
    need("git", "qemu-img")
    repo = SpecsRepo.create(tmp_path / "specs")
    for number, name in enumerate(("one", "two")):
        repo.disk(f"image-specs/files/{name}.img", seed=number, size=1 << 16)
        repo.spec(name, f"simple:image-specs/files/{name}.img")
    repo.commit()
    assert repo.run("ci", "build", "one", "two").code == 0
    [path] = (repo.root / "image-repo/builds/one").rglob(f"*.{ending}")
    path.write_bytes(text)
    ran = repo.run("ci", "publish")
    assert ran.code == 1
    assert "one: not published: " in ran.err
    assert wrong in ran.err
    listed = json.loads(repo.run("repo", "list", "--format", "json").out)["images"]
    assert [one["name"] for one in listed] == ["two"]
    assert not (repo.root / "image-repo/state/published.json").exists()


def rolled_back(tmp_path):
    """An image whose newest revision was rolled back; and the file of what clients get."""
    need("git", "qemu-img")
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.write(".gitignore", "/image-repo/\n")
    repo.disk("one.img")
    for note in ("good", "bad"):
        repo.spec("one", "simple:one.img", f"#notes={note}")
        repo.commit()
        assert repo.run("build").code == 0
    assert repo.run("repo", "rollback", "one", "--reason", "bad").code == 0
    release = json.loads((repo.root / "image-repo/releases/one/x86_64/3.json").read_bytes())
    return repo, repo.root / "image-repo/images/one/x86_64" / release["image"]["folder"]


@pytest.mark.parametrize("name", ["one.qcow2.xz", "manifest.json"])
def test_what_clients_get_and_is_lost_fails_every_run(tmp_path, name):
    repo, folder = rolled_back(tmp_path)
    (folder / name).rename(tmp_path / name)
    for args in (("ci", "publish"), ("ci", "rebuild", "--changed"), ("build",)):
        ran = repo.run(*args)
        assert ran.code == 1, ran.err
        assert (
            "an object of releases/one/x86_64/3.json, which clients are offered, is lost" in ran.err
        )
        assert "lago-images repo yank one --arch x86_64 --revision 3 --reason 'lost'" in ran.err
    (tmp_path / name).rename(folder / name)
    assert repo.run("ci", "publish").code == 0


def test_a_plan_names_the_newest_of_several_withdrawn_revisions(tmp_path):
    repo, _ = rolled_back(tmp_path)
    assert repo.run("ci", "rebuild", "one").code == 0
    for reason in ("first", "second"):
        assert repo.run("repo", "yank", "one", "--reason", reason).code == 0
    # Of the build of revision 2 nothing was withdrawn by hand before.
    assert repo.run("repo", "yank", "one", "--revision", "2", "--reason", "third").code == 0
    [planned] = repo.run("ci", "plan", "--format", "json").json()["images"]
    assert planned["note"].startswith("revision 4 was withdrawn: first")
