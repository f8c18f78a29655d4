"""What ``storage.base.Store`` promises, on every store."""

import hashlib
import json
import os
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lago_images.errors import ConflictError, NotFoundError, StorageError
from lago_images.storage.base import Headers, Store
from lago_images.storage.s3 import download
from lago_images.storage.s3.store import S3Store
from tests.functional.storage.conftest import ALL, ATOMIC, PART, Place
from tests.servers.model import Server

everywhere = pytest.mark.parametrize("place", ALL, indirect=True)
where_atomic = pytest.mark.parametrize("place", ATOMIC, indirect=True)

ODD_KEYS = [
    "a b",
    "a+b",
    "a%2Fb",
    "a&b=c",
    "ü/ñ",
    "日本",
    "q?x#y",
    "it's(1)!*~",
    "a..b/.hidden",
    "a-b/x",
    "a/b/c",
]


@everywhere
def test_put_creates_an_object_once(store: Store) -> None:
    etag = store.put("k", b"one", expected=None)
    with pytest.raises(ConflictError):
        store.put("k", b"two", expected=None)
    blob = store.get("k")
    assert (blob.data, blob.etag, blob.key) == (b"one", etag, "k")


@everywhere
def test_put_replaces_only_the_expected_version(store: Store) -> None:
    first = store.put("k", b"one", expected=None)
    second = store.put("k", b"two", expected=first)
    assert second != first
    with pytest.raises(ConflictError):
        store.put("k", b"three", expected=first)
    assert store.get("k").data == b"two"
    assert store.put("k", b"three", expected=store.head("k").etag) == store.get("k").etag


@everywhere
def test_put_does_not_replace_a_deleted_object(store: Store) -> None:
    etag = store.put("k", b"one", expected=None)
    store.delete(["k"])
    with pytest.raises(ConflictError):
        store.put("k", b"two", expected=etag)
    with pytest.raises(NotFoundError):
        store.get("k")


@everywhere
def test_etags_agree_between_requests_and_differ_between_versions(store: Store) -> None:
    seen = set()
    etag = None
    for number in range(5):
        etag = store.put("k", b"%d" % number, expected=etag)
        assert etag == store.head("k").etag == store.get("k").etag
        assert [stat.etag for stat in store.list()] == [etag]
        seen.add(etag)
    assert len(seen) == 5


@everywhere
def test_a_missing_object_raises_not_found(store: Store) -> None:
    store.put("folder/k", b"", expected=None)
    for key in ("none", "folder", "folder/k/deeper", "folder/none"):
        with pytest.raises(NotFoundError):
            store.get(key)
        with pytest.raises(NotFoundError):
            store.head(key)
        with pytest.raises(NotFoundError):
            list(store.read(key))
    store.delete(["none", "folder/none"])


@everywhere
def test_keys_with_unusual_characters_are_stored(place: Place, store: Store) -> None:
    keys = [key for key in ODD_KEYS if not (place.name == "rclone" and key == "a/b/c")]
    for key in keys:
        store.put(key, key.encode(), expected=None)
    listed = [stat.key for stat in store.list()]
    assert listed == sorted(keys, key=str.encode)
    for key in keys:
        assert store.get(key).data == key.encode()
        assert store.head(key).size == len(key.encode())
    store.delete(keys)
    assert list(store.list()) == []


@everywhere
def test_list_returns_the_keys_below_a_prefix(store: Store) -> None:
    for key in ("a/1", "a/2", "ab/1", "b"):
        store.put(key, key.encode(), expected=None)
    assert [stat.key for stat in store.list("a/")] == ["a/1", "a/2"]
    assert [stat.key for stat in store.list("a")] == ["a/1", "a/2", "ab/1"]
    assert [stat.key for stat in store.list("none")] == []
    (stat,) = store.list("b")
    assert stat.size == 1
    assert abs(stat.modified - time.time()) < 120


@pytest.mark.parametrize("place", ["directory", "ceph20"], indirect=True)
def test_list_returns_more_than_one_page(store: Store) -> None:
    keys = [f"k/{number:04}" for number in range(1001)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.put(key, b"", expected=None), keys))
    assert [stat.key for stat in store.list()] == keys
    store.delete(keys)
    assert list(store.list()) == []


@everywhere
def test_listing_in_parts_equals_listing_at_once(store: Store) -> None:
    keys = [f"l/{first}/{second}" for first in "abcä" for second in range(3)] + ["m"]
    for key in keys:
        store.put(key, b"", expected=None)
    whole = [stat.key for stat in store.list("l/")]
    assert whole == sorted(keys[:-1])
    for marks in (["l/b/"], ["l/b/1", "l/c/"], ["l/0", "l/a/", "l/b/0", "l/b/0x", "l/z", "l/ä/2"]):
        assert [stat.key for stat in store.list("l/", marks=marks)] == whole


@everywhere
def test_what_is_not_looked_at_hides_nothing_else(store: Store) -> None:
    for key in ("l/a/1", "l/a/2", "l/a-b/1", "l/b/a/1", "m"):
        store.put(key, b"", expected=None)
    listed = {stat.key for stat in store.list("l/", without={"l/a/", "l/c/"})}
    assert {"l/a-b/1", "l/b/a/1"} <= listed <= {"l/a-b/1", "l/b/a/1", "l/a/1", "l/a/2"}


@everywhere
def test_sizes_are_of_the_objects_that_are_there(store: Store) -> None:
    for key in ("l/a/1", "l/a/2", "l/b", "m/a"):
        store.put(key, b"x" * len(key), expected=None)
    wanted = ["l/a", "l/a/1", "l/a/3", "l/b", "l/b/1", "l/c/1"]
    assert store.sizes("l/", wanted) == {"l/a/1": 5, "l/b": 3}
    assert store.sizes("l/", []) == {}


@where_atomic
def test_one_of_many_concurrent_creators_wins(place: Place) -> None:
    for number in range(3):
        won = _at_once(
            16, lambda store, me, key=f"k{number}": store.put(key, b"%d" % me, expected=None), place
        )
        assert won.count(True) == 1
        assert place.open().get(f"k{number}").data == b"%d" % won.index(True)


@where_atomic
def test_one_replacer_wins_among_concurrent_creators_and_replacers(place: Place) -> None:
    """Also while an object is being replaced it exists, so no creator may win."""
    for number in range(3):
        key = f"both{number}"
        etag = place.open().put(key, b"before", expected=None)

        def write(store: Store, me: int, key: str = key, etag: str = etag) -> None:
            store.put(key, b"%d" % me, expected=etag if me % 2 else None)

        won = _at_once(16, write, place)
        assert won.count(True) == 1
        assert won.index(True) % 2 == 1
        assert place.open().get(key).data == b"%d" % won.index(True)


@where_atomic
def test_concurrent_increments_are_not_lost(place: Place) -> None:
    place.open().put("n", b"0", expected=None)

    def increment(store: Store, _me: int) -> None:
        done = 0
        while done < 6:
            blob = store.get("n")
            plain = json.dumps(int(blob.data) + 1).encode()
            try:
                store.put("n", plain, expected=blob.etag)
            except ConflictError:
                continue
            done += 1

    assert _at_once(8, increment, place) == [True] * 8
    assert place.open().get("n").data == b"48"


def _at_once(count: int, work, place: Place) -> list[bool]:
    """Whether each of so many writers, each with a store of its own, met no conflict."""
    stores = [place.open() for _ in range(2)]
    start = threading.Barrier(count)

    def one(me: int) -> bool:
        start.wait()
        try:
            work(stores[me % len(stores)], me)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@everywhere
@pytest.mark.parametrize("size", [0, 1, 70_000, PART, 2 * PART + 1])
def test_a_stream_is_uploaded(store: Store, size: int) -> None:
    data = os.urandom(size)
    seen = []
    pieces = (data[at : at + 900_001] for at in range(0, size, 900_001))
    done = store.upload("big", pieces, advance=seen.append)
    assert (done.key, done.size, done.sha256) == ("big", size, hashlib.sha256(data).hexdigest())
    assert sum(seen) == size
    assert b"".join(store.read("big")) == data
    assert store.head("big").size == size
    assert not list(store.unfinished())


@everywhere
@pytest.mark.parametrize("good", [0, 3 * PART])
def test_a_failing_stream_leaves_no_object(store: Store, good: int) -> None:
    def stream():
        for _ in range(good // PART):
            yield b"x" * PART
        raise RuntimeError("the compressor died")

    with pytest.raises(RuntimeError, match="the compressor died"):
        store.upload("big", stream())
    assert not list(store.list())
    assert not list(store.unfinished())


@everywhere
def test_read_starts_at_any_offset(store: Store) -> None:
    store.put("k", b"0123456789", expected=None)
    assert b"".join(store.read("k", start=4)) == b"456789"
    assert b"".join(store.read("k", start=10)) == b""


@everywhere
@pytest.mark.parametrize("size", [0, 1, PART, 2 * PART + 17])
def test_download_writes_the_object_to_a_file(
    store: Store, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SAVED_PIECE", PART)
    data, path, seen = os.urandom(size), tmp_path / "file", []
    store.upload("big", [data])
    path.write_bytes(b"older, and longer" * size)
    store.download("big", path, advance=seen.append)
    assert path.read_bytes() == data
    assert sum(seen) == size
    with pytest.raises(NotFoundError):
        store.download("none", path)
    with pytest.raises(StorageError, match="No such file or directory"):
        store.download("big", tmp_path / "nowhere" / "file")


@pytest.mark.parametrize("place", ["ceph20", "ceph18", "swift"], indirect=True)
def test_clients_get_the_stored_headers(store: S3Store) -> None:
    headers = Headers(content_type="application/x-xz", cache_control="public, max-age=7")
    store.put("small", b"s", expected=None, headers=headers)
    store.upload("stream", [b"x" * PART, b"y"], headers=headers)
    for key in ("small", "stream"):
        assert store.head(key).headers == store.get(key).headers == headers
        url = store.bucket.small.generate_presigned_url(
            "get_object", Params={"Bucket": store.bucket.name, "Key": store.bucket.key(key)}
        )
        with urllib.request.urlopen(url) as answer:
            assert answer.headers["Content-Length"] == str(store.head(key).size)
            assert answer.headers["Content-Type"] == "application/x-xz"
            assert answer.headers["Cache-Control"] == "public, max-age=7"


@pytest.mark.parametrize("place", ["ceph20", "ceph18", "swift"], indirect=True)
def test_unfinished_uploads_are_listed_and_aborted(store: S3Store) -> None:
    ids = {
        key: store.bucket.small.create_multipart_upload(
            Bucket=store.bucket.name, Key=store.bucket.key(key)
        )["UploadId"]
        for key in ("a", "b/c")
    }
    found = {upload.key: upload for upload in store.unfinished()}
    assert {key: upload.upload_id for key, upload in found.items()} == ids
    assert all(abs(upload.begun - time.time()) < 120 for upload in found.values())
    assert [upload.key for upload in store.unfinished("b/")] == ["b/c"]
    for upload in found.values():
        store.abort(upload)
        store.abort(upload)
    assert not list(store.unfinished())
    assert not list(store.list())


def test_stores_of_different_prefixes_are_separate(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    one, two = (S3Store.open(bucket, name, environ=ceph20.environ) for name in ("p", "pq"))
    one.put("k", b"1", expected=None)
    two.put("k", b"2", expected=None)
    assert [stat.key for stat in one.list()] == ["k"]
    assert one.get("k").data == b"1"
    assert one.url == f"s3://{bucket}/p"
