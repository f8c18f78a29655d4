"""Who records what is outdated, beside others who do; and what is rendered of it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lago_images.errors import ConflictError, RepositoryError
from lago_images.repository.publishing import outdated as recording
from lago_images.repository.publishing.pages import read_pages, write_pages
from lago_images.repository.records.changes import (
    PackageChanges,
    Upstream,
    VersionChange,
)
from lago_images.repository.records.layout import ImageId, OutdatedKey
from lago_images.repository.records.outdated import Outdated
from lago_images.repository.records.state import read
from lago_images.repository.rendering.render import render
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import (
    SITE,
    layer_on,
    manifest,
    outdated,
    publish_by_hand,
    publisher,
    put,
    put_outdated,
    put_release,
    release,
)

IMAGE = ImageId("debian-12", "x86_64")
FOLDER = "releases/debian-12/x86_64/outdated/"
LATEST = "latest/debian-12.x86_64.json"


@pytest.fixture
def store(tmp_path):
    store = DirectoryStore(path=tmp_path)
    publish_by_hand(store, manifest())
    return store


def found(*versions):
    upgraded = tuple(VersionChange(name="openssl", old="1", new=new) for new in versions)
    return Upstream(packages=PackageChanges(added=(), removed=(), upgraded=upgraded))


def record(store, upstream, *, state=None, now=1_700_000_500.5):
    state = state or read(store)
    return recording.record(store, state, state.current(*IMAGE), upstream, now)


def recorded(store):
    """The records, by number, as what they say of openssl."""
    keys = sorted(stat.key for stat in store.list(FOLDER))
    texts = {}
    for name in keys:
        key = OutdatedKey(name=IMAGE[0], arch=IMAGE[1], revision=1, number=int(name.split(".")[-2]))
        texts[key.number] = Outdated.parse(store.get(name).data, key).upstream.texts
    return texts


def test_what_is_found_is_recorded_once(store):
    made = record(store, found("2"))
    assert (str(made.key), made.build, made.upstream.found) == (
        f"{FOLDER}1.1.json",
        "b1",
        1_700_000_500,
    )
    assert record(store, found("2"), now=1_700_009_000) is None
    assert recorded(store) == {1: ["openssl 1 → 2"]}


def test_other_findings_get_the_next_number_and_nothing_found_takes_the_mark_away(store):
    assert record(store, found()) is None
    for upstream in (found("2"), found("3"), found(), found(), found("3")):
        record(store, upstream)
    assert recorded(store) == {
        1: ["openssl 1 → 2"],
        2: ["openssl 1 → 3"],
        3: [],
        4: ["openssl 1 → 3"],
    }


def test_two_publishers_that_find_the_same_at_once_leave_one_record(store):
    state = read(store)
    assert record(store, found("2"), state=state)
    assert record(store, found("2"), state=state, now=1_700_000_900) is None
    assert recorded(store) == {1: ["openssl 1 → 2"]}


def test_two_publishers_that_find_different_things_leave_two(store):
    state = read(store)
    first = record(store, found("2"), state=state)
    second = record(store, found("3"), state=state, now=1_700_000_900)
    assert recorded(store) == {1: ["openssl 1 → 2"], 2: ["openssl 1 → 3"]}
    assert second.upstream.since == first.upstream.since


def test_many_publishers_at_once_leave_one_record(store):
    state = read(store)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: record(store, found("2"), state=state), range(8)))
    assert len([one for one in made if one]) == 1
    assert recorded(store) == {1: ["openssl 1 → 2"]}


class LosingAnswers(DirectoryStore):
    """Writes, and then says that somebody else had."""

    def put(self, key, data, **more):
        super().put(key, data, **more)
        raise ConflictError(key)


def test_a_write_whose_answer_was_lost_is_not_made_twice(store):
    assert record(LosingAnswers(path=store.path), found("2"), state=read(store)) is None
    assert recorded(store) == {1: ["openssl 1 → 2"]}


class Taken(DirectoryStore):
    """Where every number is taken, by what cannot be read."""

    def put(self, key, data, **more):
        raise ConflictError(key)


def test_who_never_gets_a_number_says_so(store):
    with pytest.raises(RepositoryError, match="20 records in a row"):
        record(Taken(path=store.path), found("2"), state=read(store))


def test_a_damaged_record_is_followed_by_a_good_one(store):
    put(store, f"{FOLDER}1.1.json", b"{}")
    assert record(store, found()) is None
    assert record(store, found("2")).number == 2
    assert read(store).outdated[IMAGE][1].upstream.texts == ["openssl 1 → 2"]


def rendered(store):
    return publisher(store).refresh(wait=lambda _attempt: None).written


def test_a_record_changes_the_documents_and_the_image_and_nothing_else(store):
    base = manifest("base")
    publish_by_hand(store, base, manifest("on-base", base=layer_on(base)), manifest("other"))
    rendered(store)
    state = read(store)
    recording.record(store, state, state.current("base", "x86_64"), found("2"), 1.0)
    changed = {
        "catalogue/base.html",
        "latest/base.x86_64.json",
        "images.json",
        "SHA256SUMS",
        "index.html",
    }
    assert set(rendered(store)) == changed
    assert rendered(store) == ()


def test_a_new_revision_takes_the_mark_away(store):
    record(store, found("2"))
    rendered(store)
    assert b"outdated" in store.get("index.html").data.split(b"</style>")[1].split(b"<script>")[0]
    put_release(store, release(2, manifest()))
    assert read(store).outdated == {}
    rendered(store)
    body = store.get("index.html").data.split(b"</style>")[1].split(b"<script>")[0]
    assert b"outdated" not in body
    assert b'"upstream": null' in store.get(LATEST).data


@pytest.mark.parametrize("name", ["index.html", LATEST, "images.json"])
def test_files_of_any_two_sets_of_records_differ(store, name):
    """Else a slower publisher that lists less could change a file back."""
    seen = []
    for number, upstream in enumerate((None, found("2"), found(), found("2"), "damaged")):
        if upstream == "damaged":
            put(store, f"{FOLDER}1.{number}.json", b"{}")
        elif upstream:
            assert record(store, upstream).number == number
        rendered(store)
        seen.append(store.get(name).data)
    assert len(set(seen)) == 5


def test_a_slower_publisher_does_not_bring_back_what_is_no_longer_so(store):
    rendered(store)
    slow = publisher(store)
    with_one = outdated(release(), "openssl 1 2")
    put_outdated(store, with_one)

    overtaken = []
    original = store.list

    class Slow(DirectoryStore):
        def list(self, prefix="", **more):
            stats = list(original(prefix, **more))
            if prefix == "releases/" and not overtaken:
                record(store, found())
                rendered(store)
            return iter(stats)

    publisher(Slow(path=store.path)).refresh(wait=overtaken.append)
    assert overtaken == [0]
    assert slow.refresh(wait=lambda _attempt: None).written == ()
    assert b'"since": null' in store.get(LATEST).data


def test_a_slower_publisher_never_writes_a_document_of_an_older_list(store):
    """No other file need stop it: it may die after this one."""
    rendered(store)
    before = read_pages(store)
    put_outdated(store, outdated(release(), "openssl 1 2"))
    older = render(read(store), SITE).pages[LATEST]
    # Of this one the document says what it said when nothing was recorded.
    put(store, f"{FOLDER}1.2.json", b"{}")
    rendered(store)
    newer = store.get(LATEST).data
    with pytest.raises(ConflictError):
        write_pages(store, before, {LATEST: older})
    assert store.get(LATEST).data == newer
