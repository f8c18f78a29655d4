"""What every write must carry: a condition, and a checksum that the store knows."""

import hashlib
import os
import re

import pytest

from lago_images.errors import ConflictError, UnsafeStoreError
from lago_images.storage.base import Store
from lago_images.storage.s3.bucket import Feature
from lago_images.storage.s3.etags import Abilities
from lago_images.storage.s3.store import S3Store
from tests.functional.storage.conftest import ALL, PART, Place, ensure_safe, s3_store
from tests.servers.model import Server
from tests.servers.proxy import Fault, FaultProxy, Request

SIZES = {"one request": 5, "parts": 2 * PART + 1}


@pytest.mark.parametrize("place", ALL, indirect=True)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_an_upload_never_overwrites_an_object(place: Place, store: Store, size: int) -> None:
    if place.name == "ceph18" and size > PART:
        pytest.skip("Ceph 18 ignores conditions on what completes an upload in parts")
    data = os.urandom(size)
    store.upload("builds/disk", [data])
    with pytest.raises(ConflictError, match="exists already"):
        store.upload("builds/disk", [os.urandom(size)])
    assert b"".join(store.read("builds/disk")) == data
    assert not list(store.unfinished())


def writes_an_object(request: Request) -> bool:
    """PutObject, CopyObject and CompleteMultipartUpload, below what is written once."""
    if not re.search("/(builds|images|releases)/", request.target):
        return False
    whole = request.method == "PUT" and "uploadId" not in request.target
    return whole or (request.method == "POST" and "uploadId" in request.target)


def aws_policy(request: Request) -> Fault | None:
    """Stand in for a policy that denies writes where ``s3:if-none-match`` is missing.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
    """
    if writes_an_object(request) and request.headers.get("if-none-match") != "*":
        return Fault(answer=403, code="AccessDenied")
    return None


def work(store: S3Store, *, copies: bool = True) -> None:
    """Every kind of write that a build and its publication make."""
    for key in ("builds/manifest.json", "releases/1.json", "state/published.json"):
        etag = store.put(key, b"one", expected=None)
    store.put("state/published.json", b"two", expected=etag)
    for name, size in SIZES.items():
        data = os.urandom(size)
        done = store.upload(f"builds/{name}", [data])
        assert done.sha256 == hashlib.sha256(data).hexdigest()
        assert b"".join(store.read(f"builds/{name}")) == data
        if not copies:
            continue
        stat = store.head(f"builds/{name}")
        store.copy(stat.key, f"images/{name}", etag=stat.etag, size=size, sha256=done.sha256)
        assert b"".join(store.read(f"images/{name}")) == data


def test_every_write_once_request_satisfies_a_policy_that_demands_if_none_match(
    ceph20: Server,
) -> None:
    bucket = ceph20.new_bucket()
    with FaultProxy(ceph20.endpoint, aws_policy) as proxy:
        store = s3_store(ceph20.through(proxy.endpoint), bucket)
        ensure_safe(store)
        # As on AWS, where the probe finds it; Ceph ignores it.
        store.bucket.abilities = Abilities(creates_copies=True)
        work(store)
        written = [request for request in proxy.requests if writes_an_object(request)]
    assert len(written) >= 6
    assert Feature.CREATION not in store.bucket.lacking


def backblaze(request: Request) -> Fault | None:
    """Stand in for a store that knows no checksums but Content-MD5, and no conditions."""
    for name in request.headers:
        if name.startswith(("x-amz-checksum-", "x-amz-sdk-checksum-")):
            return Fault(answer=400, code="InvalidRequest")
    if request.method in {"PUT", "POST"} and {"if-match", "if-none-match"} & {*request.headers}:
        return Fault(answer=501, code="NotImplemented")
    return None


def test_a_store_that_refuses_checksums_works_with_a_single_writer(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    with FaultProxy(ceph20.endpoint, backblaze) as proxy:
        server = ceph20.through(proxy.endpoint)
        with pytest.raises(UnsafeStoreError, match="answered 501"):
            ensure_safe(s3_store(server, bucket))
        store = s3_store(server, bucket)
        ensure_safe(store, single_writer=True)
        work(store)
        with pytest.raises(ConflictError):
            store.upload("builds/parts", [b"other"])


def test_a_builder_that_never_probed_writes_to_a_store_without_checksums(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    with FaultProxy(ceph20.endpoint, backblaze) as proxy:
        store = s3_store(ceph20.through(proxy.endpoint), bucket)
        for name, size in SIZES.items():
            store.upload(f"builds/{name}", [bytes(size)])
    assert store.bucket.lacking == {Feature.CHECKSUMS, Feature.CREATION}


def test_a_corrupted_upload_is_not_taken_for_missing_checksum_support(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    plan = lambda request: Fault(answer=400, code="BadDigest") if request.number == 1 else None  # noqa: E731
    with FaultProxy(ceph20.endpoint, plan) as proxy:
        store = s3_store(ceph20.through(proxy.endpoint), bucket)
        with pytest.raises(Exception, match="BadDigest"):
            store.upload("builds/disk", [b"data"])
    assert store.bucket.lacking == set()


def lock(server: Server) -> str:
    """A new bucket whose objects are retained for a day."""
    bucket, client = f"{server.new_bucket()}-lock", server.client()
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    retention = {"Mode": "GOVERNANCE", "Days": 1}
    rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}}
    client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=rule)
    return bucket


def demands_checksum(request: Request) -> Fault | None:
    """Stand in for AWS, which refuses bodies without a checksum in a bucket with object lock."""
    parts = request.headers.keys() & {"content-md5", "x-amz-sdk-checksum-algorithm"}
    plain = request.method == "PUT" and "x-amz-copy-source" not in request.headers
    return Fault(answer=400, code="InvalidRequest") if plain and not parts else None


@pytest.mark.parametrize("name", ["ceph20", "moto"])
def test_a_bucket_with_default_retention_is_written(
    request: pytest.FixtureRequest, name: str
) -> None:
    """Ceph keeps versions then, and no conditions in races: a single writer is asked for.

    Moto, unlike AWS, wants the checksum of bytes in CopyObject too, where nobody sends any.
    """
    server = request.getfixturevalue(name)
    bucket = lock(server)
    with FaultProxy(server.endpoint, demands_checksum) as proxy:
        store = s3_store(server.through(proxy.endpoint), bucket)
        ensure_safe(store, single_writer=True)
        work(store, copies=name != "moto")
