"""Let only a store that keeps conditional writes be published to.

What the probe found is remembered in the bucket, with all that can change it: another gateway
behind the address, versioning or object lock turned on, another version of lago-images.
"""

import json
import uuid
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from lago_images.console import Console
from lago_images.errors import NotFoundError, StorageError, UnsafeStoreError
from lago_images.storage.base import PROBED, Headers
from lago_images.storage.s3.bucket import Bucket, Feature
from lago_images.storage.s3.conditional import Writer
from lago_images.storage.s3.etags import Abilities, Dialect, base64_md5
from lago_images.storage.s3.failures import transient
from lago_images.storage.s3.probe import FOLDER, probe
from lago_images.storage.s3.verdict import Verdict

MEMORY = PROBED
SCHEMA = 3
_HEADERS = Headers(content_type="application/json", cache_control="no-store")
_RISK = "with single-writer = true a second publisher at the same time would lose releases"


def ensure_safe(writer: Writer, *, single_writer: bool, console: Console) -> None:
    """Teach a writer and its bucket what the store does; see ``Store.ensure_safe_writes``.

    Costs three requests where the answer is remembered.
    """
    # "Unsafe" is not remembered: a store that is mended should be let in by the next run.
    remembered = _recall(writer.bucket)
    verdict = remembered or _probed(writer, console)
    _apply(writer, verdict, single_writer=single_writer, console=console)

    def again() -> None:
        console.warn(f"{writer.bucket.where} now keeps versions of objects: it is probed again")
        anew = _probed(writer, console)
        _apply(writer, anew, single_writer=single_writer, console=console)

    writer.on_versions = None if verdict.is_versioned else again


def _probed(writer: Writer, console: Console) -> Verdict:
    verdict = probe(writer.bucket)
    if verdict.is_safe:
        _remember(writer, verdict, console)
    return verdict


def _apply(writer: Writer, verdict: Verdict, *, single_writer: bool, console: Console) -> None:
    bucket = writer.bucket
    if not verdict.is_safe:
        if not single_writer:
            raise _unsafe(bucket, verdict)
        console.warn(f"{bucket.where} does not keep conditional writes; {_RISK}")
        bucket.lacking.add(Feature.CREATION)
    else:
        bucket.lacking.discard(Feature.CREATION)
    bucket.abilities = verdict.abilities
    writer.dialect = verdict.dialect


def _unsafe(bucket: Bucket, verdict: Verdict) -> UnsafeStoreError:
    reasons = "\n".join(f"  - {reason}" for reason in verdict.reasons)
    hint = (
        "use a store that keeps them (AWS S3, Ceph, Cloudflare R2, …), or make sure that only one "
        "publisher ever runs and set single-writer = true"
    )
    if verdict.is_versioned:
        # Ceph keeps conditions of simultaneous writes only where a key has one version.
        hint = f"the bucket keeps versions: suspend versioning, which may mend this; else {hint}"
    return UnsafeStoreError(
        f"{bucket.where} does not keep conditional writes, so two publishers could "
        f"overwrite each other's releases:\n{reasons}",
        hint=hint,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    schema: int
    store: dict[str, str]
    dialect: Dialect
    versioned: bool
    abilities: Abilities


# By the one thread that imports this: see `parsing`.
_DECODER = msgspec.json.Decoder(_Memory)


def _recall(bucket: Bucket) -> Verdict | None:
    """Return what an earlier probe of this very store found; only "safe" is believed."""
    try:
        data, server = _memory(bucket)
    except NotFoundError:
        return None
    try:
        memory = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if memory.schema != SCHEMA or memory.dialect is Dialect.PLAIN:
        return None
    if memory.store != _identity(bucket, server):
        return None
    return Verdict(
        dialect=memory.dialect, abilities=memory.abilities, is_versioned=memory.versioned
    )


def _memory(bucket: Bucket) -> tuple[bytes, str]:
    """Return what is remembered, and the server that the answer names."""

    def fetch(**arguments: Any) -> tuple[bytes, str]:  # noqa: ANN401 -- boto3's arguments
        answer = bucket.small.get_object(**arguments)
        with closing(answer["Body"]) as body:
            data = body.read()
        # How the gateway, and what is before it, name themselves: another one may behave otherwise.
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return data, " ".join(headers[name] for name in ("server", "via") if name in headers)

    doing = "reading what is known of the store"
    remembered: tuple[bytes, str] = bucket.call(doing, fetch, Key=bucket.key(MEMORY))
    return remembered


def _remember(writer: Writer, verdict: Verdict, console: Console) -> None:
    try:
        _write_memory(writer, verdict, "")
        # Servers may name themselves in the answers to some requests only: what is asked is what
        # the next run will ask.
        server = _memory(writer.bucket)[1]
        _write_memory(writer, verdict, server)
    except StorageError as error:
        console.warn(f"the next run will probe the store again: {error.message}")


def _write_memory(writer: Writer, verdict: Verdict, server: str) -> None:
    plain = {
        "schema": SCHEMA,
        "store": _identity(writer.bucket, server),
        "dialect": verdict.dialect.value,
        "versioned": verdict.is_versioned,
        "abilities": asdict(verdict.abilities),
    }
    writer.put_anyway(MEMORY, json.dumps(plain, indent=1).encode() + b"\n", _HEADERS)


def _identity(bucket: Bucket, server: str) -> dict[str, str]:
    """Return what must be the same for an earlier answer to hold."""
    return {
        "url": bucket.url,
        "endpoint": bucket.endpoint,
        "server": server,
        "versioning": _versioning(bucket),
        "object-lock": _object_lock(bucket),
        "lago-images": version("lago-images"),
    }


def _versioning(bucket: Bucket) -> str:
    """Return the bucket's state of versioning, or what a write shows of it.

    Objects of before it was turned on have no version id, so reading tells nothing.
    """
    # A policy may not give s3:GetBucketVersioning, and some stores do not know the request.
    try:
        answer = bucket.call("asking for versioning", bucket.small.get_bucket_versioning)
        return str(answer.get("Status", "Never"))
    except StorageError as error:
        _need_answer(error)
    key = bucket.key(f"{FOLDER}{uuid.uuid4().hex}")
    answer = bucket.call(
        "asking for versioning", bucket.small.put_object, Key=key, Body=b"", ContentMD5=base64_md5()
    )
    with suppress(StorageError):
        bucket.call("deleting the question", bucket.small.delete_object, Key=key)
    return "version ids" if answer.get("VersionId") else "no version ids"


def _object_lock(bucket: Bucket) -> str:
    """Return the bucket's default retention; empty where there is none, or no right to ask."""
    try:
        answer = bucket.call("asking for object lock", bucket.small.get_object_lock_configuration)
    except StorageError as error:
        _need_answer(error)
        return ""
    return json.dumps(answer.get("ObjectLockConfiguration", {}), sort_keys=True)


def _need_answer(error: StorageError) -> None:
    """Raise what is no refusal of a store: it may answer otherwise a little later."""
    cause = error.__cause__
    if not isinstance(cause, ClientError) or transient(cause):
        raise error
