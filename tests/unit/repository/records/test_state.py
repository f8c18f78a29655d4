import hashlib
import json
from dataclasses import dataclass, field, replace

import pytest

from lago_images.errors import NotFoundError, RepositoryError, StorageError
from lago_images.repository.publishing.releasing import Decision
from lago_images.repository.publishing.releasing import release as make_public
from lago_images.repository.records.gaps import by_image
from lago_images.repository.records.layout import CACHE, IMAGES, PUBLISHED
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.parsing import LARGEST, parse_json
from lago_images.repository.records.release import OldRepositoryError, Release, Released
from lago_images.repository.records.state import PublishedCommit, _marks, outlined, read, survey
from lago_images.repository.rendering.client_setup import describe
from lago_images.storage.base import Headers
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import (
    copy_of,
    judged,
    manifest,
    overwrite,
    publish_by_hand,
    put,
    put_build,
    put_release,
    release,
)

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


def test_an_empty_repository_has_an_empty_state(store):
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


def test_the_release_before_a_withdrawn_one_is_current(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    put_release(store, release(3, None, withdraws=2))
    state = read(store)
    assert state.current("debian-12", "x86_64").revision == 1
    assert state.newest("debian-12", "x86_64") == 3
    assert state.withdrawn("debian-12", "x86_64") == {2}


def test_each_architecture_is_an_image(store):
    publish_by_hand(store, manifest(), manifest(arch="aarch64", build_id="b2"))
    state = read(store)
    assert state.images == (("debian-12", "aarch64"), ("debian-12", "x86_64"))


@pytest.mark.parametrize("part", ["disk", "hash", "metadata", "manifest", "packages"])
def test_a_public_copy_with_a_missing_object_is_listed_as_lost(store, part):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    copy = copy_of(manifest(build_id="b2"))
    store.delete([getattr(copy, part)])
    state = survey(store)
    current = state.current("debian-12", "x86_64")
    assert state.lost == frozenset({copy})
    assert current.revision == 2
    assert (state.stored(current), state.manifest(current)) == (None, None)
    assert read(store).current("debian-12", "x86_64") == current


def test_a_public_copy_with_a_disk_of_another_size_is_lost(store):
    publish_by_hand(store, manifest())
    overwrite(store, copy_of(manifest()).disk, b"cut")
    assert survey(store).lost == {copy_of(manifest())}


def test_complete_builds_without_a_release_can_be_promoted(store):
    publish_by_hand(store, manifest(build_id="b1"))
    put_build(store, manifest(build_id="b2", fingerprint="sha256:f2", created=5))
    put_build(store, manifest(build_id="b3", fingerprint="sha256:f2", created=6))
    lost = put_build(store, manifest(build_id="b4", fingerprint="sha256:f2", created=7))
    store.delete([lost.disk])
    state = survey(store)
    assert [m.build_id for m in state.unreleased("sha256:f2")] == ["b3", "b2"]
    assert state.unreleased("sha256:f1") == ()


def test_rendering_reads_each_release_once(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    first = read(store)
    assert sorted(store.documents()) == [
        "releases/debian-12/x86_64/1.json",
        "releases/debian-12/x86_64/2.json",
    ]
    store.gets.clear()
    assert read(store) == first
    assert store.documents() == []
    publish_by_hand(store, manifest("other"))
    read(store)
    assert store.documents() == ["releases/other/x86_64/1.json"]


def test_a_survey_reads_each_staged_manifest_once(store):
    publish_by_hand(store, manifest())
    first = survey(store)
    assert sorted(store.documents()) == [
        "builds/debian-12/x86_64/b1/manifest.json",
        "releases/debian-12/x86_64/1.json",
    ]
    publish_by_hand(store, manifest("other"))
    read(store)
    store.gets.clear()
    assert survey(store).staged.keys() > first.staged.keys()
    assert store.documents() == ["builds/other/x86_64/b1/manifest.json"]


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
        b'{"schema": 2, "sha256": "", "objects": {}}',
        b'{"schema": 3, "sha256": "44136fa3", "objects": {}}',
    ],
)
def test_a_damaged_or_missing_cache_changes_nothing(store, broken):
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


def change_cache(store, change):
    """Write the cache anew with what ``change`` does to its objects, as if nothing were wrong."""
    cached = json.loads(store.get(CACHE).data)
    change(cached["objects"])
    objects = json.dumps(cached["objects"], ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.sha256(objects.encode()).hexdigest()
    text = f'{{"schema": {cached["schema"]}, "sha256": "{digest}", "objects": {objects}}}'
    overwrite(store, CACHE, text.encode())


def test_a_cache_entry_of_another_version_of_the_object_is_not_used(store):
    publish_by_hand(store, manifest())
    survey(store)

    def stale(objects):
        for entry in objects.values():
            entry[0] = "stale"
        objects[manifest().key.staging.manifest][1]["fingerprint"] = "sha256:wrong"
        objects["releases/debian-12/x86_64/1.json"][1]["image"]["build"] = "wrong"

    change_cache(store, stale)
    assert survey(store).staged[manifest().key].fingerprint == "sha256:f1"
    change_cache(store, stale)
    (release,) = outlined(store).history("debian-12", "x86_64")
    assert release.build == "b1"


@pytest.mark.parametrize("read", [read, survey, outlined])
@pytest.mark.parametrize("garbage", [None, [], {}, "x", {"schema": 1, "disk": 1}])
def test_an_invalid_cache_changes_nothing(store, read, garbage):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    first = read(store)
    kept = store.get(CACHE).data

    def spoil(objects):
        for entry in objects.values():
            entry[1] = garbage

    change_cache(store, spoil)
    assert read(store) == first
    assert store.get(CACHE).data == kept


@pytest.mark.parametrize("read", [read, survey, outlined])
def test_bytes_that_changed_in_the_cache_change_nothing(store, read):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    first = read(store)
    kept = store.get(CACHE).data
    for old, new in ((b"sha256:f1", b"sha256:f0"), (b'"revision":2', b'"revision":3')):
        assert old in kept
        overwrite(store, CACHE, kept.replace(old, new))
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
def test_a_cached_record_is_validated_like_a_stored_one(store, kind, field, value):
    publish_by_hand(store, manifest())
    first = survey(store)
    kept = store.get(CACHE).data

    def spoil(objects):
        for key, entry in objects.items():
            if key.startswith(kind):
                entry[1][field] = value

    change_cache(store, spoil)
    assert survey(store) == first
    assert json.loads(store.get(CACHE).data)["objects"] == json.loads(kept)["objects"]


def test_a_cached_release_of_another_schema_is_read_from_the_store(store):
    publish_by_hand(store, manifest())
    first = outlined(store)

    def newer(objects):
        for entry in objects.values():
            entry[1]["schema"] = Release.SCHEMA + 1

    change_cache(store, newer)
    assert outlined(store) == first


def test_an_outline_looks_at_no_build_that_was_released(store):
    """What it leaves in the cache spares a survey the requests all the same."""
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    put_build(store, manifest(build_id="b3", fingerprint="sha256:f3"))
    survey(store)
    put_build(store, manifest(build_id="b4", fingerprint="sha256:f4"))
    store.gets.clear()
    offers = outlined(store)
    assert store.documents() == ["builds/debian-12/x86_64/b4/manifest.json"]
    assert [each.build_id for each in offers.unreleased()] == ["b3", "b4"]
    store.gets.clear()
    assert survey(store).unreleased() == offers.unreleased()
    assert store.documents() == []


def test_an_invalid_manifest_is_not_cached(store):
    publish_by_hand(store, manifest())
    broken = manifest(build_id="b2").key.staging.manifest
    put(store, broken, b"{}")
    for _ in range(2):
        assert list(survey(store).unreadable) == [manifest(build_id="b2").key]
    assert broken.encode() not in store.get(CACHE).data


def test_a_reader_without_write_permission_reads_the_state(store):
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
def test_an_invalid_staged_manifest_affects_no_image(store, data):
    publish_by_hand(store, manifest())
    staging = put_build(store, manifest(build_id="b2", fingerprint="f2"))
    before = read(store)
    overwrite(store, staging.manifest, data)
    state = survey(store)
    assert staging.manifest in state.unreadable[staging.key]
    assert state.unreleased() == ()
    assert read(store) == before


def test_a_staged_manifest_with_other_formatting_is_refused(store):
    """Its digest is that of its bytes: another layout of the same JSON is another manifest."""
    staging = put_build(store, manifest())
    overwrite(store, staging.manifest, json.dumps(json.loads(manifest().to_json())).encode())
    assert "not written as builders" in survey(store).unreadable[staging.key]


def test_a_staged_manifest_that_vanishes_is_no_build(store, monkeypatch):
    publish_by_hand(store, manifest())
    lost = put_build(store, manifest(build_id="b2")).manifest

    def get(key):
        if key == lost:
            raise NotFoundError(key)
        return store.inner.get(key)

    monkeypatch.setattr(store, "get", get, raising=False)
    assert list(survey(store).staged) == [manifest().key]


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
def test_a_deeply_nested_document_is_refused(parse):
    with pytest.raises(RepositoryError, match="recursion"):
        parse()


def test_a_manifest_over_the_size_limit_is_not_read(store):
    staging = put_build(store, manifest())
    overwrite(store, staging.manifest, b" " * (LARGEST + 1))
    state = survey(store)
    assert "more than" in state.unreadable[staging.key]
    assert store.documents() == []


def test_reading_the_state_makes_no_request_per_earlier_release(store):
    publish_by_hand(store, *(manifest(build_id=f"b{n}", fingerprint=f"f{n}") for n in range(20)))
    made = manifest(build_id="next", fingerprint="next")
    put_build(store, made)
    state = read(store)
    store.gets.clear()
    make_public(
        store,
        judged(made),
        Decision(
            released=Released(commit="c2"),
            known_revision=20,
            is_ancestor=lambda _old, _new: False,
            now=lambda: 0.0,
        ),
        state=state,
    )
    to = made.key.staging
    staged = [to.hash, to.manifest, to.metadata, to.packages]
    # What changed is told from the packages of this one and of the one before it.
    [new] = [each for each in store.documents() if each.startswith("images/debian-12/x86_64/next.")]
    old = copy_of(manifest(build_id="b19")).packages
    assert sorted(store.documents()) == sorted([*staged, new, old])


@pytest.mark.parametrize(
    "data",
    [
        b"no",
        pytest.param(DEEP, id="deep"),
        b"[]",
        b'{"schema": "x"}',
        release(2).to_json(),
        release(3, None).to_json(),
        replace(release(3), withdraws=1).to_json(),
        replace(release(3), published="now").to_json(),  # type: ignore[arg-type]
        release(3).to_json().replace(b'"packages": 1', b'"packages": 2'),
    ],
)
def test_an_unreadable_release_affects_its_image_only(store, data):
    """It may have withdrawn any release before it: none of these is offered."""
    publish_by_hand(store, *(manifest(build_id=f"b{n}") for n in (1, 2)), manifest("other"))
    put(store, "releases/debian-12/x86_64/3.json", data)
    state = read(store)
    [(key, why)] = state.damaged.items()
    assert str(key) == "releases/debian-12/x86_64/3.json"
    assert why.startswith(str(key))
    assert state.live("debian-12", "x86_64") == ()
    assert state.newest("debian-12", "x86_64") == 3
    assert state.current("other", "x86_64").revision == 1
    put_release(store, release(4, "b4"))
    assert read(store).current("debian-12", "x86_64").revision == 4


@pytest.mark.parametrize(("lost", "offered"), [([1], {2, 3, 4}), ([2], {3, 4}), ([1, 3], {4})])
def test_nothing_before_a_lost_release_is_offered(store, lost, offered):
    """It may have withdrawn any release before it, as a damaged one may."""
    publish_by_hand(store, *(manifest(build_id=f"b{n}") for n in (1, 2, 3, 4)), manifest("other"))
    store.delete([f"releases/debian-12/x86_64/{number}.json" for number in lost])
    state = read(store)
    assert {each.revision for each in state.live("debian-12", "x86_64")} == offered
    assert state.newest("debian-12", "x86_64") == 4
    assert state.current("other", "x86_64").revision == 1


def test_a_repository_of_the_older_layout_is_refused(store):
    publish_by_hand(store, manifest("other"))
    put(store, "releases/debian-12/x86_64/1.json", b'{"schema": 1, "build": "b1"}')
    for reads in (read, survey):
        with pytest.raises(OldRepositoryError, match="older lago-images"):
            reads(store)


def test_a_repository_of_a_newer_version_is_refused(store):
    """What it offers is not known here: to render it would take images from their users."""
    publish_by_hand(store, manifest("other"))
    put(store, "releases/debian-12/x86_64/1.json", b'{"schema": 3}')
    with pytest.raises(RepositoryError, match="schema 3; this lago-images knows 2"):
        read(store)


def test_a_release_deleted_while_reading_is_left_out(store, monkeypatch):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    deleted = ["releases/debian-12/x86_64/1.json"]

    def get(key):
        if key in deleted:
            store.inner.delete(deleted)
        return store.inner.get(key)

    monkeypatch.setattr(store, "get", get, raising=False)
    assert [r.revision for r in read(store).history("debian-12", "x86_64")] == [2]


def test_an_object_that_is_listed_and_always_missing_is_an_error(store, monkeypatch):
    publish_by_hand(store, manifest())

    def get(key):
        if key.startswith("releases/"):
            raise NotFoundError(key)
        return store.inner.get(key)

    monkeypatch.setattr(store, "get", get, raising=False)
    with pytest.raises(NotFoundError):
        read(store)


@pytest.mark.parametrize("reads", [read, survey, outlined])
def test_a_gap_is_believed_when_the_next_list_has_it_too(store, reads, monkeypatch):
    """The pages of a list are of several moments: it may lack what is older than what it has."""
    publish_by_hand(store, *(manifest(build_id=f"b{n}") for n in (1, 2, 3)))
    lists = []

    def list_(prefix="", **rest):
        lists.append(prefix)
        late = lists.count("releases/") == 1
        for stat in store.inner.list(prefix, **rest):
            if not (late and stat.key == "releases/debian-12/x86_64/2.json"):
                yield stat

    monkeypatch.setattr(store, "list", list_, raising=False)
    assert reads(store).missing == ()
    assert lists.count("releases/") == 2
    assert reads(store).missing == ()
    assert lists.count("releases/") == 3
    store.inner.delete(["releases/debian-12/x86_64/2.json"])
    assert [(gap.first, gap.last) for gap in reads(store).missing] == [(2, 2)]
    assert lists.count("releases/") == 5


def test_what_is_lost_is_told_in_one_line_however_much_it_is(store):
    publish_by_hand(store, manifest())
    for number in (3, 7, 9, 11, 10**17):
        put(store, f"releases/debian-12/x86_64/{number}.json", b"no")
    put(store, f"releases/debian-12/x86_64/{10**18}.json", b"no")
    assert by_image(read(store).missing) == {
        ("debian-12", "x86_64"): "a part of releases/debian-12/x86_64/ "
        "(revisions 2, 4 to 6, 8 and 2 more)"
    }


def test_the_published_commit_is_read(store):
    put(store, PUBLISHED, PublishedCommit.to_json("c7"))
    assert read(store).published.commit == "c7"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema": 1, "commit": 3}'])
def test_a_damaged_record_of_the_published_commit_is_an_error(store, data):
    put(store, PUBLISHED, data)
    with pytest.raises(RepositoryError, match=PUBLISHED):
        read(store)


def test_a_record_of_a_newer_version_is_not_suggested_for_deletion(store):
    put(store, PUBLISHED, b'{"schema": 2, "commit": "c7"}')
    with pytest.raises(RepositoryError, match="schema 2; this lago-images knows 1") as caught:
        read(store)
    assert caught.value.hint == "upgrade lago-images"


def test_unknown_fields_of_the_published_commit_are_ignored(store):
    put(store, PUBLISHED, b'{"schema": 1, "commit": "c7", "more": 1}')
    assert read(store).published.commit == "c7"


def test_a_long_list_of_builds_is_split_into_equal_parts():
    assert _marks(IMAGES, [f"n{n}" for n in range(2399)]) == []
    many = [f"n{n:04}" for n in range(4000)]
    assert _marks(IMAGES, many) == [f"images/n{n:04}/" for n in range(500, 4000, 500)]
    assert _marks(IMAGES, ["only"] * 3999) == ["images/only/"]
