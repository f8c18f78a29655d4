from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from lago_images.errors import NotFoundError
from lago_images.host.retry import RetryPolicy
from lago_images.storage.base import Blob, Headers
from lago_images.storage.s3.conditional import Write, WriteFailure, Writer, as_expected, outcome
from lago_images.storage.s3.failures import code_of, status_of, transient, translate

URL = "http://127.0.0.1:1"


def _answer(status: int, code: str) -> ClientError:
    metadata = {"HTTPStatusCode": status}
    plain = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": metadata}
    return ClientError(plain, "PutObject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "expected", "what"),
    [
        (_answer(412, "PreconditionFailed"), None, WriteFailure.LOST),
        (_answer(412, "PreconditionFailed"), "e", WriteFailure.LOST),
        (_answer(404, "NoSuchKey"), "e", WriteFailure.LOST),
        (_answer(404, "NoSuchKey"), None, WriteFailure.REFUSED),
        (_answer(404, "NoSuchBucket"), "e", WriteFailure.REFUSED),
        (_answer(409, "ConditionalRequestConflict"), "e", WriteFailure.BUSY),
        (_answer(500, "InternalError"), None, WriteFailure.UNSURE),
        (_answer(503, "SlowDown"), None, WriteFailure.UNSURE),
        (ReadTimeoutError(endpoint_url=URL), "e", WriteFailure.UNSURE),
        (ConnectionClosedError(endpoint_url=URL), "e", WriteFailure.UNSURE),
        (_answer(501, "NotImplemented"), "e", WriteFailure.REFUSED),
        (_answer(403, "AccessDenied"), "e", WriteFailure.REFUSED),
        (NoCredentialsError(), "e", WriteFailure.REFUSED),
    ],
)
def test_a_failed_write_is_classified_by_its_answer(
    error: Exception, expected: str | None, what: WriteFailure
) -> None:
    assert outcome(error, expected) is what


def test_temporary_failures_are_retried() -> None:
    assert all(transient(_answer(status, "")) for status in (408, 429, 500, 502, 503, 504))
    assert not any(transient(_answer(status, "")) for status in (400, 401, 403, 404, 412, 501))
    assert transient(EndpointConnectionError(endpoint_url=URL))
    assert not transient(SSLError(endpoint_url=URL, error=ValueError("x")))


@pytest.mark.parametrize(
    ("status", "code", "absent"),
    [(404, "NoSuchKey", True), (404, "NoSuchBucket", False), (404, "404", False)]
    + [(status, "NoSuchKey", False) for status in (400, 403, 500)],
)
def test_only_a_404_of_the_key_means_missing(status: int, code: str, absent: bool) -> None:
    error = translate(_answer(status, code), doing="reading k", where="s3://bk1", bucket="bk1")
    assert isinstance(error, NotFoundError) is absent
    assert error.hint or absent or status == 400


def test_the_error_code_is_taken_from_the_cause() -> None:
    cause = _answer(403, "AccessDenied")
    error = translate(cause, doing="reading k", where="s3://bk1", bucket="bk1")
    error.__cause__ = cause
    assert (code_of(error), status_of(error)) == ("AccessDenied", 403)
    assert "403 AccessDenied" in error.message
    assert "s3:ListBucket" in (error.hint or "")


def test_a_retried_write_recognises_its_own_object() -> None:
    write = Write(key="k", data=b"d", expected=None, headers=Headers(), nonce="n")
    same = Blob(key="k", data=b"d", etag="e")
    assert write.is_applied(same, "n")
    assert not write.is_applied(same, "another")
    assert write.is_applied(same, "")
    assert not write.is_applied(Blob(key="k", data=b"other", etag="e"), "")
    assert not write.is_applied(None, "")


@pytest.mark.parametrize(
    ("expected", "condition"), [(None, {"IfNoneMatch": "*"}), ("e", {"IfMatch": '"e"'})]
)
def test_every_write_carries_its_condition(expected: str | None, condition: dict) -> None:
    sent: list[dict] = []

    def put_object(**arguments: Any) -> dict:
        sent.append(arguments)
        return {"ETag": '"new"'}

    client = SimpleNamespace(put_object=put_object)
    bucket: Any = SimpleNamespace(
        name="b", where="s3://b", key=str, retry=RetryPolicy(), small=client
    )
    assert Writer(bucket=bucket).write("k", b"d", expected, Headers()) == "new"
    conditions = [
        {name: value for name, value in one.items() if name.startswith("If")} for one in sent
    ]
    assert conditions == [condition]


def test_a_stored_object_is_compared_with_the_expected_etag() -> None:
    blob = Blob(key="k", data=b"", etag="e")
    assert as_expected(None, None)
    assert as_expected(blob, "e")
    assert not as_expected(blob, None)
    assert not as_expected(None, "e")
    assert not as_expected(blob, "f")


def test_pauses_grow_to_a_limit() -> None:
    pauses: list[float] = []
    retry = RetryPolicy(delay=1, longest=5, sleep=pauses.append, chance=lambda: 0.5)
    for attempt in range(1, 6):
        retry.wait(attempt, "it failed")
    assert pauses == [0.75, 1.5, 3.0, 3.75, 3.75]
