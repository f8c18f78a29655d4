from concurrent.futures import ThreadPoolExecutor

import pytest

from lago_images.errors import ConflictError, RepositoryError, SigningError
from lago_images.repository.publishing.releasing import (
    Verdict,
    create,
    prove,
    read_history,
    record_commit,
    taken_back,
)
from lago_images.repository.publishing.releasing import release as make_public
from lago_images.repository.records.layout import PUBLISHED
from lago_images.repository.records.state import read
from lago_images.repository.rendering.index import parse
from lago_images.storage.directory.store import DirectoryStore
from tests.support.handmade import (
    manifest,
    publish_by_hand,
    publisher,
    put,
    put_build,
    put_release,
    release,
)

# The history of these tests' git repository: c1, c2 and c3 in order, d1 apart from them.
LINE = ["c1", "c2", "c3"]


def is_ancestor(one, other):
    if "gone" in (one, other):
        return None
    if one == other:
        return True
    return one in LINE and other in LINE and LINE.index(one) < LINE.index(other)


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(path=tmp_path / "repo")


def public(store, made, *, commit="c1", known=0):
    return make_public(
        store,
        made,
        commit=commit,
        known_revision=known,
        is_ancestor=is_ancestor,
        now=lambda: 1_700_000_000.9,
    )


def refresh(store, **more):
    def no_key(_armour):
        raise AssertionError("no key is published here")

    return publisher(store, fingerprint=no_key, **more).refresh(wait=lambda _attempt: None)


def index_of(store):
    entries, problems = parse(store.get("index").data)
    assert problems == []
    return {entry.name: entry.revision for entry in entries}


def test_the_first_release_is_revision_one(store):
    put_build(store, manifest())
    outcome = public(store, manifest())
    assert outcome.verdict is Verdict.RELEASED
    assert outcome.release.revision == 1
    assert outcome.release.published == 1_700_000_000
    assert read(store).current("debian-12", "x86_64") == outcome.release


def test_releasing_the_same_build_again_changes_nothing(store):
    put_build(store, manifest())
    public(store, manifest())
    assert public(store, manifest()).verdict is Verdict.ALREADY
    assert len(read_history(store, "debian-12", "x86_64")) == 1


def test_two_builds_of_one_fingerprint_leave_one_release(store):
    for build in ("b1", "b2"):
        put_build(store, manifest(build_id=build))
    public(store, manifest(build_id="b1"))
    second = public(store, manifest(build_id="b2"))
    assert second.verdict is Verdict.ALREADY
    assert second.release.build == "b1"


def test_a_stale_image_built_again_is_a_new_revision(store):
    for build in ("b1", "b2"):
        put_build(store, manifest(build_id=build))
    public(store, manifest(build_id="b1"))
    second = public(store, manifest(build_id="b2"), known=1)
    assert (second.verdict, second.release.revision) == (Verdict.RELEASED, 2)


def test_an_older_commit_never_replaces_a_newer_ones_image(store):
    for build, fingerprint in (("b1", "f1"), ("b2", "f2")):
        put_build(store, manifest(build_id=build, fingerprint=fingerprint))
    public(store, manifest(build_id="b2", fingerprint="f2"), commit="c2")
    late = public(store, manifest(build_id="b1", fingerprint="f1"), commit="c1")
    assert late.verdict is Verdict.SUPERSEDED
    assert late.release.commit == "c2"
    assert read(store).current("debian-12", "x86_64").build == "b2"


@pytest.mark.parametrize(
    ("commit", "verdict"), [("c1", Verdict.SUPERSEDED), ("c3", Verdict.RELEASED)]
)
def test_nor_where_an_operator_withdrew_the_newer_ones(store, commit, verdict):
    for build, fingerprint in (("b1", "f1"), ("b2", "f2")):
        put_build(store, manifest(build_id=build, fingerprint=fingerprint))
    public(store, manifest(build_id="b2", fingerprint="f2"), commit="c2")
    put_release(store, release(2, None, fingerprint="", commit="c2", withdraws=1, reason="bad"))
    late = public(store, manifest(build_id="b1", fingerprint="f1"), commit=commit)
    assert late.verdict is verdict


def reverted(store):
    """A published image, and a build of a commit that another one reverted."""
    for build, fingerprint in (("b1", "f1"), ("b2", "f2")):
        put_build(store, manifest(build_id=build, fingerprint=fingerprint))
    public(store, manifest(build_id="b1", fingerprint="f1"), commit="c1")
    return manifest(build_id="b2", fingerprint="f2")


def test_nor_where_the_newer_commit_left_the_image_as_it_was(store):
    late = reverted(store)
    record_commit(store, "c3", is_ancestor=is_ancestor)
    outcome = public(store, late, commit="c2", known=1)
    assert (outcome.verdict, outcome.release.build) == (Verdict.SUPERSEDED, "b1")
    assert read(store).newest("debian-12", "x86_64") == 1


@pytest.mark.parametrize("commit", ["c3", "d1", "gone"])
def test_a_published_commit_that_is_no_newer_one_supersedes_nothing(store, commit):
    made = reverted(store)
    record_commit(store, "c2", is_ancestor=is_ancestor)
    assert public(store, made, commit=commit, known=1).verdict is Verdict.RELEASED


def test_an_older_commit_may_build_again_what_the_newer_one_left_as_it_was(store):
    reverted(store)
    record_commit(store, "c3", is_ancestor=is_ancestor)
    again = manifest(build_id="b3", fingerprint="f1")
    put_build(store, again)
    assert public(store, again, commit="c2", known=1).verdict is Verdict.RELEASED


def test_a_newer_commit_published_at_the_same_moment_is_given_way_to(store):
    class Meanwhile(DirectoryStore):
        def put(self, key, data, **more):
            done = super().put(key, data, **more)
            if key.endswith("/2.json"):
                record_commit(store, "c3", is_ancestor=is_ancestor)
            return done

    late = reverted(store)
    outcome = public(Meanwhile(path=store.path), late, commit="c2", known=1)
    assert (outcome.verdict, outcome.release.revision) == (Verdict.SUPERSEDED, 3)
    current = read(store).current("debian-12", "x86_64")
    assert (current.build, current.commit) == ("b1", "c3")
    # Nobody took the change back: it may be published again later.
    assert taken_back(read(store).history("debian-12", "x86_64")) == {}


@pytest.mark.parametrize("commit", ["c2", "c3", "d1", "gone"])
def test_any_other_commit_replaces_it(store, commit):
    for build, fingerprint in (("b1", "f1"), ("b2", "f2")):
        put_build(store, manifest(build_id=build, fingerprint=fingerprint))
    public(store, manifest(build_id="b1", fingerprint="f1"), commit="c2")
    next_ = public(store, manifest(build_id="b2", fingerprint="f2"), commit=commit)
    assert (next_.verdict, next_.release.revision) == (Verdict.RELEASED, 2)


def test_a_withdrawn_build_does_not_come_back(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2", fingerprint="f2"))
    put_release(store, release(3, None, withdraws=2, fingerprint=""))
    outcome = public(store, manifest(build_id="b2", fingerprint="f2"), commit="c3", known=3)
    assert outcome.verdict is Verdict.WITHDRAWN


def test_a_withdrawal_takes_a_revision(store):
    publish_by_hand(store, manifest(build_id="b1"))
    put_release(store, release(2, None, withdraws=1, fingerprint=""))
    put_build(store, manifest(build_id="b2"))
    assert public(store, manifest(build_id="b2"), known=2).release.revision == 3


@pytest.mark.parametrize("part", ["disk", "hash", "metadata", "manifest"])
def test_an_incomplete_build_is_not_released(store, part):
    key = put_build(store, manifest())
    store.delete([getattr(key, part)])
    with pytest.raises(RepositoryError, match="cannot be released") as caught:
        public(store, manifest())
    assert "ci rebuild debian-12" in caught.value.hint
    assert list(store.list("releases/")) == []


@pytest.mark.parametrize("part", ["disk", "hash", "metadata", "manifest"])
def test_a_build_with_another_ones_object_is_not_released(store, part):
    key = put_build(store, manifest())
    store.delete([getattr(key, part)])
    put(store, getattr(key, part), b"[1]")
    with pytest.raises(RepositoryError, match=getattr(key, part)):
        prove(store, manifest())


@pytest.mark.parametrize("name", ["a\n[b]\nfile=x", "tab\tbed", "bell\x07", "\ud800"])
def test_what_no_index_may_hold_is_not_released(store, name):
    made = manifest(properties={"name": name})
    with pytest.raises(RepositoryError, match="property name"):
        public(store, made)


def test_publishers_at_once_take_different_revisions(store):
    builds = [manifest(build_id=f"b{n}", fingerprint=f"f{n}") for n in range(16)]
    for made in builds:
        put_build(store, made)
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda made: public(store, made), builds))
    assert sorted(o.release.revision for o in outcomes) == list(range(1, 17))


def test_a_release_whose_answer_was_lost_is_ours(store, monkeypatch):
    put_build(store, manifest())
    real = DirectoryStore.put

    def put_and_lose_the_answer(self, key, data, **more):
        real(self, key, data, **more)
        raise ConflictError(key)

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "put", put_and_lose_the_answer)
        outcome = public(store, manifest())
    assert outcome.verdict is Verdict.RELEASED
    assert [r.nonce for r in read_history(store, "debian-12", "x86_64")] == [outcome.release.nonce]


def test_deciding_against_a_release_writes_nothing(store):
    assert create(store, "a", "x86_64", lambda _history: None) is None
    assert list(store.list()) == []


def test_a_refresh_writes_what_changed_and_only_that(store):
    publish_by_hand(store, manifest())
    assert refresh(store).written == ("index", "repo.metadata", "index.html")
    assert refresh(store).written == ()
    publish_by_hand(store, manifest("other"))
    assert set(refresh(store).written) == {"index", "repo.metadata", "index.html"}
    assert index_of(store) == {"debian-12": 1, "other": 1}


def test_an_empty_repository_can_be_refreshed(store):
    refresh(store)
    assert index_of(store) == {}
    assert {stat.key for stat in store.list()} == {"index", "repo.metadata", "index.html"}


def test_a_refresh_restores_what_was_damaged(store):
    publish_by_hand(store, manifest())
    refresh(store)
    kept = store.get("repo.metadata")
    store.put("repo.metadata", b"{}", expected=kept.etag)
    store.delete(["index"])
    assert refresh(store).written == ("index", "repo.metadata")
    assert store.get("repo.metadata").data == kept.data


def meanwhile(monkeypatch, wanted, act):
    """Run ``act`` once, just before the first write of ``wanted``."""
    real, done = DirectoryStore.put, []

    def put(self, key, data, **more):
        if key == wanted and not done:
            done.append(key)
            act()
        return real(self, key, data, **more)

    monkeypatch.setattr(DirectoryStore, "put", put)


@pytest.mark.parametrize("name", ["index", "repo.metadata", "index.html"])
def test_a_publisher_that_was_overtaken_starts_over(store, monkeypatch, name):
    publish_by_hand(store, manifest())

    def overtake():
        publish_by_hand(store, manifest("other"))
        refresh(store)

    meanwhile(monkeypatch, name, overtake)
    assert refresh(store).attempts == 2
    assert index_of(store) == {"debian-12": 1, "other": 1}
    assert refresh(store).written == ()


def test_a_withdrawal_is_not_undone_by_a_slower_publisher(store, monkeypatch):
    publish_by_hand(store, manifest(build_id="b1"))
    refresh(store)
    put_build(store, manifest(build_id="b2"))
    put_release(store, release(2, "b2"))

    def withdraw():
        put_release(store, release(3, None, withdraws=2, fingerprint=""))
        refresh(store)

    meanwhile(monkeypatch, "index", withdraw)
    refresh(store)
    assert index_of(store) == {"debian-12": 1}


def test_publishers_at_once_lose_nothing(store):
    builds = [manifest(f"image{n}") for n in range(8)]
    for made in builds:
        put_build(store, made)

    def publish_one(made):
        public(store, made)
        publisher(store).refresh()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish_one, builds))
    assert set(index_of(store)) == {made.name for made in builds}
    assert refresh(store).written == ()


def test_a_store_that_always_conflicts_is_given_up_on(store, monkeypatch):
    def conflict(*_args, **_more):
        raise ConflictError("always")

    monkeypatch.setattr(DirectoryStore, "put", conflict)
    with pytest.raises(RepositoryError, match="100 times"):
        refresh(store)
    with pytest.raises(RepositoryError, match="every time"):
        record_commit(store, "c1", is_ancestor=is_ancestor, wait=lambda _: None)


def test_files_signed_before_are_not_left_to_go_stale(store):
    put(store, "index.asc", b"signed")
    with pytest.raises(SigningError, match="an unknown key") as caught:
        refresh(store)
    assert "--retire-key" in caught.value.hint
    assert {stat.key for stat in store.list()} == {"index.asc"}


def test_the_published_commit_moves_forward_only(store):
    def record(commit):
        return record_commit(store, commit, is_ancestor=is_ancestor)

    assert record("c2")
    assert not record("c1")
    assert not record("c2")
    assert record("c3")
    assert read(store).published.commit == "c3"


@pytest.mark.parametrize("before", ["gone", "d1"])
def test_a_published_commit_off_our_line_is_replaced(store, before):
    record_commit(store, before, is_ancestor=is_ancestor)
    assert record_commit(store, "c1", is_ancestor=is_ancestor)
    assert read(store).published.commit == "c1"


def test_a_newer_commit_recorded_meanwhile_stays(store, monkeypatch):
    record_commit(store, "c1", is_ancestor=is_ancestor)
    meanwhile(monkeypatch, PUBLISHED, lambda: record_commit(store, "c3", is_ancestor=is_ancestor))
    assert not record_commit(store, "c2", is_ancestor=is_ancestor, wait=lambda _: None)
    assert read(store).published.commit == "c3"
