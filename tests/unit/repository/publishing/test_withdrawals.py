"""Withdrawing and rolling back, on a directory, with what may come between."""

import pytest

from lago_images.errors import RepositoryError, UsageError
from lago_images.repository.publishing import collect, withdrawals
from lago_images.repository.publishing.releasing import Verdict, release
from lago_images.repository.publishing.retention import Retention
from lago_images.repository.records.state import read
from lago_images.repository.rendering.index import parse
from lago_images.storage.directory.store import DirectoryStore
from tests.support.handmade import manifest, publish_by_hand, put_build, put_release
from tests.support.handmade import publisher as open_publisher
from tests.support.handmade import release as record

NAME = "debian-12"
START = 1_700_000_000


@pytest.fixture
def store(tmp_path):
    store = DirectoryStore(path=tmp_path / "repo")
    publish_by_hand(store, *(built(n) for n in (1, 2, 3)))
    return store


def built(number, name=NAME):
    return manifest(name, build_id=f"b{number}", fingerprint=f"f{number}")


def publisher(store, now=START + 60):
    return open_publisher(store, now=lambda: now)


def offered(store):
    entries, problems = parse(store.get("index").data)
    assert problems == []
    return {entry.name: (entry.revision, entry.file.split("/")[3]) for entry in entries}


def publish(store, number, *, known, commit="c1"):
    if number not in (1, 2, 3):
        put_build(store, built(number))
    return release(
        store,
        built(number),
        commit=commit,
        known_revision=known,
        is_ancestor=lambda _old, _new: False,
        now=lambda: START + 100,
    )


def test_a_withdrawal_offers_what_was_before(store):
    changed = withdrawals.yank(publisher(store), NAME, reason="broken")
    assert (changed.about, changed.release.revision, changed.current.revision) == (3, 4, 2)
    assert changed.release.reason == "broken"
    assert offered(store) == {NAME: (2, "b2")}
    again = withdrawals.yank(publisher(store), NAME, reason="broken", revision=3)
    assert (again.release, again.current.revision) == (None, 2)


def test_everything_may_be_withdrawn(store):
    for _ in range(3):
        changed = withdrawals.yank(publisher(store), NAME, reason="all bad")
    assert changed.current is None
    assert offered(store) == {}
    with pytest.raises(UsageError, match="no revision that is offered"):
        withdrawals.yank(publisher(store), NAME, reason="more")


def test_a_named_older_revision_is_withdrawn_alone(store):
    withdrawals.yank(publisher(store), NAME, reason="leak", revision=1)
    assert offered(store) == {NAME: (3, "b3")}
    assert [one.revision for one in read(store).live(NAME, "x86_64")] == [2, 3]


def test_what_clients_get_is_withdrawn_where_the_newest_is_damaged(store):
    store.delete([built(3).key.disk])
    changed = withdrawals.yank(publisher(store), NAME, reason="broken")
    assert (changed.about, changed.current.revision) == (2, 1)
    assert offered(store) == {NAME: (1, "b1")}


@pytest.mark.parametrize("revision", [4, 99])
def test_only_a_release_can_be_withdrawn(store, revision):
    withdrawals.yank(publisher(store), NAME, reason="x", revision=1)
    with pytest.raises(UsageError, match=f"no release {revision}"):
        withdrawals.yank(publisher(store), NAME, reason="x", revision=revision)


@pytest.mark.parametrize("name", ["other", "../etc", ""])
def test_an_image_that_was_never_published_is_refused(store, name):
    with pytest.raises(UsageError):
        withdrawals.yank(publisher(store), name, reason="x")


def test_the_architecture_is_asked_for_when_there_are_several(store):
    publish_by_hand(store, manifest(arch="aarch64", build_id="a1"))
    with pytest.raises(UsageError, match="aarch64, x86_64"):
        withdrawals.yank(publisher(store), NAME, reason="x")
    assert withdrawals.yank(publisher(store), NAME, reason="x", arch="aarch64").current is None


def test_a_release_whose_manifest_is_lost_can_be_withdrawn(store):
    store.delete([built(3).key.manifest])
    with pytest.raises(RepositoryError, match="lost"):
        read(store)
    withdrawals.yank(publisher(store), NAME, reason="lost", revision=3)
    assert offered(store) == {NAME: (2, "b2")}


def test_in_a_damaged_repository_the_revision_must_be_named(store):
    """Else the good newest one would be withdrawn for a lost older one."""
    store.delete([built(1).key.manifest])
    with pytest.raises(UsageError, match=r"1\.json names .* lost") as caught:
        withdrawals.yank(publisher(store), NAME, reason="lost")
    assert f"repo yank {NAME} --arch x86_64 --revision 1 " in caught.value.hint
    withdrawals.yank(publisher(store), NAME, reason="lost", revision=1)
    assert offered(store) == {NAME: (3, "b3")}


def test_every_revision_of_a_withdrawn_build_is_withdrawn(store):
    withdrawals.rollback(publisher(store), NAME, to=1)
    changed = withdrawals.yank(publisher(store), NAME, reason="a secret is in it")
    assert (changed.about, changed.withdrawn) == (4, (4, 1))
    assert offered(store) == {NAME: (3, "b3")}
    with pytest.raises(UsageError, match="withdrawn"):
        withdrawals.rollback(publisher(store), NAME, to=1)
    # As docs/operations.md has it for a secret.
    store.delete([stat.key for stat in store.list(built(1).key.folder)])
    assert read(store).current(NAME, "x86_64").revision == 3


def test_a_withdrawn_build_is_not_gone_back_to_by_another_of_its_revisions(store):
    withdrawals.rollback(publisher(store), NAME, to=1)
    put_release(store, record(5, None, fingerprint="", withdraws=4, reason="by an older version"))
    with pytest.raises(UsageError, match="its build was withdrawn"):
        withdrawals.rollback(publisher(store), NAME, to=1)
    assert withdrawals.rollback(publisher(store), NAME).release.build == "b2"


def test_a_rollback_is_a_new_revision_of_the_older_build(store):
    changed = withdrawals.rollback(publisher(store), NAME, reason="b3 does not boot")
    assert (changed.about, changed.release.revision, changed.release.build) == (2, 4, "b2")
    assert changed.release.reason == "back to revision 2: b3 does not boot"
    assert offered(store) == {NAME: (4, "b2")}
    # And further back, not forth again.
    assert withdrawals.rollback(publisher(store), NAME).release.build == "b1"
    with pytest.raises(UsageError, match="no older build"):
        withdrawals.rollback(publisher(store), NAME)


def test_a_rollback_to_a_named_revision(store):
    assert withdrawals.rollback(publisher(store), NAME, to=1).release.build == "b1"
    assert offered(store) == {NAME: (4, "b1")}
    with pytest.raises(UsageError, match="get now"):
        withdrawals.rollback(publisher(store), NAME, to=1)


@pytest.mark.parametrize("to", [9, 2])
def test_there_is_no_way_back_to_what_is_not_offered(store, to):
    withdrawals.yank(publisher(store), NAME, reason="x", revision=2)
    with pytest.raises(UsageError, match=r"no such release|withdrawn"):
        withdrawals.rollback(publisher(store), NAME, to=to)


@pytest.mark.parametrize("part", ["disk", "hash", "metadata"])
def test_a_rollback_wants_all_objects(store, part):
    store.delete([getattr(built(1).key, part)])
    with pytest.raises(UsageError, match="not whole"):
        withdrawals.rollback(publisher(store), NAME, to=1)
    assert read(store).newest(NAME, "x86_64") == 3


def between(monkeypatch, prefix, act):
    """Run ``act`` once, just before the first write below ``prefix``."""
    real, done = DirectoryStore.put, []

    def put(self, key, data, **more):
        if key.startswith(prefix) and not done:
            done.append(key)
            act()
        return real(self, key, data, **more)

    monkeypatch.setattr(DirectoryStore, "put", put)


def test_a_rollback_does_not_run_over_what_was_published_meanwhile(store, monkeypatch):
    between(monkeypatch, "releases/", lambda: publish(store, 4, known=3))
    with pytest.raises(RepositoryError, match="published meanwhile"):
        withdrawals.rollback(publisher(store), NAME)
    assert read(store).current(NAME, "x86_64").build == "b4"


def test_a_withdrawal_beside_a_publisher_withdraws_what_was_meant(store, monkeypatch):
    between(monkeypatch, "releases/", lambda: publish(store, 4, known=3))
    changed = withdrawals.yank(publisher(store), NAME, reason="x")
    assert (changed.about, changed.release.revision) == (3, 5)
    assert offered(store) == {NAME: (4, "b4")}


def test_a_publisher_that_planned_before_does_not_undo_a_rollback(store):
    withdrawals.rollback(publisher(store), NAME)
    put_build(store, manifest(build_id="late", fingerprint="f3"))
    late = release(
        store,
        manifest(build_id="late", fingerprint="f3"),
        commit="c1",
        known_revision=3,
        is_ancestor=lambda _old, _new: False,
        now=lambda: START,
    )
    assert late.verdict is Verdict.WITHDRAWN
    asked = release(
        store,
        manifest(build_id="late", fingerprint="f3"),
        commit="c1",
        known_revision=4,
        is_ancestor=lambda _old, _new: False,
        now=lambda: START,
    )
    assert asked.verdict is Verdict.RELEASED


def test_a_publisher_that_planned_before_does_not_undo_a_withdrawal(store):
    withdrawals.yank(publisher(store), NAME, reason="x")
    put_build(store, manifest(build_id="late", fingerprint="f3"))
    assert publish_late(store, known=3).verdict is Verdict.WITHDRAWN
    assert publish_late(store, known=4).verdict is Verdict.RELEASED


def publish_late(store, known):
    return release(
        store,
        manifest(build_id="late", fingerprint="f3"),
        commit="c1",
        known_revision=known,
        is_ancestor=lambda _old, _new: False,
        now=lambda: START,
    )


RETENTION = Retention(revisions=1, days=0, grace_days=1)


def retire_oldest(store):
    """What gc does years later: nothing is young any more."""
    return collect.sweep(publisher(store, now=4e9), RETENTION)


def test_a_retired_build_is_offered_and_released_no_more(store):
    done = retire_oldest(store)
    assert [step.build.build_id for step in done.sweep.retire] == ["b1"]
    assert store.head(built(1).key.disk)
    assert b"/b1/" not in store.get("repo.metadata").data
    with pytest.raises(UsageError, match="removed by repo gc"):
        withdrawals.rollback(publisher(store), NAME, to=1)
    with pytest.raises(RepositoryError, match="repo gc has begun"):
        publish(store, 1, known=3)
    assert read(store).newest(NAME, "x86_64") == 3


def test_gc_leaves_an_image_alone_that_changed_meanwhile(store, monkeypatch):
    real = collect._revisions

    def revisions(where, image):
        withdrawals.rollback(publisher(store), NAME, to=1)
        return real(where, image)

    monkeypatch.setattr(collect, "_revisions", revisions)
    done = retire_oldest(store)
    assert done.left == ((NAME, "x86_64"),)
    assert offered(store) == {NAME: (4, "b1")}


def test_a_rollback_that_gc_overtakes_takes_itself_back(store, monkeypatch):
    key = built(1).key.retirement

    def retire():
        monkeypatch.undo()
        store.put(key, b"{}", expected=None)

    between(monkeypatch, f"releases/{NAME}/x86_64/4", retire)
    with pytest.raises(RepositoryError, match="at the same moment"):
        withdrawals.rollback(publisher(store), NAME, to=1)
    assert offered(store) == {NAME: (3, "b3")}


def test_gc_deletes_after_the_grace_period_and_the_repository_stays_whole(store):
    retire_oldest(store)
    done = retire_oldest(store)
    assert [step.build.build_id for step in done.sweep.delete] == ["b1"]
    assert list(store.list("builds/debian-12/x86_64/b1/")) == []
    assert offered(store) == {NAME: (3, "b3")}
    assert {one.revision for one in read(store).live(NAME, "x86_64")} == {2, 3}
    assert retire_oldest(store).sweep.is_empty
    assert publish(store, 4, known=3).release.revision == 4


@pytest.mark.parametrize("left", [1, 2, 3, 4])
def test_a_deletion_that_was_cut_off_is_taken_up_again(store, left):
    retire_oldest(store)
    stats = sorted(store.list("builds/debian-12/x86_64/b1/"), key=lambda s: "manifest" not in s.key)
    store.delete([stat.key for stat in stats[:left]])
    assert offered(store) == {NAME: (3, "b3")}
    retire_oldest(store)
    assert list(store.list("builds/debian-12/x86_64/b1/")) == []


def test_gc_refuses_when_a_published_file_names_what_it_would_delete(store, monkeypatch):
    retire_oldest(store)
    monkeypatch.setattr(collect, "_named", lambda _store: [built(1).key.disk])
    with pytest.raises(RepositoryError, match="name what is retired"):
        retire_oldest(store)
    assert store.head(built(1).key.disk)


def test_gc_touches_nothing_in_a_damaged_repository(store):
    store.delete([built(2).key.manifest])
    before = [stat.key for stat in store.list()]
    with pytest.raises(RepositoryError):
        retire_oldest(store)
    assert [stat.key for stat in store.list()] == before
