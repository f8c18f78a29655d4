"""What ``Store.copy`` promises: the bytes that were judged under a new key, or none."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lago_images.errors import ConflictError, NotFoundError, StorageError, TamperedError
from lago_images.storage.base import Headers, Stat, Store
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.overlay import OverlayStore
from lago_images.storage.s3.etags import Abilities
from lago_images.storage.s3.store import S3Store
from tests.functional.storage.conftest import COPYING, PART, Place, overwrite, s3_store
from tests.servers.model import Server
from tests.servers.proxy import Fault, FaultProxy, Request

everywhere = pytest.mark.parametrize("place", COPYING, indirect=True)
# Alone, in one CopyObject of a multipart object, and in copied parts.
SIZES = [0, 5, PART + 1, 3 * PART + 17]


def staged(place: Place, data: bytes, key: str = "builds/disk") -> Stat:
    """Upload what a builder does; what the store knows of it."""
    store = place.open()
    if place.name == "overlaid":
        assert isinstance(store, OverlayStore)
        store = store.lower
    overwrite(store, key, data)
    return place.open().head(key)


def copy(store: Store, stat: Stat, data: bytes, target: str = "images/disk") -> None:
    store.copy(
        stat.key,
        target,
        etag=stat.etag,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        headers=Headers(content_type="application/x-xz", cache_control="max-age=7"),
    )


@everywhere
@pytest.mark.parametrize("size", SIZES)
def test_a_copy_has_the_source_bytes_and_its_own_headers(
    place: Place, store: Store, size: int
) -> None:
    data = os.urandom(size)
    stat = staged(place, data)
    if place.name == "rclone" and size > 2 * PART:
        # Its answer to UploadPartCopy has no ETag.
        with pytest.raises(StorageError, match="cannot be understood"):
            copy(store, stat, data)
        return
    copy(store, stat, data)
    assert b"".join(store.read("images/disk")) == data
    assert b"".join(store.read("builds/disk")) == data
    if isinstance(store, S3Store) and place.name != "rclone":
        headers = Headers(content_type="application/x-xz", cache_control="max-age=7")
        assert store.head("images/disk").headers == headers
    assert not list(store.unfinished())


@everywhere
def test_a_copy_does_not_change_with_its_source(place: Place, store: Store) -> None:
    data = os.urandom(100_000)
    stat = staged(place, data)
    copy(store, stat, data)
    if place.name == "directory":
        with (place.open().folder / "builds/disk").open("r+b") as file:  # type: ignore[operator]
            file.write(b"written in place")
    else:
        staged(place, b"written anew")
    assert b"".join(store.read("images/disk")) == data


@everywhere
@pytest.mark.parametrize("size", [0, PART + 1])
def test_a_source_with_another_size_or_digest_is_not_copied(
    place: Place, store: Store, size: int
) -> None:
    data = os.urandom(size)
    staged(place, data)
    stat = staged(place, bytes(len(data)) + b"!")
    for judged in (data, data + b"?"):
        with pytest.raises(TamperedError, match=r"expected \d+ bytes") as refused:
            copy(store, stat, judged)
        assert "build the image anew" in (refused.value.hint or "")
    assert [each.key for each in store.list()] == ["builds/disk"]
    assert not list(store.unfinished())


@everywhere
def test_a_source_changed_before_the_copy_is_a_conflict(place: Place, store: Store) -> None:
    data = os.urandom(1000)
    stat = staged(place, data)
    staged(place, os.urandom(1000))
    with pytest.raises(ConflictError):
        copy(store, stat, data)
    assert [each.key for each in store.list()] == ["builds/disk"]


@everywhere
def test_copying_a_missing_source_raises_not_found(place: Place, store: Store) -> None:
    stat = staged(place, b"data")
    with pytest.raises(NotFoundError):
        copy(store, replace(stat, key="builds/other"), b"data")
    assert [each.key for each in store.list()] == ["builds/disk"]


def test_an_existing_target_is_not_overwritten(tmp_path: Path) -> None:
    store = DirectoryStore(path=tmp_path)
    store.put("images/disk", b"released", expected=None)
    store.put("builds/disk", b"data", expected=None)
    with pytest.raises(ConflictError):
        copy(store, store.head("builds/disk"), b"data")
    assert store.get("images/disk").data == b"released"


def is_copy(request: Request) -> bool:
    return request.method == "PUT" and "/images/" in request.target


def is_plain_copy(request: Request) -> bool:
    return is_copy(request) and "uploadId" not in request.target


SWAPPED_SIZES = {"CopyObject": PART + 1, "UploadPartCopy": 3 * PART}


@pytest.mark.parametrize("name", ["ceph20", "ceph18", "moto"])
@pytest.mark.parametrize("operation", SWAPPED_SIZES)
def test_a_source_replaced_between_head_and_copy_is_not_copied(
    request: pytest.FixtureRequest, name: str, operation: str
) -> None:
    """Moto ignores the condition on CopyObject, and all of them do on UploadPartCopy."""
    server = request.getfixturevalue(name)
    bucket, data = server.new_bucket(), os.urandom(SWAPPED_SIZES[operation])
    direct = s3_store(server, bucket)
    direct.upload("builds/disk", [data])
    stat = direct.head("builds/disk")
    swaps = iter([bytes(len(data))])

    def swap() -> None:
        for other in swaps:
            overwrite(direct, "builds/disk", other)

    with FaultProxy(server.endpoint) as proxy:
        proxy.plan = lambda each: Fault(before=swap) if is_copy(each) else None
        store = s3_store(server.through(proxy.endpoint), bucket)
        refusal = ConflictError if (name, operation) in CONDITIONAL else TamperedError
        with pytest.raises(refusal):
            copy(store, stat, data)
    assert next(swaps, None) is None
    assert [each.key for each in direct.list()] == ["builds/disk"]
    assert not list(direct.unfinished())


CONDITIONAL = {("ceph20", "CopyObject"), ("ceph18", "CopyObject")}


@pytest.mark.parametrize("name", ["ceph20", "ceph18"])
@pytest.mark.parametrize("size", [PART + 1, 3 * PART])
@pytest.mark.parametrize("fault", [Fault(drop=True), Fault(reset=True), Fault(answer=503)])
def test_a_copy_survives_the_failure_of_any_request(
    request: pytest.FixtureRequest, name: str, size: int, fault: Fault
) -> None:
    server = request.getfixturevalue(name)
    bucket, data = server.new_bucket(), os.urandom(size)
    direct = s3_store(server, bucket)
    direct.upload("builds/disk", [data])
    stat = direct.head("builds/disk")
    with FaultProxy(server.endpoint) as proxy:
        store = s3_store(server.through(proxy.endpoint), bucket)
        copy(store, stat, data, "images/none")
        usual = len(proxy.requests)
        for number in range(1, usual + 1):
            at = len(proxy.requests) + number
            proxy.plan = lambda each, at=at: fault if each.number == at else None  # type: ignore[misc]
            copy(store, stat, data, f"images/{number}")
            assert b"".join(direct.read(f"images/{number}")) == data


def test_a_checksum_computed_by_the_store_spares_reading_the_copy(moto: Server) -> None:
    bucket, data = moto.new_bucket(), os.urandom(PART + 1)
    store = s3_store(moto, bucket)
    store.upload("builds/disk", [data])
    stat = store.head("builds/disk")
    store.bucket.abilities = Abilities(sums_copies=True)
    before = store.bucket.requests["GetObject"]
    copy(store, stat, data)
    assert store.bucket.requests["GetObject"] == before
    with pytest.raises(TamperedError):
        copy(store, stat, bytes(len(data)), "images/other")
    store.bucket.abilities = Abilities()
    copy(store, stat, data, "images/third")
    assert store.bucket.requests["GetObject"] > before


def lost_answer(server: Server, work: Callable[[S3Store], None]) -> list[str]:
    """Copy through a proxy that loses the first answer and keeps If-None-Match as AWS does."""
    bucket, written, seen = server.new_bucket(), set(), []

    def plan(request: Request) -> Fault | None:
        if not is_plain_copy(request):
            return None
        seen.append(request.target)
        if request.target in written:
            return Fault(answer=412)
        written.add(request.target)
        return Fault(drop=True)

    with FaultProxy(server.endpoint, plan) as proxy:
        store = s3_store(server.through(proxy.endpoint), bucket)
        store.bucket.abilities = Abilities(creates_copies=True)
        work(store)
    return seen


def test_a_copy_whose_response_was_lost_succeeds(ceph20: Server) -> None:
    def work(store: S3Store) -> None:
        store.upload("builds/disk", [b"data"])
        copy(store, store.head("builds/disk"), b"data")
        assert store.get("images/disk").data == b"data"

    assert len(lost_answer(ceph20, work)) == 2


def test_a_conflicting_copy_leaves_the_existing_target(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    direct = s3_store(ceph20, bucket)
    direct.upload("builds/disk", [b"data"])
    direct.put("images/disk", b"othr", expected=None)
    plan = lambda each: Fault(answer=412) if is_plain_copy(each) else None  # noqa: E731
    with FaultProxy(ceph20.endpoint, plan) as proxy:
        store = s3_store(ceph20.through(proxy.endpoint), bucket)
        store.bucket.abilities = Abilities(creates_copies=True)
        with pytest.raises(ConflictError, match="the target exists already"):
            copy(store, direct.head("builds/disk"), b"data")
    assert direct.get("images/disk").data == b"othr"


def test_a_rejected_copy_that_cannot_be_deleted_is_reported(ceph20: Server) -> None:
    bucket = ceph20.new_bucket()
    direct = s3_store(ceph20, bucket)
    direct.upload("builds/disk", [b"evil"])
    stat = direct.head("builds/disk")
    plan = lambda each: Fault(answer=403) if each.method == "DELETE" else None  # noqa: E731
    with FaultProxy(ceph20.endpoint, plan) as proxy:
        store = s3_store(ceph20.through(proxy.endpoint), bucket)
        with pytest.raises(TamperedError, match="could not be deleted") as refused:
            copy(store, stat, b"good")
    assert isinstance(refused.value, StorageError)
