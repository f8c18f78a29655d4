"""What a plan needs of a repository's state."""

from lago_images.planning.holdings import holdings
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.manifest import BaseRecord, Disk, Manifest
from lago_images.repository.records.release import Release
from lago_images.repository.records.state import PublishedCommit, State

DISK = Disk(
    format="qcow2", virtual_size=1, size=1, compressed_size=1, sha1="", sha256="", sha512=""
)


def manifest(number: int, fingerprint: str = "f", dirty: bool = False) -> Manifest:
    return Manifest(
        name="a",
        arch="x86_64",
        build_id=f"b{number}",
        fingerprint=fingerprint,
        base=BaseRecord(ref="bootstrap:debian-12", digest="sha256:0"),
        disk=DISK,
        commit="c",
        dirty=dirty,
        created=number,
        seconds=1,
    )


def release(revision: int, build: str | None, fingerprint: str = "", **more) -> Release:
    return Release(
        name="a",
        arch="x86_64",
        revision=revision,
        build=build,
        fingerprint=fingerprint,
        commit=f"c{revision}",
        published=1,
        nonce="n",
        **more,
    )


def held(*releases: Release, manifests=(), incomplete=()):
    state = State(
        releases={ImageId("a", "x86_64"): releases} if releases else {},
        manifests={one.key: one for one in manifests},
        incomplete=frozenset(one.key for one in incomplete),
        unreadable={},
        objects={},
        published=PublishedCommit(commit="c9", etag="e"),
    )
    assert holdings(state).commit == "c9"
    return holdings(state).images.get(ImageId("a", "x86_64"))


def test_current_is_the_newest_that_stands():
    one, two = manifest(1, "f1"), manifest(2, "f2")
    found = held(release(1, "b1", "f1"), release(2, "b2", "f2"), manifests=[one, two])
    assert (found.newest, found.current.revision, found.current.built.created) == (2, 2, 2)
    assert found.taken_back == {}


def test_a_withdrawn_fingerprint_is_held_until_it_is_released_again():
    one, two, three = manifest(1, "f1"), manifest(2, "f2"), manifest(3, "f2")
    history = [
        release(1, "b1", "f1"),
        release(2, "b2", "f2"),
        release(3, None, withdraws=2, reason="broken"),
    ]
    found = held(*history, manifests=[one, two])
    assert (found.newest, found.current.revision) == (3, 1)
    assert found.taken_back == {"f2": "revision 2 was withdrawn: broken"}
    again = held(*history, release(4, "b3", "f2"), manifests=[one, two, three])
    assert (again.current.revision, again.taken_back) == (4, {})


def test_what_a_rollback_passes_over_is_held():
    builds = [manifest(n, f"f{n}") for n in (1, 2, 3)]
    found = held(
        *(release(n, f"b{n}", f"f{n}") for n in (1, 2, 3)),
        release(4, "b1", "f1", reason="back"),
        manifests=builds,
    )
    assert found.current.fingerprint == "f1"
    assert set(found.taken_back) == {"f2", "f3"}
    assert found.taken_back["f3"] == "revision 4 rolled it back: back"


def test_a_rollback_that_was_withdrawn_itself_holds_nothing():
    builds = [manifest(n, f"f{n}") for n in (1, 2)]
    found = held(
        *(release(n, f"b{n}", f"f{n}") for n in (1, 2)),
        release(3, "b1", "f1", reason="back"),
        release(4, None, withdraws=3, reason="it was right"),
        manifests=builds,
    )
    assert found.current.fingerprint == "f2"
    assert "f2" not in found.taken_back


def test_a_rollback_among_builds_of_one_spec_holds_the_spec():
    """What would be built today is what was passed over, not what was gone back to."""
    builds = [manifest(n) for n in (1, 2)]
    back = release(3, "b1", "f", reason="back to revision 1")
    found = held(release(1, "b1", "f"), release(2, "b2", "f"), back, manifests=builds)
    assert (found.current.revision, set(found.taken_back)) == (3, {"f"})
    again = held(
        release(1, "b1", "f"),
        release(2, "b2", "f"),
        back,
        release(4, "b4", "f"),
        manifests=[*builds, manifest(4)],
    )
    assert again.taken_back == {}


def test_an_older_withdrawal_does_not_hold_what_was_released_since():
    history = [release(n, f"b{n}", "f") for n in (1, 2, 3)]
    leak = release(4, None, withdraws=1, reason="leak")
    assert held(*history, leak, manifests=[manifest(3)]).taken_back == {}
    newest = release(5, None, withdraws=3, reason="bad")
    assert held(*history, leak, newest, manifests=[manifest(2)]).taken_back.keys() == {"f"}


def test_only_complete_clean_unreleased_builds_wait():
    builds = [manifest(1), manifest(2), manifest(3, dirty=True), manifest(4), manifest(5)]
    found = held(release(1, "b1", "f"), manifests=builds, incomplete=[builds[3]])
    assert [one.build for one in found.waiting] == ["b2", "b5"]
    assert held(manifests=[manifest(1)]).current is None
    assert held() is None


def test_a_release_of_an_incomplete_build_has_no_build():
    lost = manifest(1)
    found = held(release(1, "b1", "f"), manifests=[lost], incomplete=[lost])
    assert (found.current.revision, found.current.built) == (1, None)
