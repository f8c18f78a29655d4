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
