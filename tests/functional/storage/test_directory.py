"""What only a directory can get wrong, and how a URL becomes a store."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lago_images.console import Console
from lago_images.errors import ConflictError, NotFoundError, StorageError, UsageError
from lago_images.settings import Settings
from lago_images.storage.directory.files import PRIVATE
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.open import open_store
from lago_images.storage.s3.store import S3Store
from tests.tools import cannot


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../out", "a/../../out", "a//b", "a/./b", "a/", ".lago-images/lock"]
)
def test_keys_cannot_leave_the_directory(tmp_path: Path, key: str) -> None:
    store = DirectoryStore(path=tmp_path / "store")
    with pytest.raises(StorageError, match="cannot be a key"):
        store.put(key, b"", expected=None)
    with pytest.raises(StorageError, match="cannot be a key") as refused:
        store.get(key)
    assert not isinstance(refused.value, NotFoundError)


def test_symbolic_links_out_of_the_directory_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    store = DirectoryStore(path=tmp_path / "store")
    store.put("k", b"", expected=None)
    (store.path / "folder").symlink_to(outside)
    (store.path / "file").symlink_to(outside / "secret")
    for key in ("folder/secret", "file", "folder/new"):
        with pytest.raises(StorageError, match="symbolic link"):
            store.get(key)
        with pytest.raises(StorageError, match="symbolic link"):
            store.upload(key, [b"x"])
        with pytest.raises(StorageError, match="symbolic link"):
            store.delete([key])
    assert [stat.key for stat in store.list()] == ["k"]
    assert (outside / "secret").read_text() == "s"
    assert not list(store.unfinished())


@pytest.mark.parametrize("root", ["images", "releases"])
@pytest.mark.parametrize("below", ["", "/a", "/a/1.json"])
@pytest.mark.parametrize("prefix", ["", "/", "/a/"])
def test_an_object_behind_a_refused_link_is_not_reported_as_missing(
    tmp_path: Path, root: str, below: str, prefix: str
) -> None:
    link, prefix = root + below, root + prefix if prefix else ""
    store = DirectoryStore(path=tmp_path / "store")
    store.put(f"{root}/a/1.json", b"1", expected=None)
    store.put("builds/a/manifest.json", b"1", expected=None)
    (store.path / link).rename(tmp_path / "moved")
    (store.path / link).symlink_to(tmp_path / "moved")
    with pytest.raises(StorageError, match=f"{link} is a symbolic link") as refused:
        list(store.list(prefix))
    assert not isinstance(refused.value, NotFoundError)
    assert refused.value.hint
    with pytest.raises(StorageError, match=f"{link} is a symbolic link"):
        store.sizes(f"{root}/", [f"{root}/a/1.json"])
    assert [stat.key for stat in store.list("builds/")] == ["builds/a/manifest.json"]


def test_links_beside_the_repositorys_folders_are_ignored(tmp_path: Path) -> None:
    store = DirectoryStore(path=tmp_path / "store")
    store.put("builds/k", b"1", expected=None)
    (store.path / "own").mkdir()
    for name in ("link", "own/link", "releases.old"):
        (store.path / name).symlink_to(tmp_path)
    assert [stat.key for stat in store.list()] == ["builds/k"]
    assert list(store.list("releases/")) == []


def test_the_root_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    store = DirectoryStore(path=tmp_path / "link")
    store.put("a/k", b"1", expected=None)
    assert store.get("a/k").data == b"1"


def test_reading_a_missing_directory_is_empty_and_creates_nothing(tmp_path: Path) -> None:
    store = DirectoryStore(path=tmp_path / "none")
    assert list(store.list()) == []
    assert list(store.unfinished()) == []
    store.delete(["k"])
    with pytest.raises(NotFoundError):
        store.head("k")
    assert not store.path.exists()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = DirectoryStore(path=tmp_path / "file")
    with pytest.raises(StorageError):
        list(store.list())
    with pytest.raises(StorageError):
        store.put("k", b"", expected=None)


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        # root may write anywhere; a file in the way is as unwritable for it.
        (tmp_path / ".lago-images").write_text("")
    else:
        tmp_path.chmod(0o555)
    store = DirectoryStore(path=tmp_path)
    with pytest.raises(StorageError, match="writing k in") as failed:
        store.put("k", b"", expected=None)
    assert failed.value.hint


def test_a_full_disk_is_reported_and_leaves_no_file() -> None:
    full = Path("/dev/shm/lago-images-test-full")
    if os.geteuid() != 0:
        cannot("mounting a small file system needs root")
    full.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", full], check=False)
    if mounted.returncode:
        full.rmdir()
        cannot("mounting is not permitted here")
    try:
        store = DirectoryStore(path=full)
        etag = store.put("k", b"old", expected=None)
        with pytest.raises(StorageError, match="No space left") as failed:
            store.upload("big", (b"x" * 65536 for _ in range(64)))
        assert "gc" in (failed.value.hint or "")
        with pytest.raises(StorageError, match="No space left"):
            store.put("k", b"x" * 2**21, expected=etag)
        assert store.get("k").data == b"old"
        assert [stat.key for stat in store.list()] == ["k"]
        assert not list(store.unfinished())
    finally:
        subprocess.run(["umount", full], check=True)
        full.rmdir()


def test_a_killed_upload_is_listed_and_can_be_aborted(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from lago_images.storage.directory.store import DirectoryStore\n"
        "def chunks():\n"
        "    yield b'half'\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "DirectoryStore(path=Path(sys.argv[1])).upload('builds/x/disk', chunks())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    store = DirectoryStore(path=tmp_path)
    (upload,) = store.unfinished()
    assert upload.key == "builds/x/disk"
    assert not list(store.list())
    store.abort(upload)
    store.abort(upload)
    assert not list(store.unfinished())


def test_a_publisher_removes_only_the_temporary_files_of_killed_writers(tmp_path: Path) -> None:
    store = DirectoryStore(path=tmp_path, clock_ns=lambda: time.time_ns() + 120 * 10**9)
    dead = tmp_path / PRIVATE / "uploads" / "dead" / "builds" / "x"
    dead.mkdir(parents=True)
    (dead / "disk").write_bytes(b"half")

    def chunks() -> Iterator[bytes]:
        yield b"half"
        assert {upload.key for upload in store.unfinished()} == {"builds/x/disk", "k"}
        store.ensure_safe_writes(single_writer=False, console=Console(quiet=True))
        assert [upload.key for upload in store.unfinished()] == ["k"]
        yield b" and half"

    store.upload("k", chunks())
    assert store.get("k").data == b"half and half"
    assert not list(store.unfinished())


def test_a_recent_unfinished_upload_is_kept(tmp_path: Path) -> None:
    """Its writer may not have its lock yet; one that had it and has it no more is dead."""
    for name in ("begun-young", "dead"):
        folder = tmp_path / PRIVATE / "uploads" / name
        folder.mkdir(parents=True)
        (folder / name).write_bytes(b"half")
    store = DirectoryStore(path=tmp_path)
    store.prove_writable()
    assert [upload.key for upload in store.unfinished()] == ["begun-young"]
    later = DirectoryStore(path=tmp_path, clock_ns=lambda: time.time_ns() + 61 * 10**9)
    later.prove_writable()
    assert list(store.unfinished()) == []


def test_etags_differ_when_the_clock_does_not_advance(tmp_path: Path) -> None:
    store = DirectoryStore(path=tmp_path, clock_ns=lambda: 1_000_000_000)
    etags = [store.put("k", b"0", expected=None)]
    for number in range(1, 20):
        etags.append(store.put("k", b"%d" % (number % 10), expected=etags[-1]))
    assert len(set(etags)) == 20


def test_objects_are_created_once_on_a_file_system_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    store = DirectoryStore(path=tmp_path)
    store.put("k", b"1", expected=None)
    with pytest.raises(ConflictError):
        store.put("k", b"2", expected=None)
    assert store.get("k").data == b"1"


def test_deleting_removes_empty_folders(tmp_path: Path) -> None:
    store = DirectoryStore(path=tmp_path)
    for key in ("a/b/c", "a/d"):
        store.put(key, b"", expected=None)
    store.delete(["a/b/c"])
    assert not (tmp_path / "a/b").exists()
    store.delete(["a/d"])
    assert {path.name for path in tmp_path.iterdir()} == {PRIVATE}


def _open(url: str, folder: Path, *, single_writer: bool = False):
    environ = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    settings = Settings(folder=folder, single_writer=single_writer)
    return open_store(url, settings=settings, environ=environ, console=Console(quiet=True))


def test_accepted_urls_name_the_directory(tmp_path: Path) -> None:
    assert _open("./image-repo", tmp_path).url == str(tmp_path / "image-repo")
    assert _open("/srv/a b", tmp_path).url == "/srv/a b"
    assert _open("file:///srv/a%20b", tmp_path).url == "/srv/a b"
    assert _open("s3://bucket/pre/fix/", tmp_path).url == "s3://bucket/pre/fix"
    store = _open("s3://bucket", tmp_path, single_writer=True)
    assert isinstance(store, S3Store)
    assert store.single_writer


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3://",
        "s3:///x",
        "s3://b c/x",
        "s3://bucket/a/../b",
        "file://host/x",
        "ftp://x/y",
        "https://bucket.example.com/",
    ],
)
def test_invalid_urls_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError) as refused:
        _open(url, tmp_path)
    assert refused.value.hint
