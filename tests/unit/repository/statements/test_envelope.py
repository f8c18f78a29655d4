"""What needs no gpg; the signatures are in tests/real/test_statements.py."""

import base64
import json

import pytest

from lago_images.errors import SigningError
from lago_images.host.process import Runner
from lago_images.repository.rendering.signing import Signer
from lago_images.repository.statements import envelope

GOOD = {
    "payload": base64.b64encode(b"{}\n").decode(),
    "payloadType": envelope.TYPE,
    "signatures": [{"keyid": "AB", "sig": base64.b64encode(b"signature").decode()}],
}


class NoRunner(Runner):
    def started(self, argv, **more):
        pytest.fail(f"{argv} was started")


def refused(data, match):
    with pytest.raises(SigningError, match=match) as caught:
        envelope.verify(data, [], NoRunner(), {}, where="the envelope")
    return caught.value


def test_an_unsigned_repository_has_no_envelopes():
    with pytest.raises(SigningError, match="no key"):
        envelope.sign(b"{}\n", Signer())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"7",
        b"\xff",
        b"[" * 100_000,
        *(json.dumps({**GOOD, "payload": value}).encode() for value in (None, 7, "%%%", "ä")),
        *(
            json.dumps({**GOOD, "signatures": value}).encode()
            for value in (
                None,
                7,
                ["x"],
                [{}],
                [{"keyid": "AB"}],
                [{"keyid": "AB", "sig": "%%%"}],
                [{"keyid": "AB", "sig": None}],
                [{"keyid": ["AB"], "sig": "AAAA"}],
                [{"keyid": "AB", "sig": "AAAA"}] * 2,
            )
        ),
    ],
)
def test_an_invalid_envelope_is_refused(data):
    refused(data, "^the envelope is no DSSE envelope: ")


@pytest.mark.parametrize(
    "kind", ["", "text/plain", envelope.TYPE.upper(), None, 7, [envelope.TYPE]]
)
def test_an_envelope_of_another_payload_type_is_refused(kind):
    refused(json.dumps({**GOOD, "payloadType": kind}).encode(), "^the envelope holds ")


def test_an_error_message_is_bounded_in_length():
    long = "x" * 100_000
    for more in ({"payloadType": long}, {"payload": [long]}, {"signatures": long}):
        error = refused(json.dumps({**GOOD, **more}).encode(), r"^the envelope ")
        assert len(error.message) < 1000
