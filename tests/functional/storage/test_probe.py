"""The probe on real servers: who is let in, who is refused, and what is remembered."""

import io
import json
import time
from pathlib import Path

import pytest

from lago_images.console import Console
from lago_images.errors import StorageError, UnsafeStoreError
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.s3.etags import Abilities, Dialect
from lago_images.storage.s3.probe import FOLDER, Prober, probe
from lago_images.storage.s3.safety import MEMORY
from lago_images.storage.s3.store import S3Store
from tests.functional.storage.conftest import QUICK, ensure_safe
from tests.servers.model import Server
from tests.servers.proxy import Fault, FaultProxy, Request

# What is asked where the verdict is remembered.
REMEMBERED = {"GetObject": 1, "GetBucketVersioning": 1, "GetObjectLockConfiguration": 1}


def _open(server: Server, bucket: str, *, single_writer: bool = False) -> S3Store:
    return S3Store.open(
        bucket, "p", environ=server.environ, single_writer=single_writer, retry=QUICK
    )


@pytest.mark.parametrize(("name", "dialect"), [("ceph20", "quoted"), ("ceph18", "bare")])
def test_a_store_with_conditional_writes_is_accepted(
    request: pytest.FixtureRequest, name: str, dialect: str
) -> None:
    server = request.getfixturevalue(name)
    bucket = server.new_bucket()
    store = _open(server, bucket)
    ensure_safe(store)
    assert store.writer.dialect == Dialect(dialect)
    assert [stat.key for stat in store.list()] == [MEMORY]

    again = _open(server, bucket)
    ensure_safe(again, single_writer=True)
    assert again.writer.dialect == Dialect(dialect)
    assert again.requests == REMEMBERED


@pytest.mark.parametrize(
    ("name", "does"), [("swift", "answered 501"), ("rclone", "answered 200, and the object was")]
)
def test_a_store_without_conditional_writes_is_refused(
    request: pytest.FixtureRequest, name: str, does: str
) -> None:
    server = request.getfixturevalue(name)
    bucket = server.new_bucket()
    store = _open(server, bucket)
    with pytest.raises(UnsafeStoreError, match=does) as refused:
        ensure_safe(store)
    assert "single-writer = true" in str(refused.value.hint)
    assert [stat.key for stat in store.list()] == []

    said = io.StringIO()
    allowed = _open(server, bucket, single_writer=True)
    ensure_safe(allowed, single_writer=True, console=Console(stream=said))
    assert "second publisher" in said.getvalue()
    etag = allowed.put("k", b"1", expected=None)
    assert allowed.put("k", b"2", expected=etag) == allowed.get("k").etag


@pytest.mark.parametrize(
    "change",
    [
        {"store": {"url": "s3://another"}},
        {"schema": 0},
        {"dialect": "plain"},
        {"dialect": "unheard of"},
    ],
)
def test_the_recorded_probe_of_another_store_is_ignored(
    ceph20: Server, change: dict[str, object]
) -> None:
    bucket = ceph20.new_bucket()
    store = _open(ceph20, bucket)
    ensure_safe(store)
    blob = store.get(MEMORY)
    store.put(MEMORY, json.dumps({**json.loads(blob.data), **change}).encode(), expected=blob.etag)
    again = _open(ceph20, bucket)
    ensure_safe(again)
    assert again.requests["PutObject"] > 5
    assert again.get(MEMORY).data == blob.data


@pytest.mark.parametrize("name", ["ceph20", "moto"])
def test_a_store_is_probed_once(request: pytest.FixtureRequest, name: str) -> None:
    """moto names itself differently in its answers to a listing and to a GET."""
    server = request.getfixturevalue(name)
    bucket = server.new_bucket()
    ensure_safe(_open(server, bucket))
    again = _open(server, bucket)
    ensure_safe(again)
    assert again.requests == REMEMBERED


def test_the_next_probe_removes_what_a_killed_one_left(
    ceph20: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = ceph20.new_bucket()
    store = _open(ceph20, bucket)
    store.put(f"{FOLDER}dead/0", b"first", expected=None)
    probe(store.bucket)
    assert [stat.key for stat in store.list(FOLDER)] == [f"{FOLDER}dead/0"]
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 7200)
    probe(store.bucket)
    assert list(store.list(FOLDER)) == []


def test_a_lost_response_does_not_make_a_store_unsafe(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    with FaultProxy(ceph20.endpoint) as proxy:
        for number in (2, 3, 5, 7):

            def plan(request: Request, at: int = len(proxy.requests) + number) -> Fault | None:
                return Fault(drop=True) if request.number == at else None

            proxy.plan = plan
            store = _open(ceph20.through(proxy.endpoint), bucket)
            ensure_safe(store)
            assert store.writer.dialect is Dialect.QUOTED
            store.delete([MEMORY])


def test_an_unreachable_store_is_not_reported_as_unsafe(ceph20: Server) -> None:
    store = _open(ceph20, "no-such-bucket-here")
    with pytest.raises(StorageError, match="NoSuchBucket") as failed:
        ensure_safe(store)
    assert not isinstance(failed.value, UnsafeStoreError)


def test_probing_a_directory_succeeds_and_leaves_no_file(tmp_path: Path) -> None:
    store = DirectoryStore(path=tmp_path)
    ensure_safe(store)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert [*store.list()] == []
    assert [*store.unfinished()] == []


def test_an_unwritable_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = DirectoryStore(path=tmp_path / "file" / "repo")
    with pytest.raises(StorageError, match="Not a directory"):
        ensure_safe(store)


def _version(server: Server, bucket: str, status: str) -> None:
    server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def _refuse_versioning(request: Request) -> Fault | None:
    """A publisher whose policy lacks s3:GetBucketVersioning."""
    asked = request.target.endswith(("?versioning", "?object-lock"))
    return Fault(answer=403, code="AccessDenied") if asked else None


@pytest.mark.parametrize("name", ["ceph20", "ceph18"])
@pytest.mark.parametrize("plan", [lambda _: None, _refuse_versioning], ids=["told", "refused"])
def test_enabling_versioning_invalidates_the_recorded_probe(
    request: pytest.FixtureRequest, name: str, plan
) -> None:
    server = request.getfixturevalue(name)
    bucket = server.new_bucket()
    with FaultProxy(server.endpoint, plan) as proxy:
        near = server.through(proxy.endpoint)
        ensure_safe(_open(near, bucket))
        again = _open(near, bucket)
        ensure_safe(again)
        assert again.requests["PutObject"] <= 1
        _version(server, bucket, "Enabled")
        with pytest.raises(UnsafeStoreError) as refused:
            ensure_safe(_open(near, bucket))
        assert "suspend versioning" in (refused.value.hint or "")
        _version(server, bucket, "Suspended")
        ensure_safe(_open(near, bucket))


def test_enabling_versioning_stops_a_running_publisher(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    store, other = _open(ceph20, bucket), _open(ceph20, bucket)
    for each in (store, other):
        ensure_safe(each)
    store.put("releases/1.json", b"1", expected=None)
    _version(ceph20, bucket, "Enabled")
    with pytest.raises(UnsafeStoreError):
        store.put("releases/2.json", b"2", expected=None)
    log = io.StringIO()
    alone = _open(ceph20, bucket, single_writer=True)
    ensure_safe(alone, single_writer=True, console=Console(stream=log))
    etag = alone.put("k", b"1", expected=None)
    alone.put("k", b"2", expected=etag)
    assert "second publisher" in log.getvalue()


def test_another_server_behind_the_endpoint_is_probed_again(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    with FaultProxy(ceph20.endpoint) as proxy:
        server = ceph20.through(proxy.endpoint)
        ensure_safe(_open(server, bucket))
        for headers in ({"Server": "Another/2"}, {"Via": "1.1 varnish"}):
            fault = Fault(headers=headers)
            proxy.plan = lambda _, fault=fault: fault  # type: ignore[misc]
            anew, again = _open(server, bucket), _open(server, bucket)
            ensure_safe(anew)
            assert anew.requests["PutObject"] > 40
            ensure_safe(again)
            assert again.requests == REMEMBERED


def test_enabling_object_lock_is_probed_again(moto: Server) -> None:
    bucket, client = f"{moto.new_bucket()}-lock", moto.client()
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)

    def has_no_lock(request: Request) -> Fault | None:
        code = "ObjectLockConfigurationNotFoundError"
        return Fault(answer=404, code=code) if "?object-lock" in request.target else None

    with FaultProxy(moto.endpoint, has_no_lock) as proxy:
        server = moto.through(proxy.endpoint)
        ensure_safe(_open(server, bucket))
        proxy.plan = lambda _: None
        anew, again = _open(server, bucket), _open(server, bucket)
        ensure_safe(anew)
        assert anew.requests["PutObject"] > 40
        ensure_safe(again)
        assert again.requests == REMEMBERED


@pytest.mark.parametrize(
    ("name", "sums"), [("moto", True), ("ceph20", False), ("ceph18", False), ("rclone", False)]
)
def test_only_a_checksum_computed_by_the_store_is_trusted(
    request: pytest.FixtureRequest, name: str, sums: bool
) -> None:
    """rclone hands on the checksum that the source was stored with, true or not."""
    server = request.getfixturevalue(name)
    store = _open(server, server.new_bucket())
    prober = Prober(bucket=store.bucket)
    assert prober.abilities() == Abilities(sums_copies=sums, creates_copies=False)
    prober.clean()
    if name != "rclone":
        ensure_safe(store)
        assert store.bucket.abilities.sums_copies == sums
        again = _open(server, store.bucket.name)
        ensure_safe(again)
        assert again.bucket.abilities.sums_copies == sums


def test_support_of_if_none_match_on_copies_is_detected(ceph20: Server) -> None:
    def aws(request: Request) -> Fault | None:
        conditional = {"x-amz-copy-source", "if-none-match"} <= {*request.headers}
        return Fault(answer=412, code="PreconditionFailed") if conditional else None

    with FaultProxy(ceph20.endpoint, aws) as proxy:
        store = _open(ceph20.through(proxy.endpoint), ceph20.new_bucket())
        ensure_safe(store)
    assert store.bucket.abilities == Abilities(creates_copies=True)
