"""What a plan needs of a repository's state."""

import hashlib

from lago_images.planning.holdings import holdings
from lago_images.repository.records.layout import CACHE, ImageId
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.release import Release
from lago_images.repository.records.state import PublishedCommit, State, outlined, survey
from lago_images.storage.directory.store import DirectoryStore
from tests.support import builders


def numbered(number: int, fingerprint: str = "f", dirty: bool = False) -> Manifest:
    return builders.manifest(
        "a", f"b{number}", fingerprint=fingerprint, dirty=dirty, created=number
    )


def release(revision: int, build: str | None, fingerprint: str = "", **more) -> Release:
    return builders.release(
        revision, build, "a", fingerprint=fingerprint, commit=f"c{revision}", **more
    )


def held(*releases: Release, staged=(), incomplete=(), lost=()):
    state = State(
        releases={ImageId("a", "x86_64"): releases} if releases else {},
        staged={one.key: one for one in staged},
        incomplete=frozenset(one.key for one in incomplete),
        lost=frozenset(lost),
        objects={},
        published=PublishedCommit(commit="c9", etag="e"),
    )
    assert holdings(state).commit == "c9"
    return holdings(state).images.get(ImageId("a", "x86_64"))


def test_current_is_the_newest_release_that_is_not_withdrawn():
    one, two = numbered(1, "f1"), numbered(2, "f2")
    found = held(release(1, "b1", "f1"), release(2, "b2", "f2"), staged=[one, two])
    assert (found.newest, found.current.revision, found.current.built.build) == (2, 2, "b2")
    assert found.taken_back == {}


def test_a_withdrawn_fingerprint_counts_as_taken_back_until_it_is_released_again():
    one, two, three = numbered(1, "f1"), numbered(2, "f2"), numbered(3, "f2")
    history = [
        release(1, "b1", "f1"),
        release(2, "b2", "f2"),
        release(3, None, withdraws=2, reason="broken"),
    ]
    found = held(*history, staged=[one, two])
    assert (found.newest, found.current.revision) == (3, 1)
    assert found.taken_back == {"f2": "revision 2 was withdrawn: broken"}
    again = held(*history, release(4, "b3", "f2"), staged=[one, two, three])
    assert (again.current.revision, again.taken_back) == (4, {})


def test_fingerprints_that_a_rollback_skips_count_as_taken_back():
    builds = [numbered(n, f"f{n}") for n in (1, 2, 3)]
    found = held(
        *(release(n, f"b{n}", f"f{n}") for n in (1, 2, 3)),
        release(4, "b1", "f1", reason="back to revision 1: slow"),
        staged=builds,
    )
    assert found.current.fingerprint == "f1"
    assert set(found.taken_back) == {"f2", "f3"}
    assert found.taken_back["f3"] == "revision 4 went back to revision 1: slow"


def test_a_withdrawn_rollback_takes_back_nothing():
    builds = [numbered(n, f"f{n}") for n in (1, 2)]
    found = held(
        *(release(n, f"b{n}", f"f{n}") for n in (1, 2)),
        release(3, "b1", "f1", reason="back"),
        release(4, None, withdraws=3, reason="it was right"),
        staged=builds,
    )
    assert found.current.fingerprint == "f2"
    assert "f2" not in found.taken_back


def test_a_rollback_between_builds_of_one_spec_takes_back_its_fingerprint():
    """What would be built today is what was passed over, not what was gone back to."""
    builds = [numbered(n) for n in (1, 2)]
    back = release(3, "b1", "f", reason="back to revision 1")
    found = held(release(1, "b1", "f"), release(2, "b2", "f"), back, staged=builds)
    assert (found.current.revision, set(found.taken_back)) == (3, {"f"})
    again = held(
        release(1, "b1", "f"),
        release(2, "b2", "f"),
        back,
        release(4, "b4", "f"),
        staged=[*builds, numbered(4)],
    )
    assert again.taken_back == {}


def test_an_older_withdrawal_does_not_take_back_a_later_release():
    history = [release(n, f"b{n}", "f") for n in (1, 2, 3)]
    leak = release(4, None, withdraws=1, reason="leak")
    assert held(*history, leak, staged=[numbered(3)]).taken_back == {}
    newest = release(5, None, withdraws=3, reason="bad")
    assert held(*history, leak, newest, staged=[numbered(2)]).taken_back.keys() == {"f"}


def test_only_complete_clean_unreleased_builds_can_be_promoted():
    builds = [numbered(1), numbered(2), numbered(3, dirty=True), numbered(4), numbered(5)]
    found = held(release(1, "b1", "f"), staged=builds, incomplete=[builds[3]])
    assert [one.build for one in found.waiting] == ["b2", "b5"]
    digest = hashlib.sha256(builds[1].to_json()).hexdigest()
    assert found.waiting[0].manifest_sha256 == digest
    assert held(staged=[numbered(1)]).current is None
    assert held() is None


def test_a_release_whose_public_copy_is_lost_has_no_build():
    one = release(1, "b1", "f")
    found = held(one, staged=[numbered(1)], lost=[one.public])
    assert (found.current.revision, found.current.built) == (1, None)


def test_a_rollback_counts_as_the_commit_that_it_skips():
    """Whatever the operator had checked out: an older commit must not replace it."""
    history = [release(1, "b1", "f1"), release(2, "b2", "f2")]
    assert held(*history, release(3, "b1", "f1", reason="back")).current.commit == "c2"
    again = release(4, "b2", "f2", reason="forth")
    assert held(*history, release(3, "b1", "f1", reason="back"), again).current.commit == "c2"


def a_repository_with_everything(tmp_path) -> DirectoryStore:
    """Several images, one for each way in which what is released or waits can be."""
    store = DirectoryStore(path=tmp_path)
    for name in ("plain", "withdrawn", "rolled-back", "retired", "lost", "cut", "damaged"):
        builds = [
            builders.manifest(name, f"b{n}", fingerprint=f"{name}{n}", created=n) for n in (1, 2)
        ]
        builders.publish_by_hand(store, *builds)
    two = {
        name: builders.manifest(name, "b2", fingerprint=f"{name}2", created=2)
        for name in ("rolled-back", "retired", "lost", "cut")
    }
    again = builders.manifest("rolled-back", "b1", fingerprint="rolled-back1", created=1)
    put = builders.put_release
    put(store, builders.release(3, None, "withdrawn", withdraws=2, reason="broken"))
    put(store, builders.release(3, again, reason="slow"))
    builders.put(store, builders.copy_of(two["retired"]).retirement, b"{}")
    store.delete([builders.copy_of(two["lost"]).packages])
    builders.overwrite(store, builders.copy_of(two["cut"]).disk, b"cut")
    builders.overwrite(store, "releases/damaged/x86_64/2.json", b"{}")
    for number, dirty in ((5, False), (6, False), (7, True), (8, False)):
        waits = builders.manifest("plain", f"b{number}", fingerprint="new", dirty=dirty)
        staging = builders.put_build(store, waits)
    store.delete([staging.hash])
    builders.put_build(store, builders.manifest("unreleased", "b1"))
    return store


def test_an_outline_of_a_repository_holds_what_a_survey_finds(tmp_path):
    store = a_repository_with_everything(tmp_path)
    found = holdings(survey(store))
    assert {name: held.newest for (name, _), held in found.images.items()} == {
        "plain": 2,
        "withdrawn": 3,
        "rolled-back": 3,
        "retired": 2,
        "lost": 2,
        "cut": 2,
        "damaged": 2,
        "unreleased": 0,
    }
    assert len(found.images[ImageId("plain", "x86_64")].waiting) == 2
    # With the cache that the survey left, with none, and with its own.
    assert holdings(outlined(store)) == found
    store.delete([CACHE])
    assert holdings(outlined(store)) == found
    assert holdings(outlined(store)) == found
    assert holdings(survey(store)) == found
