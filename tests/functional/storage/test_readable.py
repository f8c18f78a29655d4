"""Objects that can be looked at and not read."""

import errno
import os
from pathlib import Path

import pytest

from lago_images.errors import NotFoundError, StorageError, UnreadableError
from lago_images.storage.base import Store
from lago_images.storage.directory.store import DirectoryStore
from tests.functional.storage.conftest import ALL, s3_store
from tests.servers.model import Server
from tests.servers.proxy import Fault, FaultProxy


@pytest.mark.parametrize("place", [*ALL, "overlay", "overlaid"], indirect=True)
def test_readable_objects_pass_and_missing_ones_raise_not_found(store: Store) -> None:
    store.put("empty", b"", expected=None)
    store.put("full", b"12", expected=None)
    for key in ("empty", "full"):
        store.check_readable(key)
    with pytest.raises(NotFoundError):
        store.check_readable("none")


@pytest.mark.parametrize(
    ("status", "code", "repair"),
    [
        (403, "InvalidObjectState", "restore"),
        (403, "AccessDenied", "kms:Decrypt"),
        (403, "Forbidden", "s3:GetObject"),
        (400, "KMS.DisabledException", "enable the KMS key"),
    ],
)
def test_an_object_with_head_allowed_and_get_refused_is_unreadable(
    ceph20: Server, status: int, code: str, repair: str
) -> None:
    bucket = ceph20.new_bucket()
    s3_store(ceph20, bucket).put("k", b"data", expected=None)

    with FaultProxy(ceph20.endpoint) as proxy:
        proxy.plan = lambda each: Fault(answer=status, code=code) if each.method == "GET" else None
        store = s3_store(ceph20.through(proxy.endpoint), bucket)
        assert store.head("k").size == 4
        with pytest.raises(UnreadableError, match=code) as refused:
            store.check_readable("k")
        assert repair in (refused.value.hint or "")
        assert proxy.requests[-1].headers["range"] == "bytes=0-0"


def test_a_failing_store_is_not_reported_as_unreadable(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    with FaultProxy(ceph20.endpoint, lambda _: Fault(answer=503)) as proxy:
        store = s3_store(ceph20.through(proxy.endpoint), bucket)
        with pytest.raises(StorageError, match="503") as failed:
            store.check_readable("k")
    assert not isinstance(failed.value, UnreadableError)


def test_a_file_without_read_permission_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(path=tmp_path)
    store.put("k", b"data", expected=None)
    opened = os.open

    def refuse(path, *arguments, **options) -> int:
        if Path(path).name == "k":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(UnreadableError, match="Permission denied") as refused:
        store.check_readable("k")
    assert "the right to read" in (refused.value.hint or "")
