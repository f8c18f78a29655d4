"""Read ETags and checksums: their forms, and what they prove of an object; no I/O."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

# As S3 names the algorithm.
SHA256 = "SHA256"
_MD5 = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[A-Za-z0-9+/]{43}=")


class Dialect(StrEnum):
    """Dialect names the form of a conditional write that a store wants.

    ``QUOTED`` and ``BARE`` are forms of the ETag in ``If-Match``; ``PLAIN`` means that the store
    does not keep conditions, so the writer reads, compares and writes.
    """

    QUOTED = "quoted"
    BARE = "bare"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """Optional features that the probe saw at work; none where nobody has probed.

    Attributes:
        creates_copies: CopyObject keeps If-None-Match.
        sums_copies: The store computes a SHA-256 of all bytes of a copy, when asked to, whatever
            checksum its source has.
    """

    creates_copies: bool = False
    sums_copies: bool = False


def bare(etag: str) -> str:
    """Return an ETag without quotes and without the mark of a weak one, which proxies add."""
    return etag.removeprefix("W/").strip('"')


def in_dialect(etag: str, dialect: Dialect) -> str:
    """Write a bare ETag as ``If-Match`` wants it."""
    # RFC 9110 wants quotes, which Ceph 18 takes for a part of the ETag.
    return etag if dialect is Dialect.BARE else f'"{etag}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a multipart upload.

    Attributes:
        number: Counts from 1.
        size: Bytes.
        etag: Bare, as the store answered it.
        sha256: Base64, of what was sent; empty where the store keeps no SHA-256 of parts.
        proven: The store answered a checksum of what was sent.
    """

    number: int
    size: int
    etag: str
    sha256: str = ""
    proven: bool = False


def base64_sha256(*blocks: bytes | memoryview) -> str:
    """Return the value of ``x-amz-checksum-sha256``."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return base64.b64encode(digest.digest()).decode()


def base64_md5(*blocks: bytes | memoryview) -> str:
    """Return the value of ``Content-MD5``."""
    digest = hashlib.md5(usedforsecurity=False)
    for block in blocks:
        digest.update(block)
    return base64.b64encode(digest.digest()).decode()


def hexadecimal(encoded: str) -> str:
    """Turn Base64 into hexadecimal."""
    return base64.b64decode(encoded).hex()


def multipart_etag(parts: Sequence[Part]) -> str | None:
    """Return most stores' ETag of a multipart object: MD5 of the parts' MD5s, dash, their number.

    None where the parts' ETags are not MD5s, as with some kinds of encryption.
    """
    if not all(_MD5.fullmatch(part.etag) for part in parts):
        return None
    joined = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"


def composite_sha256(parts: Sequence[Part]) -> str | None:
    """Return S3's composite checksum: SHA-256 of the parts' SHA-256s.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    None where a part's SHA-256 was not computed.
    """
    if not all(part.sha256 for part in parts):
        return None
    return base64_sha256(b"".join(base64.b64decode(part.sha256) for part in parts))


def proves_parts(head: Mapping[str, object], parts: Sequence[Part]) -> bool:
    """Decide whether HEAD of a multipart object proves it to be these parts, in this order."""
    # AWS adds the number of parts, "…=-3"; others leave it out.
    kept = str(head.get("ChecksumSHA256", "")).partition("-")[0]
    if kept and kept == composite_sha256(parts):
        return True
    etag = bare(str(head.get("ETag", "")))
    return all(part.proven for part in parts) and etag == multipart_etag(parts)


def full_sha256(head: Mapping[str, object]) -> str | None:
    """Return the SHA-256 of all bytes that HEAD gives, hexadecimal; None where it gives none.

    That of a multipart object is of its parts' checksums: it has their number behind a dash, or
    another type.
    """
    kept = str(head.get("ChecksumSHA256", ""))
    is_full = head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    plain = is_full and _SHA256.fullmatch(kept)
    return hexadecimal(kept) if plain else None


def proves_whole(head: Mapping[str, object], sha256: str, md5: str) -> bool:
    """Decide whether HEAD of an object written by one PUT proves its content.

    ``sha256`` and ``md5`` are hexadecimal.
    """
    # With KMS or customer keys an ETag is no MD5: then it is equal to none.
    return full_sha256(head) == sha256 or bare(str(head.get("ETag", ""))) == md5
