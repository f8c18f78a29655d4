"""What a release of one large image costs: bytes through the publisher, and seconds.

    python -m tests.benchmarks release [--stores directory,ceph20,moto] [--mib 1024] [--rounds 3]

The image lies staged; a release makes its public copy, proves it, and renders. In a directory the
copy is a clone (or is copied by the kernel) and then read once. In a bucket it is made inside the
store. Where the store computes a SHA-256 of copies that is all: of the servers here moto does,
a mock in Python that shows the bytes and no realistic seconds. Else the copy is read once, which
"without checksums" makes moto's store do, too. The rival in the same run is a publisher that
downloads the disk, hashes it, and uploads it again. Rounds alternate; seconds are medians.

Bytes are those of the bodies of requests and answers, and of the directory's files what the
publisher's process reads and writes itself.
"""

import argparse
import hashlib
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lago_images.console import Console
from lago_images.repository.publishing.releasing import Decision, release
from lago_images.repository.records.layout import headers
from lago_images.repository.records.manifest import Disk, Manifest
from lago_images.repository.records.release import Released
from lago_images.storage.directory import files
from lago_images.storage.directory import store as directory
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.s3.etags import Abilities
from lago_images.storage.s3.store import S3Store
from tests.servers import run
from tests.support import builders

_BLOCK = 2**20
_COUNTED = ("small", "bulk", "patient")


@dataclass
class Traffic:
    """Bytes that went through the publisher."""

    amount: int = 0

    def of_requests(self, request: Any, **_: object) -> None:
        self.amount += int(request.headers.get("Content-Length", 0))

    def of_answers(self, http_response: Any, model: Any, **_: object) -> None:
        if model.name != "HeadObject":
            self.amount += int(http_response.headers.get("content-length", 0))

    def of_pieces(self, pieces: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
        def counted(fd: int, start: int) -> Iterator[bytes]:
            for piece in pieces(fd, start):
                self.amount += len(piece)
                yield piece

        return counted

    def of_writes(self, write: Callable[[int, bytes], None]) -> Callable[[int, bytes], None]:
        def counted(fd: int, data: bytes) -> None:
            self.amount += len(data)
            write(fd, data)

        return counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A store, what goes through its user, and how it proves copies."""

    name: str
    store: Any
    traffic: Traffic = field(default_factory=Traffic)


@contextmanager
def places(name: str) -> Iterator[list[Place]]:
    with ExitStack() as stack:
        match name:
            case "directory":
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="release-"))
                yield [_directory(Path(folder), stack)]
            case "ceph20":
                ceph20 = stack.enter_context(run.running_ceph20())
                yield [_bucket(ceph20, "ceph20, no checksums of copies")]
            case _:
                moto = stack.enter_context(run.running_moto())
                yield [
                    _bucket(moto, "moto, with its checksums"),
                    _bucket(moto, "moto, without checksums", abilities=Abilities()),
                ]


def _directory(folder: Path, stack: ExitStack) -> Place:
    place = Place(name="directory", store=DirectoryStore(path=folder))
    # The store has these by name, and so has the copy where the kernel makes none.
    for module in (directory, files):
        for name, counted in (
            ("pieces", place.traffic.of_pieces(files.pieces)),
            ("write", place.traffic.of_writes(files.write)),
        ):
            stack.enter_context(patch.object(module, name, counted))
    return place


def _bucket(server: Any, name: str, abilities: Abilities | None = None) -> Place:
    store = S3Store.open(server.new_bucket(), environ={**os.environ, **server.environ})
    place = Place(name=name, store=store)
    store.ensure_safe_writes(single_writer=False, console=Console(quiet=True))
    if abilities is not None:
        store.bucket.abilities = abilities
    for client in (getattr(store.bucket, each) for each in _COUNTED):
        client.meta.events.register("before-send.s3", place.traffic.of_requests)
        client.meta.events.register("after-call.s3", place.traffic.of_answers)
    return place


def stage(store: Any, disk: Path, number: int) -> Manifest:
    """Put a build in staging, as a builder leaves it."""
    made = builders.manifest("image", f"b{number}", fingerprint=f"sha256:{number}")
    sums = {name: hashlib.new(name) for name in ("sha1", "sha256", "sha512")}
    for block in _blocks(disk):
        for each in sums.values():
            each.update(block)
    digests = {name: each.hexdigest() for name, each in sums.items()}
    made = replace(
        made,
        disk=Disk(
            format="qcow2",
            virtual_size=2 * disk.stat().st_size,
            size=disk.stat().st_size,
            compressed_size=disk.stat().st_size,
            **digests,
        ),
    )
    staging = made.key.staging
    store.upload(staging.disk, _blocks(disk), headers=headers(staging.disk))
    for name, data in builders.files_of(made).items():
        if not name.endswith(".xz"):
            builders.put(store, staging.folder + name, data)
    return made


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            yield block


def ours(store: Any, made: Manifest) -> None:
    decision = Decision(
        released=Released(commit="c1", actor="benchmark"),
        known_revision=0,
        is_ancestor=lambda _one, _other: True,
        now=time.time,
    )
    release(store, builders.judged(made), decision)
    builders.publisher(store).refresh()


def rival(store: Any, made: Manifest) -> None:
    """Download, hash, and upload again."""
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for block in store.read(made.key.staging.disk):
            digest.update(block)
            yield block

    store.upload(f"images/{made.build_id}.rival", hashed())
    assert digest.hexdigest() == made.disk.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds by the clock, and bytes."""

    seconds: float
    amount: int


def measure(place: Place, made: Manifest, work: Callable[[Any, Manifest], None]) -> Cost:
    place.traffic.amount = 0
    begun = time.perf_counter()
    work(place.store, made)
    return Cost(seconds=time.perf_counter() - begun, amount=place.traffic.amount)


def main() -> None:
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    parser.add_argument("--stores", default="directory,ceph20,moto")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # moto's server tells of every request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        disk = Path(folder) / "disk"
        with disk.open("wb") as file:
            file.writelines(os.urandom(_BLOCK) for _ in range(options.mib))
        for name in options.stores.split(","):
            with places(name) as each:
                for place in each:
                    _compare(place, disk, options.rounds)


def _compare(place: Place, disk: Path, rounds: int) -> None:
    costs: dict[str, list[Cost]] = {"release": [], "rival": []}
    for number in range(rounds):
        made = stage(place.store, disk, number)
        costs["release"].append(measure(place, made, ours))
        costs["rival"].append(measure(place, made, rival))
        place.store.delete([stat.key for stat in place.store.list() if stat.size > _BLOCK])
    _report(place.name, costs)


def _report(name: str, costs: Mapping[str, list[Cost]]) -> None:
    for what, each in costs.items():
        seconds = statistics.median(cost.seconds for cost in each)
        amount = statistics.median(cost.amount for cost in each)
        own = " ".join(f"{cost.seconds:.2f}" for cost in each)
        print(f"{name:31} {what:8} {amount / 2**20:8.2f} MiB {seconds:7.2f} s  ({own})", flush=True)


if __name__ == "__main__":
    main()
