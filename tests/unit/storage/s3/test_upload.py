"""What an upload sends: the SDK's clients are stand-ins that note it."""

from types import SimpleNamespace
from typing import Any

import pytest

from lago_images.storage.base import Headers
from lago_images.storage.s3.bucket import Bucket
from lago_images.storage.s3.upload import Uploader

PART = 8


def answering(sent: list[tuple[str, dict[str, Any]]]) -> Any:
    """A client that keeps nothing, and answers as a store that keeps SHA-256 does."""

    def call(name: str) -> Any:
        def answer(**arguments: Any) -> dict[str, Any]:
            sent.append((name, arguments))
            body = arguments.get("Body", b"")
            if not isinstance(body, bytes):
                body = b"".join(iter(body.read, b""))
            stored.append(body)
            checksum = {"ChecksumSHA256": arguments.get("ChecksumSHA256", "")}
            size = {"ContentLength": sum(map(len, stored))}
            return {"ETag": '"e"', "UploadId": "u", "ChecksumAlgorithm": "SHA256"} | checksum | size

        return answer

    stored: list[bytes] = []
    events = SimpleNamespace(register=lambda *_: None, register_first=lambda *_: None)
    names = ("put_object", "create_multipart_upload", "upload_part", "complete_multipart_upload")
    calls = {name: call(name) for name in (*names, "head_object")}
    return SimpleNamespace(meta=SimpleNamespace(events=events, endpoint_url="http://s3"), **calls)


@pytest.mark.parametrize(
    ("size", "creation"), [(PART - 1, "put_object"), (PART + 1, "complete_multipart_upload")]
)
def test_the_request_that_creates_an_object_has_if_none_match(
    size: int, creation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    client = answering(sent)
    monkeypatch.setattr("lago_images.storage.s3.upload.proves_whole", lambda *_: True)
    monkeypatch.setattr("lago_images.storage.s3.upload.proves_parts", lambda *_: True)
    bucket = Bucket(name="b", prefix="", small=client, bulk=client, patient=client)
    Uploader(bucket=bucket, part_size=PART).upload("k", [bytes(size)], Headers(), lambda _: None)
    conditional = [name for name, arguments in sent if arguments.get("IfNoneMatch") == "*"]
    assert conditional == [creation]
