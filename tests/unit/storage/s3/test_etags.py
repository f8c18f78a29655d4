import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.storage.s3.etags import (
    Dialect,
    Part,
    bare,
    base64_sha256,
    composite_sha256,
    in_dialect,
    multipart_etag,
    proves_parts,
    proves_whole,
)
from lago_images.storage.s3.upload import Digest, in_parts


def _part(number: int, data: bytes, *, sha256: bool = True, proven: bool = True) -> Part:
    return Part(
        number=number,
        size=len(data),
        etag=hashlib.md5(data).hexdigest(),
        sha256=base64_sha256(data) if sha256 else "",
        proven=proven,
    )


@pytest.mark.parametrize("etag", ['"abc-2"', "abc-2", 'W/"abc-2"'])
def test_etags_are_stored_without_quotes(etag: str) -> None:
    assert bare(etag) == "abc-2"


def test_etags_are_quoted_as_the_dialect_wants() -> None:
    assert in_dialect("abc", Dialect.QUOTED) == '"abc"'
    assert in_dialect("abc", Dialect.BARE) == "abc"


def test_etag_and_checksum_of_a_multipart_object_are_computed() -> None:
    # Two parts of 5 MiB of "x": what Ceph 20.2 answered.
    parts = [_part(number, b"x" * 5 * 2**20) for number in (1, 2)]
    assert multipart_etag(parts) == "d316408c159ea701ab954894bd3a92c2-2"
    assert composite_sha256(parts) == "2qXW+F4KwLkYFPGnckLOh/NdC0Xlb0SDCCwI2sDVPqE="


def test_a_stored_checksum_proves_the_content_whatever_the_etag() -> None:
    parts = [_part(1, b"a", proven=False), _part(2, b"b", proven=False)]
    head = {"ETag": '"opaque"', "ChecksumSHA256": f"{composite_sha256(parts)}-2"}
    assert proves_parts(head, parts)
    assert not proves_parts(head, list(reversed(parts)))


def test_a_multipart_etag_proves_only_verified_parts() -> None:
    parts = [_part(1, b"a", sha256=False), _part(2, b"b", sha256=False)]
    head = {"ETag": f'"{multipart_etag(parts)}"'}
    assert proves_parts(head, parts)
    assert not proves_parts(head, [parts[0], _part(2, b"b", sha256=False, proven=False)])
    assert not proves_parts({"ETag": '"opaque"'}, parts)
    assert not proves_parts({"ETag": ""}, [Part(number=1, size=1, etag="kms", proven=True)])


def test_the_etag_of_a_whole_object_is_its_md5() -> None:
    sha256, md5 = hashlib.sha256(b"x").hexdigest(), hashlib.md5(b"x").hexdigest()
    kept = base64.b64encode(bytes.fromhex(sha256)).decode()
    assert proves_whole({"ETag": "?", "ChecksumSHA256": kept}, sha256, md5)
    assert proves_whole({"ETag": f'"{md5}"'}, sha256, md5)
    assert not proves_whole({"ETag": '"?"'}, sha256, md5)
    assert not proves_whole({"ETag": '"?"', "ChecksumSHA256": f"{kept}-1"}, sha256, md5)


@given(st.lists(st.binary(max_size=40)), st.integers(1, 16))
def test_a_stream_is_split_into_parts(chunks: list[bytes], size: int) -> None:
    digest = Digest()
    parts = [b"".join(blocks) for blocks in in_parts(chunks, size, digest)]
    assert b"".join(parts) == b"".join(chunks)
    assert all(len(part) == size for part in parts[:-1])
    assert all(0 < len(part) <= size for part in parts)
    assert digest.size == sum(map(len, chunks))
    assert digest.sha256.digest() == hashlib.sha256(b"".join(chunks)).digest()
