"""Records of what a build would get otherwise: what is written, believed, and read of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.errors import RepositoryError
from lago_images.repository.records import layout
from lago_images.repository.records.changes import (
    Package,
    PackageChanges,
    PackageLines,
    Upstream,
    VersionChange,
)
from lago_images.repository.records.fields import ARCH, BUILD_ID
from lago_images.repository.records.layout import CACHE, NAME, ImageId, OutdatedKey, outdated_key
from lago_images.repository.records.outdated import FoundUpstream, Outdated
from lago_images.repository.records.parsing import LARGEST
from lago_images.repository.records.state import outlined, read, survey
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import (
    copy_of,
    manifest,
    outdated,
    overwrite,
    publish_by_hand,
    put,
    put_outdated,
    put_release,
    release,
)
from tests.unit.repository.records.test_state import Counting

IMAGE = ImageId("debian-12", "x86_64")
COUNT = st.integers(0, 2**62 - 1)
POSITIVE = st.integers(1, 2**62 - 1)
# In a key a number has 18 digits at most.
NUMBER = st.integers(1, 10**18 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LINES = st.lists(TEXT, max_size=3).map(tuple)
RECORDS = st.builds(
    Outdated,
    name=st.from_regex(NAME, fullmatch=True),
    arch=st.from_regex(ARCH, fullmatch=True),
    revision=POSITIVE,
    number=POSITIVE,
    build=st.from_regex(BUILD_ID, fullmatch=True),
    upstream=st.builds(FoundUpstream, found=COUNT, since=st.none())
    | st.builds(
        FoundUpstream,
        found=COUNT,
        since=COUNT,
        base=TEXT.filter(bool),
        packages=st.none()
        | st.builds(PackageLines, added=LINES, removed=LINES, upgraded=LINES, omitted=COUNT),
    ),
)


@given(RECORDS)
def test_a_written_record_is_read_back(made):
    assert Outdated.parse(made.to_json(), made.key) == made


@given(st.from_regex(NAME, fullmatch=True), NUMBER, NUMBER)
def test_a_key_names_one_record_and_nothing_else(name, revision, number):
    key = OutdatedKey(name=name, arch="x86_64", revision=revision, number=number)
    assert outdated_key(str(key)) == key
    assert layout.release_key(str(key)) is None
    assert layout.retired_copy(str(key)) is None


@pytest.mark.parametrize("last", ["1.json", "01.1.json", "1.0.json", "1.1.1.json", "1.1.json.tmp"])
def test_other_names_beside_records_are_none(last):
    assert outdated_key(f"releases/debian-12/x86_64/outdated/{last}") is None


RECORD = outdated(release(), "openssl 1 2")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 2),
        ("revision", 2),
        ("number", 0),
        ("number", 2**62),
        ("build", "../b"),
        ("more", 1),
        ("upstream.found", -1),
        ("upstream.since", "now"),
        ("upstream.since", None),
        ("upstream.base", "\ud800"),
        ("upstream.packages", []),
        ("upstream.packages.upgraded", [1]),
        ("upstream.packages.omitted", -1),
        ("upstream.packages.upgraded", []),
    ],
)
def test_a_record_with_a_wrong_field_is_refused(path, value):
    plain = json.loads(RECORD.to_json())
    *above, last = path.split(".")
    at = plain
    for name in above:
        at = at[name]
    at[last] = value
    with pytest.raises(RepositoryError, match=str(RECORD.key)):
        Outdated.parse(json.dumps(plain).encode(), RECORD.key)


def changes(*names, old="1", new="2"):
    upgraded = tuple(VersionChange(name=name, old=old, new=new) for name in names)
    return PackageChanges(added=(), removed=(), upgraded=upgraded)


def test_the_moment_of_the_first_change_is_kept_until_there_is_none():
    first = FoundUpstream.of(Upstream(packages=changes("openssl")), 10.9, None)
    assert (first.found, first.since) == (10, 10)
    more = FoundUpstream.of(Upstream(packages=changes("openssl", "curl")), 20, first)
    assert (more.found, more.since) == (20, 10)
    assert FoundUpstream.of(Upstream(packages=changes("openssl", "curl")), 30, more) is None
    nothing = FoundUpstream.of(Upstream(packages=changes()), 40, more)
    assert (nothing.found, nothing.since, nothing.is_outdated) == (40, None, False)
    again = FoundUpstream.of(Upstream(base="revision 2 of tiny"), 50, nothing)
    assert (again.since, again.base, again.packages) == (50, "revision 2 of tiny", None)


def test_what_is_not_known_or_the_same_is_no_news():
    assert FoundUpstream.of(Upstream(packages=changes()), 1, None) is None
    unknown = Upstream(unknown="the mirror does not answer")
    assert FoundUpstream.of(unknown, 1, None) is None
    before = FoundUpstream.of(Upstream(packages=changes("openssl")), 1, None)
    assert FoundUpstream.of(unknown, 2, before) is None
    partly = Upstream(packages=changes("curl"), unknown="perl-base is in no archive")
    assert FoundUpstream.of(partly, 2, before).texts == ["curl 1 → 2"]


def test_many_changes_and_endless_ones_are_counted():
    names = [f"lib{number:03}" for number in range(150)]
    long = Package(name="x" * 400, version="1", arch="amd64")
    found = PackageChanges(added=(long,), removed=(), upgraded=changes(*names).upgraded)
    made = FoundUpstream.of(Upstream(base="b" * 5000, packages=found), 1, None)
    assert len(made.packages.upgraded) == 100
    assert made.packages.added == ()
    assert (made.packages.omitted, made.packages.count, made.count) == (51, 151, 152)
    assert len(made.base) == 300
    assert made.summary(2) == f"{'b' * 300}, lib000 1 → 2 and 150 more"


@pytest.fixture
def store(tmp_path):
    return Counting(DirectoryStore(path=tmp_path))


def newest(store):
    key, record = read(store).outdated.get(IMAGE, (None, None))
    return key and key.number, record and list(record.upstream.packages.upgraded)


def test_the_highest_number_of_the_current_revision_counts(store):
    publish_by_hand(store, manifest(build_id="b1"), manifest(build_id="b2"))
    first, second = release(1, "b1"), release(2, "b2")
    put_outdated(store, outdated(first, "old 1 2", number=1))
    assert read(store).outdated == {}
    for number in (9, 10):
        put_outdated(store, outdated(second, f"n{number} 1 2", number=number))
    assert newest(store) == (10, ["n10 1 2"])
    put_release(store, release(3, None, withdraws=2))
    assert newest(store) == (1, ["old 1 2"])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 200_000,
        b"{" + b" " * LARGEST + b"}",
        outdated(release(1, "b1"), "evil 1 2", number=1).to_json(),
        outdated(release(1, "other"), "evil 1 2", number=2).to_json(),
        outdated(release(1, "b1"), "evil 1 2", number=2).to_json().replace(b'ma": 1', b'ma": 9'),
    ],
    ids=["empty", "no fields", "deep", "large", "another", "of another build", "newer schema"],
)
def test_a_damaged_record_harms_itself_alone(store, data):
    publish_by_hand(store, manifest())
    before = read(store)
    put_outdated(store, outdated(release(), "openssl 1 2"))
    key = OutdatedKey(name=IMAGE[0], arch=IMAGE[1], revision=1, number=2)
    put(store, str(key), data)
    for look in (read, survey):
        state = look(store)
        assert state.outdated == {IMAGE: (key, None)}
        assert (state.releases, state.damaged) == (before.releases, {})
        assert state.current(*IMAGE) == before.current(*IMAGE)
    assert (str(key) in store.gets) == (len(data) <= LARGEST)
    assert outlined(store).newest(*IMAGE) == 1


def test_records_are_read_once_and_never_for_a_plan(store):
    publish_by_hand(store, manifest())
    made = outdated(release(), "openssl 1 2")
    put_outdated(store, made)
    outlined(store)
    assert str(made.key) not in store.gets
    for look in (read, survey, outlined, read):
        look(store)
    put_release(store, release(2, manifest()))
    outlined(store)
    read(store)
    assert store.gets.count(str(made.key)) == 1
    # Another release is current.
    survey(store)
    assert str(made.key).encode() in store.get(CACHE).data
    put_release(store, release(3, manifest()))
    survey(store)
    assert str(made.key).encode() not in store.get(CACHE).data


def test_a_record_that_somebody_changed_is_read_again(store):
    publish_by_hand(store, manifest())
    made = outdated(release(), "openssl 1 2")
    put_outdated(store, made)
    read(store)
    overwrite(store, str(made.key), outdated(release(), "openssl 1 3").to_json())
    assert newest(store) == (1, ["openssl 1 3"])


def test_a_retired_revision_is_not_current_and_has_no_record_that_counts(store):
    publish_by_hand(store, manifest())
    put_outdated(store, outdated(release(), "openssl 1 2"))
    put(store, copy_of(manifest()).retirement, b"{}")
    assert read(store).outdated == {}
