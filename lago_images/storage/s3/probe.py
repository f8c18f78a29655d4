"""What a store's answers to the probe say of it: no I/O.

Finding out whether a bucket's store keeps conditional writes, by asking it to.

Some stores answer 200 to a conditional write and overwrite, so a name or a version proves
nothing. The probe writes, races and deletes a few small objects under ``state/probe/``. What it
found is remembered beside them, for this store and this version of lago-images.
"""

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from threading import Barrier
from typing import Any

import msgspec

from lago_images.console import Console
from lago_images.errors import NotFoundError, StorageError, UnsafeStoreError
from lago_images.storage.base import Headers
from lago_images.storage.listing import listed
from lago_images.storage.s3.bucket import Bucket
from lago_images.storage.s3.conditional import Writer
from lago_images.storage.s3.etags import Dialect, bare, in_dialect
from lago_images.storage.s3.failures import Failure, request, status_of, understood

WRITTEN, MISMATCH, UNKNOWN = 200, 412, 501


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """HTTP statuses of the probe's conditional writes.

    Attributes:
        create_again: If-None-Match on an object that is there.
        stale: If-Match with an ETag that is not the object's.
        fresh_quoted: If-Match with the object's ETag, in quotes.
        fresh_bare: The same without quotes; None if it was not needed.
        creators: A round of simultaneous creations of one key: each writer's status.
        swappers: A round of simultaneous replacements of one version: each writer's status.
    """

    create_again: int
    stale: int
    fresh_quoted: int
    fresh_bare: int | None = None
    creators: tuple[tuple[int, ...], ...] = ()
    swappers: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``dialect`` is ``PLAIN`` if the store is unsafe; ``reasons`` then say what it did."""

    dialect: Dialect
    reasons: tuple[str, ...] = ()

    @property
    def safe(self) -> bool:
        return self.dialect is not Dialect.PLAIN


def judge(found: Findings) -> Verdict:
    """Whether a store that answered like this keeps conditional writes, and in which form."""
    reasons = [
        *_sequential("If-None-Match: * on an object that exists", found.create_again),
        *_sequential("If-Match with an outdated ETag", found.stale),
        *_fresh(found),
        *_race("created the same object", found.creators),
        *_race("replaced the same version of an object", found.swappers),
    ]
    if reasons:
        return Verdict(dialect=Dialect.PLAIN, reasons=tuple(reasons))
    quoted = found.fresh_quoted == WRITTEN
    return Verdict(dialect=Dialect.QUOTED if quoted else Dialect.BARE)


def _sequential(what: str, status: int) -> list[str]:
    match status:
        case 412:
            return []
        case 200:
            return [f"{what} was answered 200, and the object was overwritten"]
        case 501:
            return [f"{what} was answered 501: the store does not have it"]
        case _:
            return [f"{what} was answered {status} instead of 412"]


def _fresh(found: Findings) -> list[str]:
    if WRITTEN in {found.fresh_quoted, found.fresh_bare}:
        return []
    answers = Counter([found.fresh_quoted, found.fresh_bare or found.fresh_quoted])
    said = " and ".join(str(status) for status in sorted(answers))
    return [f"If-Match with the object's own ETag was answered {said} instead of 200"]


def _race(what: str, rounds: tuple[tuple[int, ...], ...]) -> list[str]:
    most = max((one.count(WRITTEN) for one in rounds), default=0)
    if most <= 1:
        return []
    return [f"{most} of {max(map(len, rounds))} simultaneous writers {what}, and each was told 200"]


FOLDER = "state/probe/"
MEMORY = "state/store.json"
SCHEMA = 1
WRITERS = 8
ROUNDS = 3
# Seconds.
_OLD = 3600
_HEADERS = Headers(content_type="application/json", cache_control="no-store")


def ensure_safe(writer: Writer, *, single_writer: bool, console: Console) -> None:
    """Teach a writer its store's dialect; see ``Store.ensure_safe_writes``.

    Costs one request where the answer is remembered.
    """
    remembered = _recall(writer.bucket)
    verdict = remembered or probe(writer.bucket)
    if not verdict.safe and not single_writer:
        raise _unsafe(writer.bucket, verdict)
    writer.dialect = verdict.dialect
    if not verdict.safe:
        console.warn(f"{writer.bucket.where} does not keep conditional writes; {_RISK}")
    if remembered is None and verdict.safe:
        _remember(writer, verdict, console)


_RISK = "with single-writer = true a second publisher at the same time would lose releases"


def probe(bucket: Bucket) -> Verdict:
    """Ask the store, about 60 small requests; nothing of it is left, nor of killed probes.

    Raises:
        StorageError: It failed in a way that answers nothing.
    """
    prober = _Prober(bucket=bucket)
    _remove_leftovers(bucket)
    try:
        return judge(prober.findings())
    finally:
        prober.clean()


def _remove_leftovers(bucket: Bucket) -> None:
    """What killed probes left, as far as it may be removed.

    What is younger than an hour may be of a probe at work.
    """
    before = time.time() - _OLD
    with suppress(StorageError):
        for stat in listed(bucket, FOLDER, ()):
            if stat.modified < before:
                key = bucket.key(stat.key)
                bucket.call(f"deleting {stat.key}", bucket.small.delete_object, Key=key)


def _unsafe(bucket: Bucket, verdict: Verdict) -> UnsafeStoreError:
    did = "\n".join(f"  - {reason}" for reason in verdict.reasons)
    return UnsafeStoreError(
        f"{bucket.where} does not keep conditional writes, so two publishers could "
        f"overwrite each other's releases:\n{did}",
        hint="use a store that keeps them (AWS S3, Ceph, Cloudflare R2, …), or make sure that "
        "only one publisher ever runs and set single-writer = true",
    )


@dataclass(slots=True, kw_only=True)
class _Prober:
    bucket: Bucket
    folder: str = field(default_factory=lambda: f"{FOLDER}{uuid.uuid4().hex}/")
    keys: list[str] = field(default_factory=list)

    def findings(self) -> Findings:
        """The store's answers, one question after the other, then many at once."""
        key, _ = self._created()
        create_again = self._status(key, b"again", IfNoneMatch="*")
        stale = self._status(key, b"stale", IfMatch=f'"{"0" * 32}"')
        if WRITTEN in {create_again, stale} or stale != MISMATCH:
            # Unsafe already: what follows would tell nothing more.
            return Findings(create_again=create_again, stale=stale, fresh_quoted=WRITTEN)
        quoted = self._fresh(Dialect.QUOTED)
        unquoted = None if quoted == WRITTEN else self._fresh(Dialect.BARE)
        dialect = Dialect.QUOTED if quoted == WRITTEN else Dialect.BARE
        return Findings(
            create_again=create_again,
            stale=stale,
            fresh_quoted=quoted,
            fresh_bare=unquoted,
            creators=tuple(self._create_race() for _ in range(ROUNDS)),
            swappers=tuple(self._swap_race(dialect) for _ in range(ROUNDS)),
        )

    def clean(self) -> None:
        """Remove what was written; what cannot be is no reason to fail."""
        for key in self.keys:
            try:
                self._call("removing", self.bucket.small.delete_object, Key=key)
            except StorageError:
                return

    def _created(self) -> tuple[str, str]:
        """A new object and its ETag. A lost answer makes its own repetition fail: another key."""
        for _ in range(3):
            key = self._new_key()
            if self._status(key, b"first", IfNoneMatch="*") == WRITTEN:
                return key, self._etag(key)
        # No conditional creation at all: If-None-Match is asked again on what is there now.
        key = self._new_key()
        self._call("writing", self.bucket.small.put_object, Key=key, Body=b"first")
        return key, self._etag(key)

    def _fresh(self, dialect: Dialect) -> int:
        """The answer to If-Match with an object's own ETag."""
        status = 0
        for _ in range(3):
            key, etag = self._created()
            status = self._status(key, b"fresh", IfMatch=in_dialect(etag, dialect))
            # A refusal of an object that did change is about a write whose answer was lost.
            if status == WRITTEN or self._etag(key) == etag:
                break
        return status

    def _create_race(self) -> tuple[int, ...]:
        key = self._new_key()
        return _at_once(lambda number: self._once(key, number, IfNoneMatch="*"))

    def _swap_race(self, dialect: Dialect) -> tuple[int, ...]:
        key, etag = self._created()
        condition = in_dialect(etag, dialect)
        return _at_once(lambda number: self._once(key, number, IfMatch=condition))

    def _new_key(self) -> str:
        key = self.bucket.key(f"{self.folder}{len(self.keys)}")
        self.keys.append(key)
        return key

    def _etag(self, key: str) -> str:
        answer = self._call("reading", self.bucket.small.head_object, Key=key)
        with understood("probing the store (reading)", self.bucket.where):
            return bare(answer["ETag"])

    def _status(self, key: str, body: bytes, **condition: str) -> int:
        """The answer to a write, tried again where there was none."""
        try:
            self._call("writing", self.bucket.small.put_object, Key=key, Body=body, **condition)
        except StorageError as error:
            # 403, 404 and the like are about the bucket, not about the condition.
            if status_of(error) in {409, MISMATCH, 501, 400, 405}:
                return status_of(error)
            raise
        return WRITTEN

    def _once(self, key: str, number: int, **condition: Any) -> int:  # noqa: ANN401 -- boto3's
        """The answer to a racing write; 0 where there was none."""
        put = self.bucket.small.put_object
        try:
            request(put, Bucket=self.bucket.name, Key=key, Body=b"%d" % number, **condition)
        except Failure as error:
            return status_of(error)
        return WRITTEN

    def _call(self, doing: str, function: Callable[..., Any], **arguments: object) -> Any:  # noqa: ANN401 -- boto3's answers
        return self.bucket.call(f"probing the store ({doing})", function, **arguments)


def _at_once(write: Callable[[int], int]) -> tuple[int, ...]:
    start = Barrier(WRITERS)

    def one(number: int) -> int:
        start.wait()
        return write(number)

    with ThreadPoolExecutor(WRITERS) as pool:
        return tuple(pool.map(one, range(WRITERS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    schema: int
    store: dict[str, str]
    dialect: Dialect


def _recall(bucket: Bucket) -> Verdict | None:
    """What an earlier probe of this very store by this version found; only safe is believed."""
    try:
        data, server = _memory(bucket)
    except NotFoundError:
        return None
    try:
        memory = msgspec.json.decode(data, type=_Memory)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if memory.schema != SCHEMA or memory.store != _identity(bucket, server):
        return None
    return None if memory.dialect is Dialect.PLAIN else Verdict(dialect=memory.dialect)


def _memory(bucket: Bucket) -> tuple[bytes, str]:
    """What is remembered, and the server that the answer names."""

    def fetch(**arguments: Any) -> tuple[bytes, str]:  # noqa: ANN401 -- boto3's arguments
        answer = bucket.small.get_object(**arguments)
        with closing(answer["Body"]) as body:
            return body.read(), _server_of(answer)

    doing = "reading what is known of the store"
    found: tuple[bytes, str] = bucket.call(doing, fetch, Key=bucket.key(MEMORY))
    return found


def _remember(writer: Writer, verdict: Verdict, console: Console) -> None:
    try:
        _write_memory(writer, verdict, "")
        # Servers may name themselves in the answers to some requests only: what is asked is what
        # the next run will ask.
        server = _memory(writer.bucket)[1]
        if server:
            _write_memory(writer, verdict, server)
    except StorageError as error:
        console.warn(f"the next run will probe the store again: {error.message}")


def _write_memory(writer: Writer, verdict: Verdict, server: str) -> None:
    plain = {
        "schema": SCHEMA,
        "store": _identity(writer.bucket, server),
        "dialect": verdict.dialect.value,
    }
    writer.put_anyway(MEMORY, json.dumps(plain, indent=1).encode() + b"\n", _HEADERS)


def _identity(bucket: Bucket, server: str) -> dict[str, str]:
    """What must be the same for an earlier answer to hold."""
    return {
        "url": bucket.url,
        "endpoint": bucket.endpoint,
        "server": server,
        "lago-images": version("lago-images"),
    }


def _server_of(answer: Mapping[str, Any]) -> str:
    return str(answer["ResponseMetadata"]["HTTPHeaders"].get("server", ""))
