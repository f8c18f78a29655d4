import json
from dataclasses import dataclass, field, replace

import pytest

from lago_images.errors import NotFoundError, RepositoryError, StorageError
from lago_images.repository.publishing.releasing import release as make_public
from lago_images.repository.records.layout import CACHE, PUBLISHED, ReleaseKey
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.parsing import LARGEST, parse_json
from lago_images.repository.records.release import Release
from lago_images.repository.records.state import PublishedCommit, _marks, read
from lago_images.repository.rendering.client_setup import describe
from lago_images.storage.base import Headers
from lago_images.storage.directory.store import DirectoryStore
from tests.support.handmade import manifest, publish_by_hand, put, put_build, put_release, release

PLAIN = Headers()
# JSON, but too deep for Python to read.
DEEP = b"[" * 200_000 + b"]" * 200_000


@dataclass
class Counting:
    """A store that notes what is asked of it, and can be told to refuse writes."""

    inner: DirectoryStore
    gets: list[str] = field(default_factory=list)
    read_only: bool = False

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def get(self, key):
        self.gets.append(key)
        return self.inner.get(key)

    def put(self, key, data, *, expected, headers=PLAIN):
        if self.read_only:
            raise StorageError("403")
        return self.inner.put(key, data, expected=expected, headers=headers)

    def documents(self):
        return [key for key in self.gets if not key.startswith("state/")]


@pytest.fixture
def store(tmp_path):
    return Counting(DirectoryStore(path=tmp_path))


def test_an_empty_repository_is_a_state_too(store):
    state = read(store)
    assert state.images == ()
    assert state.published is None
    assert state.current("debian-12", "x86_64") is None
    assert state.newest("debian-12", "x86_64") == 0
    assert list(store.list()) == []


def test_the_current_release_is_the_newest_one(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    state = read(store)
    assert state.current("debian-12", "x86_64").revision == 2
    assert [r.revision for r in state.history("debian-12", "x86_64")] == [1, 2]
    assert state.manifest(state.current("debian-12", "x86_64")).build_id == "b2"


def test_revisions_are_ordered_as_numbers(store):
    publish_by_hand(store, *(manifest(build_id=f"b{number}") for number in range(1, 12)))
    assert read(store).newest("debian-12", "x86_64") == 11


def test_a_withdrawn_release_gives_way_to_the_one_before(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    put_release(store, release(3, None, withdraws=2, fingerprint=""))
    state = read(store)
    assert state.current("debian-12", "x86_64").revision == 1
    assert state.newest("debian-12", "x86_64") == 3
    assert state.withdrawn("debian-12", "x86_64") == {2}


def test_an_architecture_is_an_image_of_its_own(store):
    publish_by_hand(store, manifest(), manifest(arch="aarch64", build_id="b2"))
    state = read(store)
    assert state.images == (("debian-12", "aarch64"), ("debian-12", "x86_64"))


@pytest.mark.parametrize("part", ["disk", "hash", "metadata"])
def test_a_build_that_lost_an_object_is_not_offered(store, part):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    key = manifest(build_id="b2").key
    store.delete([getattr(key, part)])
    state = read(store)
    assert state.incomplete == {key}
    assert state.current("debian-12", "x86_64").revision == 1


def test_a_disk_of_another_size_is_not_offered(store):
    publish_by_hand(store, manifest())
    key = manifest().key
    store.delete([key.disk])
    put(store, key.disk, b"cut")
    assert read(store).current("debian-12", "x86_64") is None


def test_builds_to_promote_are_the_complete_ones_without_a_release(store):
    publish_by_hand(store, manifest(build_id="b1"))
    put_build(store, manifest(build_id="b2", fingerprint="sha256:f2", created=5))
    put_build(store, manifest(build_id="b3", fingerprint="sha256:f2", created=6))
    lost = put_build(store, manifest(build_id="b4", fingerprint="sha256:f2", created=7))
    store.delete([lost.disk])
    state = read(store)
    assert [m.build_id for m in state.unreleased("sha256:f2")] == ["b3", "b2"]
    assert state.unreleased("sha256:f1") == ()


def test_what_was_seen_before_is_not_read_again(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    first = read(store)
    assert len(store.documents()) == 4
    store.gets.clear()
    assert read(store) == first
    assert store.documents() == []
    publish_by_hand(store, manifest("other"))
    read(store)
    assert sorted(store.documents()) == [
        "builds/other/x86_64/b1/manifest.json",
        "releases/other/x86_64/1.json",
    ]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        pytest.param(DEEP, id="deep"),
        b'{"schema": 1, "objects": {"a": 1}}',
        b'{"schema": 1, "objects": []}',
        b'{"schema": 2, "objects": {"releases/debian-12/x86_64/1.json": ["x", {}]}}',
    ],
)
def test_a_cache_that_is_broken_or_gone_changes_nothing(store, broken):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    first = read(store)
    kept = store.get(CACHE).data
    store.delete([CACHE])
    assert read(store) == first
    assert store.get(CACHE).data == kept
    store.delete([CACHE])
    put(store, CACHE, broken)
    assert read(store) == first
    assert store.get(CACHE).data == kept


def test_a_cache_entry_of_another_version_of_the_object_is_not_used(store):
    publish_by_hand(store, manifest())
    read(store)
    cached = json.loads(store.get(CACHE).data)
    for key, entry in cached["objects"].items():
        if key.startswith("builds/"):
            entry[0] = "stale"
            entry[1]["fingerprint"] = "sha256:wrong"
    store.delete([CACHE])
    put(store, CACHE, json.dumps(cached).encode())
    assert read(store).manifests[manifest().key].fingerprint == "sha256:f1"


@pytest.mark.parametrize("garbage", [None, [], {}, "x", {"schema": 1, "disk": 1}])
def test_a_cache_that_holds_garbage_changes_nothing(store, garbage):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    first = read(store)
    kept = store.get(CACHE).data
    cached = json.loads(kept)
    for entry in cached["objects"].values():
        entry[1] = garbage
    store.delete([CACHE])
    put(store, CACHE, json.dumps(cached).encode())
    assert read(store) == first
    assert store.get(CACHE).data == kept


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("builds/", "fingerprint", 7),
        ("builds/", "name", "other"),
        ("builds/", "more", 1),
        ("releases/", "revision", 2),
        ("releases/", "published", -1),
    ],
)
def test_a_cached_record_is_believed_no_more_than_a_fresh_one(store, kind, field, value):
    publish_by_hand(store, manifest())
    first = read(store)
    kept = store.get(CACHE).data
    cached = json.loads(kept)
    for key, entry in cached["objects"].items():
        if key.startswith(kind):
            entry[1][field] = value
    store.delete([CACHE])
    put(store, CACHE, json.dumps(cached).encode())
    assert read(store) == first
    assert json.loads(store.get(CACHE).data) == json.loads(kept)


def test_a_manifest_that_is_none_is_not_kept_in_the_cache(store):
    publish_by_hand(store, manifest())
    broken = manifest(build_id="b2").key.manifest
    put(store, broken, b"{}")
    for _ in range(2):
        assert list(read(store).unreadable) == [manifest(build_id="b2").key]
    assert broken.encode() not in store.get(CACHE).data


def test_a_reader_without_the_right_to_write_reads(store):
    publish_by_hand(store, manifest())
    store.read_only = True
    assert read(store).newest("debian-12", "x86_64") == 1


def test_a_failing_store_is_not_an_empty_repository(store, monkeypatch):
    publish_by_hand(store, manifest())

    def fail(prefix=""):
        raise StorageError("503")
        yield

    monkeypatch.setattr(store, "list", fail, raising=False)
    with pytest.raises(StorageError, match="503"):
        read(store)


def test_a_release_of_a_lost_manifest_is_an_error_that_names_it(store):
    publish_by_hand(store, manifest())
    store.delete([manifest().key.manifest])
    with pytest.raises(
        RepositoryError, match=r"builds/debian-12/x86_64/b1/manifest\.json"
    ) as caught:
        read(store)
    assert "repo yank debian-12" in caught.value.hint


def test_a_withdrawn_release_may_have_lost_its_build(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    put_release(store, release(3, None, withdraws=2, fingerprint=""))
    store.delete([manifest(build_id="b2").key.manifest])
    assert read(store).current("debian-12", "x86_64").revision == 1


BAD_MANIFESTS = [
    b"not json",
    b"[]",
    b"{}",
    b'{"schema": 9}',
    json.dumps({**json.loads(manifest().to_json()), "created": "soon"}).encode(),
    json.dumps({**json.loads(manifest().to_json()), "properties": {"name": 1}}).encode(),
    json.dumps({**json.loads(manifest().to_json()), "disk": 7}).encode(),
    json.dumps({**json.loads(manifest().to_json()), "extra": 7}).encode(),
    replace(manifest(), build_id="b9").to_json(),
    replace(manifest(), properties={"name": "a\n[evil]"}).to_json(),
    replace(manifest(), properties={"aliases": "../x"}).to_json(),
    replace(manifest(), disk=replace(manifest().disk, sha512="\n[evil]")).to_json(),
    pytest.param(DEEP, id="deep"),
]


@pytest.mark.parametrize("data", BAD_MANIFESTS)
def test_a_bad_manifest_stops_only_those_who_released_it(store, data):
    key = put_build(store, manifest())
    store.delete([key.manifest])
    put(store, key.manifest, data)
    state = read(store)
    assert key in state.unreadable
    assert key.manifest in state.unreadable[key]
    assert state.unreleased() == ()
    put_release(store, release())
    with pytest.raises(RepositoryError, match=r"releases/debian-12/x86_64/1\.json"):
        read(store)


@pytest.mark.parametrize(
    "parse",
    [
        lambda: Manifest.parse(DEEP, manifest().key),
        lambda: Release.parse(DEEP, release().key),
        lambda: describe(DEEP),
        lambda: parse_json(DEEP, "it"),
    ],
    ids=["manifest", "release", "repo.metadata", "any"],
)
def test_a_document_that_is_too_deep_is_told_like_any_other(parse):
    with pytest.raises(RepositoryError, match="recursion"):
        parse()


def test_a_manifest_that_is_too_large_is_not_even_read(store):
    key = put_build(store, manifest())
    store.delete([key.manifest])
    put(store, key.manifest, b" " * (LARGEST + 1))
    state = read(store)
    assert "more than" in state.unreadable[key]
    assert store.documents() == []


def test_a_release_costs_no_request_for_every_one_before_it(store):
    publish_by_hand(store, *(manifest(build_id=f"b{n}", fingerprint=f"f{n}") for n in range(20)))
    made = manifest(build_id="next", fingerprint="next")
    put_build(store, made)
    state = read(store)
    store.gets.clear()
    make_public(
        store,
        made,
        commit="c2",
        known_revision=20,
        is_ancestor=lambda _old, _new: False,
        now=lambda: 0.0,
        state=state,
    )
    assert sorted(store.documents()) == sorted(
        [made.key.hash, made.key.manifest, made.key.metadata]
    )


@pytest.mark.parametrize(
    "data",
    [
        b"no",
        pytest.param(DEEP, id="deep"),
        b"[]",
        b'{"schema": 1}',
        release(2).to_json(),
        release(1, None).to_json(),
        replace(release(), withdraws=1).to_json(),
        replace(release(), published="now").to_json(),  # type: ignore[arg-type]
    ],
)
def test_an_unreadable_release_is_never_dropped(store, data):
    put_build(store, manifest())
    put(store, "releases/debian-12/x86_64/1.json", data)
    with pytest.raises(RepositoryError, match=r"releases/debian-12/x86_64/1\.json") as caught:
        read(store)
    assert caught.value.hint


def test_what_is_deleted_while_it_is_read_is_read_again(store, monkeypatch):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    gone = ["releases/debian-12/x86_64/1.json", manifest(build_id="b1").key.manifest]

    def get(key):
        if key in gone:
            store.inner.delete(gone)
        return store.inner.get(key)

    monkeypatch.setattr(store, "get", get, raising=False)
    assert [r.revision for r in read(store).history("debian-12", "x86_64")] == [2]


def test_an_object_that_is_listed_and_never_found_is_an_error(store, monkeypatch):
    publish_by_hand(store, manifest())

    def get(key):
        if key.startswith("releases/"):
            raise NotFoundError(key)
        return store.inner.get(key)

    monkeypatch.setattr(store, "get", get, raising=False)
    with pytest.raises(NotFoundError):
        read(store)


def test_the_published_commit_is_read(store):
    put(store, PUBLISHED, PublishedCommit.to_json("c7"))
    assert read(store).published.commit == "c7"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema": 1, "commit": 3}'])
def test_a_broken_record_of_the_published_commit_is_an_error(store, data):
    put(store, PUBLISHED, data)
    with pytest.raises(RepositoryError, match=PUBLISHED):
        read(store)


def test_a_record_of_a_newer_version_is_not_to_be_deleted(store):
    put(store, PUBLISHED, b'{"schema": 2, "commit": "c7"}')
    with pytest.raises(RepositoryError, match="schema 2; this lago-images knows 1") as caught:
        read(store)
    assert caught.value.hint == "upgrade lago-images"


def test_what_a_newer_version_adds_to_the_published_commit_is_left_aside(store):
    put(store, PUBLISHED, b'{"schema": 1, "commit": "c7", "more": 1}')
    assert read(store).published.commit == "c7"


def test_a_long_list_of_builds_is_cut_into_parts_of_the_same_length():
    few = [ReleaseKey(name=f"n{n}", arch="x86_64", revision=1) for n in range(2399)]
    many = [ReleaseKey(name=f"n{n:04}", arch="x86_64", revision=1) for n in range(4000)]
    assert _marks(few) == []
    assert _marks(reversed(many)) == [f"builds/n{n:04}/" for n in range(500, 4000, 500)]
    one = [ReleaseKey(name="only", arch="x86_64", revision=n) for n in range(1, 4000)]
    assert _marks(one) == ["builds/only/"]
