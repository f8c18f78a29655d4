"""Find out whether a bucket's store keeps conditional writes, by asking it to.

Some stores answer 200 to a conditional write and overwrite, so a name or a version proves
nothing. The probe writes, races and deletes a few small objects under ``state/probe/``.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any

from lago_images.errors import NotFoundError, StorageError
from lago_images.host.threads import side_by_side, undo
from lago_images.storage.base import PROBING
from lago_images.storage.s3.bucket import CONNECTIONS, Bucket
from lago_images.storage.s3.etags import (
    SHA256,
    Abilities,
    Dialect,
    bare,
    base64_md5,
    base64_sha256,
    full_sha256,
    hexadecimal,
    in_dialect,
)
from lago_images.storage.s3.failures import Failure, request, status_of, understood
from lago_images.storage.s3.listing import listed
from lago_images.storage.s3.verdict import MISMATCH, WRITTEN, Findings, Race, Verdict, judge

FOLDER = PROBING
ROUNDS = 3
# As many times more where the bucket has versions: Ceph's checks are not atomic then, and a busy
# machine hides that in most rounds.
VERSIONED = 4
# Writers of a round, to each of its two objects: those whom the condition fits, of whom one may
# win, and those whom it does not. In all as many as there are connections: none waits for another.
RIVALS = CONNECTIONS // 2 - 2
MISFITS = 2
# Seconds.
_OLD = 3600
_ANSWERS = frozenset({400, 405, 409, MISMATCH, 501})
_BODY, _FALSE = b"first", b"another body"


def probe(bucket: Bucket) -> Verdict:
    """Ask the store, about 90 small requests; nothing of it is left, nor of killed probes.

    Raises:
        StorageError: It failed in a way that answers nothing.
    """
    prober = Prober(bucket=bucket)
    _remove_leftovers(bucket)
    try:
        findings = prober.findings()
    except BaseException as error:
        undo(error, prober.clean)
        raise
    prober.clean()
    return judge(findings)


def _remove_leftovers(bucket: Bucket) -> None:
    """Remove what killed probes left, as far as that is allowed.

    What is younger than an hour may be of a probe at work.
    """
    before = time.time() - _OLD
    with suppress(StorageError):
        for stat in listed(bucket, FOLDER, ()):
            if stat.modified < before:
                key = bucket.key(stat.key)
                bucket.call(f"deleting {stat.key}", bucket.small.delete_object, Key=key)


@dataclass(slots=True, kw_only=True)
class Prober:
    """Prober asks one bucket's store; the objects that it makes are its own."""

    bucket: Bucket
    folder: str = field(default_factory=lambda: f"{FOLDER}{uuid.uuid4().hex}/")
    keys: list[str] = field(default_factory=list)
    is_versioned: bool = False

    def findings(self) -> Findings:
        """Return the store's answers to one question after the other, then to many at once."""
        key, _ = self._created()
        create_again = self._status(key, b"again", IfNoneMatch="*")
        other = {"IfMatch": f'"{"0" * 32}"'}
        stale = self._status(key, b"stale", **other)
        absent = self._status(self._new_key(), b"absent", **other)
        if (create_again, stale) != (MISMATCH, MISMATCH) or absent == WRITTEN:
            # Unsafe already: what follows would tell nothing more.
            return Findings(
                create_again=create_again,
                stale=stale,
                absent=absent,
                fresh_quoted=WRITTEN,
                is_versioned=self.is_versioned,
            )
        quoted = self._fresh(Dialect.QUOTED)
        unquoted = None if quoted == WRITTEN else self._fresh(Dialect.BARE)
        dialect = Dialect.QUOTED if quoted == WRITTEN else Dialect.BARE
        times = ROUNDS * (VERSIONED if self.is_versioned else 1)
        rounds = [self._race(dialect) for _ in range(times)]
        return Findings(
            create_again=create_again,
            stale=stale,
            absent=absent,
            fresh_quoted=quoted,
            fresh_bare=unquoted,
            creations=tuple(creation for creation, _ in rounds),
            replacements=tuple(replacement for _, replacement in rounds),
            abilities=self.abilities(),
            is_versioned=self.is_versioned,
        )

    def clean(self) -> None:
        """Remove what was written; what cannot be is no reason to fail."""
        for key in self.keys:
            try:
                self._call("removing", self.bucket.small.delete_object, Key=key)
            except StorageError:
                return

    def _created(self) -> tuple[str, str]:
        """Make an object; return its key and ETag."""
        # A lost answer makes its own repetition fail with 412: then another key.
        for _ in range(3):
            key = self._new_key()
            if self._status(key, _BODY, IfNoneMatch="*") == WRITTEN:
                return key, self._etag(key)
        # No conditional creation at all: If-None-Match is asked again on what exists now.
        key = self._plain()
        return key, self._etag(key)

    def _plain(self, **checksum: str) -> str:
        key = self._new_key()
        self._put(key, _BODY, **checksum)
        return key

    def _fresh(self, dialect: Dialect) -> int:
        """Return the answer to If-Match with an object's own ETag."""
        status = 0
        for _ in range(3):
            key, etag = self._created()
            status = self._status(key, b"fresh", IfMatch=in_dialect(etag, dialect))
            # A refusal of an object that did change is about a write whose answer was lost.
            if status == WRITTEN or self._etag(key) == etag:
                break
        return status

    def _race(self, dialect: Dialect) -> tuple[Race, Race]:
        """Let creators and replacers write at once, to a missing object and to one that exists."""
        missing = self._new_key()
        existing, etag = self._created()
        create = {"IfNoneMatch": "*"}
        replace = {"IfMatch": in_dialect(etag, dialect)}
        # A store that checks before it locks lets two rivals win. One that replaces by deleting
        # first, or locks for one kind of condition only, lets a writer of the other kind in.
        writers = [
            *[(missing, create)] * RIVALS,
            *[(missing, replace)] * MISFITS,
            *[(existing, replace)] * RIVALS,
            *[(existing, create)] * MISFITS,
        ]
        start = Barrier(len(writers))

        def write(number: int) -> int:
            key, condition = writers[number]
            start.wait()
            return self._once(key, number, condition)

        with side_by_side(len(writers), "probe") as workers:
            statuses = tuple(workers.map(write, range(len(writers))))
        half = len(writers) // 2
        return (
            self._outcome(missing, 0, statuses[:half]),
            self._outcome(existing, half, statuses[half:]),
        )

    def _outcome(self, key: str, first: int, statuses: tuple[int, ...]) -> Race:
        """Look at what the race of the writers from number ``first`` on left behind."""
        winners = [number for number, status in enumerate(statuses, first) if status == WRITTEN]
        return Race(
            rivals=statuses[:RIVALS],
            misfits=statuses[RIVALS:],
            # A loser whose answer was a 500 may have been applied after the winner.
            keeps_winner=len(winners) != 1 or self._body(key) == b"%d" % winners[0],
        )

    def abilities(self) -> Abilities:
        """Look for optional features; a store that refuses to be asked has none."""
        return Abilities(
            creates_copies=self._has(self._creates_copies), sums_copies=self._has(self._sums_copies)
        )

    def _has(self, feature: Callable[[], bool]) -> bool:
        try:
            return feature()
        except StorageError as error:
            if not status_of(error):
                raise
            return False

    def _creates_copies(self) -> bool:
        source, target = self._plain(), self._plain()
        try:
            self._copy(source, target, IfNoneMatch="*")
        except StorageError as error:
            return status_of(error) == MISMATCH
        return False

    def _sums_copies(self) -> bool:
        """Compare the checksums of copies with what is copied.

        A store may hand on the checksum that the source was stored with, and may have believed
        whoever stored it (rclone does both): so copies are made of objects without a checksum,
        and with a false one where the store takes it.
        """
        sources = [self._plain()]
        false = {"ChecksumSHA256": base64_sha256(_FALSE)}
        for checksum in (false, {**false, "ChecksumAlgorithm": SHA256}):
            with suppress(StorageError):
                sources.append(self._plain(**checksum))
        head = self.bucket.small.head_object
        for source in sources:
            target = self._new_key()
            self._copy(source, target, ChecksumAlgorithm=SHA256)
            answer = self._call("reading", head, Key=target, ChecksumMode="ENABLED")
            if full_sha256(answer) != _BODY_SHA256:
                return False
        return True

    def _copy(self, source: str, target: str, **feature: str) -> None:
        origin = {"Bucket": self.bucket.name, "Key": source}
        copy = self.bucket.small.copy_object
        self._call("copying", copy, Key=target, CopySource=origin, **feature)

    def _new_key(self) -> str:
        key = self.bucket.key(f"{self.folder}{len(self.keys)}")
        self.keys.append(key)
        return key

    def _etag(self, key: str) -> str:
        answer = self._call("reading", self.bucket.small.head_object, Key=key)
        with understood("probing the store (reading)", self.bucket.where):
            return bare(answer["ETag"])

    def _body(self, key: str) -> bytes:
        def fetch(**arguments: Any) -> bytes:  # noqa: ANN401 -- boto3's arguments
            with closing(self.bucket.small.get_object(**arguments)["Body"]) as body:
                return bytes(body.read())

        return bytes(self._call("reading", fetch, Key=key))

    def _status(self, key: str, body: bytes, **condition: str) -> int:
        """Return the answer to a write, tried again where there was none."""
        try:
            self._put(key, body, **condition)
        except StorageError as error:
            # 403, 404 and the like are about the bucket, not about the condition; but for the 404
            # of a missing key.
            if isinstance(error, NotFoundError) or status_of(error) in _ANSWERS:
                return status_of(error)
            raise
        return WRITTEN

    def _put(self, key: str, body: bytes, **more: str) -> None:
        put = self.bucket.small.put_object
        answer = self._call("writing", put, Key=key, Body=body, ContentMD5=base64_md5(body), **more)
        # The only sign of versioning for a key that may not ask for it.
        self.is_versioned |= bool(answer.get("VersionId"))

    def _once(self, key: str, number: int, condition: Mapping[str, str]) -> int:
        """Return the answer to a racing write; 0 where there was none."""
        put, body = self.bucket.small.put_object, b"%d" % number
        md5 = base64_md5(body)
        try:
            request(put, Bucket=self.bucket.name, Key=key, Body=body, ContentMD5=md5, **condition)
        except Failure as error:
            return status_of(error)
        return WRITTEN

    def _call(self, doing: str, function: Callable[..., Any], **arguments: object) -> Any:  # noqa: ANN401 -- boto3's answers
        return self.bucket.call(f"probing the store ({doing})", function, **arguments)


_BODY_SHA256 = hexadecimal(base64_sha256(_BODY))
