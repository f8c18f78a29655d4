"""Keys that others chose: listed, never followed, and no obstacle to the rest."""

import os
from pathlib import Path

import pytest

from lago_images.errors import NotFoundError, StorageError
from lago_images.storage.base import Store, check_key
from lago_images.storage.directory.store import DirectoryStore
from tests.functional.storage.conftest import s3_store
from tests.servers.proxy import FaultProxy

BAD = [
    "builds/a\x01b/m",
    "builds/a\nb",
    "builds/\x7f",
    "builds/\x9b31m",
    "builds/../releases/x",
    "builds/./x",
    "builds//x",
    "builds/x/",
    "builds/..",
    "/builds/x",
    "",
    "builds/" + "x" * 1020,
    "builds/\udcff",
]
GOOD = ["builds/a/1", "builds/z/1"]


@pytest.mark.parametrize("key", BAD)
def test_invalid_keys_are_refused(key: str) -> None:
    with pytest.raises(StorageError, match="cannot be a key") as refused:
        check_key(key)
    assert len(refused.value.message) < 500
    assert refused.value.message.isprintable()


def refuses(store: Store, key: str) -> None:
    for call in (store.head, store.get, store.check_readable, lambda key: list(store.read(key))):
        with pytest.raises(StorageError, match="cannot be a key") as refused:
            call(key)
        assert not isinstance(refused.value, NotFoundError)


def clears_the_rest(store: Store, bad: list[str]) -> None:
    """Delete in one batch what may be, with the bad keys first and in between."""
    for key in GOOD:
        store.put(key, b"", expected=None)
    assert {*GOOD, *bad} <= {stat.key for stat in store.list("builds/")}
    with pytest.raises(StorageError, match=rf"cannot be a key.* \(and {len(bad) - 1} more\)"):
        store.delete([*bad[:2], GOOD[0], *bad[2:], GOOD[1]])
    assert {stat.key for stat in store.list("builds/")} == {*bad}


@pytest.mark.parametrize("name", ["ceph20", "ceph18", "moto"])
def test_invalid_keys_listed_by_a_bucket_are_never_requested(
    request: pytest.FixtureRequest, name: str
) -> None:
    server = request.getfixturevalue(name)
    bucket = server.new_bucket()
    bad = [key for key in BAD[:8] if name != "moto" or "\n" not in key]
    for key in bad:
        server.client().put_object(Bucket=bucket, Key=f"some/prefix/{key}", Body=b"")
    with FaultProxy(server.endpoint) as proxy:
        store = s3_store(server.through(proxy.endpoint), bucket)
        for key in bad:
            refuses(store, key)
        assert proxy.requests == []
        clears_the_rest(store, bad)
        asked = {each.target.partition("?")[0] for each in proxy.requests}
    assert asked == {f"/{bucket}", *(f"/{bucket}/some/prefix/{key}" for key in GOOD)}


def test_invalid_names_in_a_directory_are_never_opened(tmp_path: Path) -> None:
    store = DirectoryStore(path=tmp_path)
    bad = ["builds/a\x01b/m", "builds/a\nb", "builds/\udcff"]
    for key in bad:
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(os.fsdecode(os.fsencode(path))).write_bytes(b"")
        refuses(store, key)
    clears_the_rest(store, bad)


def test_a_failed_delete_does_not_keep_others_from_being_deleted(tmp_path: Path) -> None:
    store = DirectoryStore(path=tmp_path)
    for key in GOOD:
        store.put(key, b"", expected=None)
    (tmp_path / "builds/folder/in").mkdir(parents=True)
    with pytest.raises(StorageError, match="deleting builds/folder"):
        store.delete([GOOD[0], "builds/folder", GOOD[1]])
    assert list(store.list()) == []
