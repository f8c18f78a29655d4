"""What breaks on the way between us and the store."""

import hashlib
import os
from pathlib import Path

import pytest

from lago_images.errors import ConflictError, NotFoundError, StorageError
from lago_images.host.retry import RetryPolicy
from lago_images.storage.s3 import download
from lago_images.storage.s3.bucket import open_bucket
from lago_images.storage.s3.download import PIECE
from lago_images.storage.s3.store import S3Store
from tests.functional.storage.conftest import PART, QUICK, overwrite, s3_store
from tests.servers.model import Server
from tests.servers.processes import free_port
from tests.servers.proxy import Fault, FaultProxy

FAULTS = {
    "reset": Fault(reset=True),
    "dropped": Fault(drop=True),
    "500": Fault(answer=500),
    "503": Fault(answer=503),
    "429": Fault(answer=429),
}


def _once(at: int, fault: Fault):
    return lambda request: fault if request.number == at else None


@pytest.mark.parametrize(
    ("server_name", "fault_name"),
    [*(("ceph20", name) for name in FAULTS), ("ceph18", "dropped"), ("ceph18", "500")],
)
def test_every_operation_survives_the_failure_of_any_request(
    request: pytest.FixtureRequest, server_name: str, fault_name: str
) -> None:
    fault = FAULTS[fault_name]
    server = request.getfixturevalue(server_name)
    bucket = server.new_bucket()
    data = os.urandom(PART + 1)

    def work(store: S3Store, root: str) -> None:
        etag = store.put(f"{root}/small", b"same", expected=None)
        with pytest.raises(ConflictError):
            store.put(f"{root}/small", b"same", expected=None)
        etag = store.put(f"{root}/small", b"two", expected=etag)
        done = store.upload(f"{root}/big", [data])
        assert done.sha256 == hashlib.sha256(data).hexdigest()
        assert b"".join(store.read(f"{root}/big")) == data
        assert [stat.key for stat in store.list(root)] == [f"{root}/big", f"{root}/small"]
        assert store.get(f"{root}/small").etag == store.head(f"{root}/small").etag == etag
        store.delete([f"{root}/big", f"{root}/small"])
        with pytest.raises(NotFoundError):
            store.head(f"{root}/big")

    with FaultProxy(server.endpoint) as proxy:
        store = s3_store(server.through(proxy.endpoint), bucket)
        work(store, "none")
        usual = len(proxy.requests)
        assert usual > 12
        for number in range(1, usual + 1):
            proxy.plan = _once(len(proxy.requests) + number, fault)
            work(store, f"at-{number}")
        assert not list(store.list())
        # Of an upload whose very beginning lost its answer nobody knows the id: gc's work.
        assert len(list(store.unfinished())) <= (1 if fault.drop else 0)


def test_equal_bytes_of_another_writer_are_not_taken_for_our_write(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    other = s3_store(ceph20, bucket)

    def another_first() -> None:
        other.put("k", b"same bytes", expected=None)

    with FaultProxy(ceph20.endpoint) as proxy:
        store = s3_store(ceph20.through(proxy.endpoint), bucket)
        proxy.plan = _once(1, Fault(before=another_first, answer=500))
        with pytest.raises(ConflictError):
            store.put("k", b"same bytes", expected=None)


@pytest.mark.parametrize("cut", [0, 1, 700_000, PART])
def test_an_interrupted_download_is_resumed(ceph20: Server, cut: int) -> None:
    bucket = ceph20.new_bucket()
    data = os.urandom(PIECE + PART)
    s3_store(ceph20, bucket).upload("big", [data])
    with FaultProxy(ceph20.endpoint) as proxy:
        proxy.plan = lambda request: Fault(truncate=cut) if request.number <= 2 else None
        store = s3_store(ceph20.through(proxy.endpoint), bucket)
        assert b"".join(store.read("big")) == data
        assert len(proxy.requests) == 4


@pytest.mark.parametrize("cut", [0, 1, 700_000, PART])
def test_an_interrupted_range_is_downloaded_again(
    ceph20: Server, cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SAVED_PIECE", PIECE)
    bucket, path, seen = ceph20.new_bucket(), tmp_path / "file", []
    # Which of the later pieces is asked for first is not known: each is longer than a cut.
    data = os.urandom(2 * PIECE + PART + 1)
    s3_store(ceph20, bucket).upload("big", [data])
    with FaultProxy(ceph20.endpoint) as proxy:
        proxy.plan = lambda request: Fault(truncate=cut) if request.number in {1, 3} else None
        store = s3_store(ceph20.through(proxy.endpoint), bucket)
        store.download("big", path, advance=seen.append)
        assert len(proxy.requests) == 5
    assert path.read_bytes() == data
    assert sum(seen) == len(data)


def test_reading_never_mixes_two_versions(
    ceph20: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SAVED_PIECE", PART)
    bucket = ceph20.new_bucket()
    direct = s3_store(ceph20, bucket)
    direct.upload("big", [b"a" * (PART + 1)])
    once = iter([b"b" * (PART + 1)])

    def replace(_amount: int) -> None:
        for other in once:
            overwrite(direct, "big", other)

    with pytest.raises(StorageError, match="replaced while it was read"):
        s3_store(ceph20, bucket).download("big", tmp_path / "file", advance=replace)


def test_a_download_never_mixes_two_versions(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    direct = s3_store(ceph20, bucket)
    direct.upload("big", [b"a" * (PIECE + 1)])
    with FaultProxy(ceph20.endpoint) as proxy:
        reading = s3_store(ceph20.through(proxy.endpoint), bucket).read("big")
        next(reading)
        overwrite(direct, "big", b"b" * (PIECE + 1))
        with pytest.raises(StorageError, match="replaced while it was read"):
            list(reading)


def test_a_corrupted_upload_is_detected(ceph18: Server) -> None:
    """Something between us and the store that changes bytes, with checksums switched off."""
    store = s3_store(ceph18, ceph18.new_bucket())
    put = store.bucket.bulk.put_object

    def corrupt(**arguments):
        for name in ("ContentMD5", "ChecksumSHA256", "ChecksumAlgorithm"):
            arguments.pop(name)
        return put(**{**arguments, "Body": b"X" + arguments["Body"][1:]})

    class Wire:
        put_object = staticmethod(corrupt)
        head_object = store.bucket.bulk.head_object
        get_object = store.bucket.bulk.get_object

    store.bucket.bulk = Wire()  # type: ignore[assignment]
    with pytest.raises(StorageError, match="other bytes than were sent"):
        store.upload("k", [b"some bytes"])


def test_storage_errors_hint_at_what_to_set(ceph20: Server, tmp_path: Path) -> None:
    bucket = ceph20.new_bucket()

    def failing(environ: dict[str, str], name: str = bucket) -> tuple[str, str]:
        with pytest.raises(StorageError) as failed:
            S3Store.open(name, environ={**ceph20.environ, **environ}, retry=QUICK).get("k")
        assert not isinstance(failed.value, NotFoundError)
        return failed.value.message, failed.value.hint or ""

    message, hint = failing({}, "no-such-bucket-here")
    assert "404 NoSuchBucket" in message
    assert "create the bucket" in hint
    assert "AWS_SECRET_ACCESS_KEY" in failing({"AWS_SECRET_ACCESS_KEY": "wrong"})[1]
    assert "AWS_ACCESS_KEY_ID" in failing({"AWS_ACCESS_KEY_ID": "wrong"})[1]
    message, hint = failing({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""})
    assert "credentials" in message
    assert "AWS_PROFILE" in hint
    assert "AWS_PROFILE" in failing({"AWS_PROFILE": "none"})[1]
    message, hint = failing({"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port()}"})
    assert "127.0.0.1" in message
    assert "AWS_ENDPOINT_URL_S3" in hint
    with FaultProxy(ceph20.endpoint, lambda _: Fault(answer=503)) as proxy:
        message, hint = failing({"AWS_ENDPOINT_URL_S3": proxy.endpoint})
        assert "503 SlowDown" in message
        assert "later" in hint
        assert len(proxy.requests) == QUICK.attempts


def test_head_distinguishes_a_missing_bucket_from_a_missing_object(ceph20: Server) -> None:
    with pytest.raises(StorageError, match="NoSuchBucket") as failed:
        S3Store.open("no-such-bucket-here", environ=ceph20.environ).head("k")
    assert not isinstance(failed.value, NotFoundError)


def test_aws_profiles_are_used(ceph20: Server, tmp_path: Path) -> None:
    bucket = ceph20.new_bucket()
    config = tmp_path / "config"
    config.write_text(
        "[profile lab]\nregion = us-east-1\naws_access_key_id = testkey\n"
        f"aws_secret_access_key = testsecret\nendpoint_url = {ceph20.endpoint}\n"
    )
    environ = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "lab"}
    where = open_bucket(bucket, "", environ, retry=RetryPolicy())
    assert where.endpoint == ceph20.endpoint
    S3Store(bucket=where).put("k", b"", expected=None)
