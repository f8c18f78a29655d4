"""A whole publication as the builder and the publisher of AWS's policies: no request is refused.

Ceph knows neither ``s3:if-none-match`` nor ``s3:ObjectCreationOperation``, so a stand-in before it
judges every request by docs/policies, and what AWS would refuse it refuses.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lago_images.storage.s3.upload import PART_SIZE
from tests.servers.model import Server
from tests.servers.proxy import Fault, FaultProxy, Request
from tests.support import policies
from tests.support.policies import Asked, allows, asked
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git", "qemu-img")

PREFIX = "our/images/"
WRITE_ONCE = ("builds/", "images/", "releases/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The way to a bucket that a role's policies guard."""

    proxy: FaultProxy
    server: Server
    refused: list[Asked]

    @property
    def environ(self) -> dict[str, str]:
        return self.server.through(self.proxy.endpoint).environ

    def creations(self, bucket: str) -> Iterator[tuple[str, Request]]:
        """Yield what was sent to create an object, by its key."""
        for request in self.proxy.requests:
            keys = asked(request.method, request.target, request.headers).keys
            if keys.get("s3:ObjectCreationOperation") == "true":
                path = request.target.partition("?")[0]
                yield path.removeprefix(f"/{bucket}/{PREFIX}"), request


def guarded(server: Server, bucket: str, files: Sequence[str]) -> Way:
    texts = [json.loads(policies.text_of(f"{file}-aws.json", bucket, PREFIX)) for file in files]
    refused: list[Asked] = []

    def judge(request: Request) -> Fault | None:
        wanted = asked(request.method, request.target, request.headers)
        if allows(texts, wanted):
            return None
        refused.append(wanted)
        return Fault(answer=403, code="AccessDenied")

    return Way(proxy=FaultProxy(server.endpoint, judge), server=server, refused=refused)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A repository that was built by one role and published by the other."""

    bucket: str
    builder: Way
    publisher: Way

    def keys(self, client: Any) -> set[str]:
        page = client.list_objects_v2(Bucket=self.bucket, Prefix=PREFIX)
        return {entry["Key"].removeprefix(PREFIX) for entry in page["Contents"]}


@pytest.fixture(scope="module")
def published(ceph20: Server, tmp_path_factory: pytest.TempPathFactory) -> Published:
    root, bucket = tmp_path_factory.mktemp("policies"), ceph20.new_bucket()
    repo = SpecsRepo.create(root / "specs")
    repo.disk("image-specs/files/small.img")
    # More than one part, and nothing that compresses.
    large = random.Random(0).randbytes(PART_SIZE + (2 << 20))
    repo.write("image-specs/files/large.img", large)
    repo.spec("large", "simple:image-specs/files/large.img")
    repo.spec("small", "simple:image-specs/files/small.img")
    repo.commit()
    repo.environ.update(
        LAGO_IMAGES_REPOSITORY=f"s3://{bucket}/{PREFIX}",
        LAGO_IMAGES_BASE_URL="http://images.example.org",
        LAGO_IMAGES_COMPRESSION_LEVEL="0",
    )
    builder = guarded(ceph20, bucket, ("public", "builder"))
    publisher = guarded(ceph20, bucket, ("public", "publisher"))
    with builder.proxy, publisher.proxy:
        _publish(repo, root, builder, publisher)
    return Published(bucket=bucket, builder=builder, publisher=publisher)


def _publish(repo: SpecsRepo, root: Path, builder: Way, publisher: Way) -> None:
    plan, results = str(root / "plan.json"), str(root / "results")
    for way, arguments in (
        (builder, ["ci", "plan", "--output", plan]),
        (builder, ["ci", "build", "large", "small", "--plan", plan, "--results", results]),
        (publisher, ["ci", "publish", "--plan", plan, "--results", results]),
    ):
        ran = repo.run(*arguments, environ=way.environ)
        assert ran.code == 0, ran.err
    assert "small: released revision 1" in ran.out


def test_builder_and_publisher_send_only_requests_that_their_policies_allow(
    published: Published,
) -> None:
    assert published.builder.refused == []
    assert published.publisher.refused == []


def test_write_once_objects_are_created_with_if_none_match(
    published: Published, ceph20: Server
) -> None:
    """But for a copy of a disk, to which Ceph keeps no condition: its key has a nonce."""
    written: dict[str, str] = {}
    for way in (published.builder, published.publisher):
        for key, request in way.creations(published.bucket):
            if key.startswith(WRITE_ONCE):
                how = "copied" if "x-amz-copy-source" in request.headers else request.method
                assert how == "copied" or request.headers.get("if-none-match") == "*", request
                written[key] = how
    there = {key for key in published.keys(ceph20.client()) if key.startswith(WRITE_ONCE)}
    assert written.keys() == there
    # One disk was completed from parts; the copies are of the two disks alone.
    assert [key.rpartition("/")[2] for key, how in written.items() if how == "POST"] == [
        "large.qcow2.xz"
    ]
    copies = sorted(key for key, how in written.items() if how == "copied")
    assert [key.split("/")[0] for key in copies] == ["images", "images"]
    assert [key.rpartition("/")[2] for key in copies] == ["large.qcow2.xz", "small.qcow2.xz"]


def test_replaced_objects_are_written_with_if_match(published: Published) -> None:
    """``If-Match`` or ``If-None-Match`` on every file of the root; caches and probes are free."""
    rendered = [
        (key, request)
        for key, request in published.publisher.creations(published.bucket)
        if not key.startswith((*WRITE_ONCE, "state/cache.json", "state/store.json", "state/probe/"))
    ]
    assert {"index", "repo.metadata", "state/published.json"} <= {key for key, _ in rendered}
    for _, request in rendered:
        assert {"if-match", "if-none-match"} & request.headers.keys(), request
