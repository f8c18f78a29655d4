"""The status lines of gpg and gpgv, as GnuPG 2.2.40 writes them."""

import pytest

from lago_images.errors import SigningError
from lago_images.host.signature_status import OtherTextError, refusal, signers

ONE, TWO = "D6B91B2688AF6EAB33F76FE9337B235B4893B4BA", "BCD1DD4309B72302CB17BE4FEA8859DD1A5B3301"


def signature(verdict, fingerprint=ONE):
    lines = ["NEWSIG e@example.org", f"KEY_CONSIDERED {fingerprint} 0"]
    lines.append(f"{verdict} {fingerprint[-16:]} e <e@example.org>")
    if verdict not in {"BADSIG", "ERRSIG"}:
        lines.append(f"VALIDSIG {fingerprint} 2020-06-01 1590969600 0 4 0 22 8 01 {fingerprint}")
    return "".join(f"[GNUPG:] {line}\n" for line in lines)


BAD = {
    "EXPKEYSIG": "it is signed with a key that has expired",
    "REVKEYSIG": "it is signed with a key that was revoked",
    "EXPSIG": "its signature has expired",
    "BADSIG": "its signature is of another text",
    "ERRSIG": "its signature cannot be checked",
}


def test_signers_are_the_primary_keys_of_good_signatures():
    assert signers(signature("GOODSIG")) == (ONE,)
    assert signers(signature("GOODSIG") + signature("GOODSIG", TWO)) == (ONE, TWO)
    by_subkey = signature("GOODSIG").replace(f"VALIDSIG {ONE}", f"VALIDSIG {TWO}")
    assert signers(by_subkey) == (ONE,)


@pytest.mark.parametrize("verdict", BAD)
@pytest.mark.parametrize("beside", ["", signature("GOODSIG", TWO)])
def test_one_bad_signature_refuses_all(verdict, beside):
    for status in (signature(verdict) + beside, beside + signature(verdict)):
        with pytest.raises(SigningError) as caught:
            signers(status)
        assert caught.value.message == BAD[verdict]
        assert isinstance(caught.value, OtherTextError) == (verdict == "BADSIG")


def test_expired_keys_are_accepted_on_request_only():
    assert signers(signature("EXPKEYSIG"), expired_keys=True) == (ONE,)
    for verdict in BAD.keys() - {"EXPKEYSIG"}:
        with pytest.raises(SigningError):
            signers(signature(verdict), expired_keys=True)


def test_a_key_that_has_expired_and_was_revoked_is_never_accepted():
    """As GnuPG 2.2.40 says it: without REVKEYSIG."""
    status = signature("EXPKEYSIG") + "[GNUPG:] KEYREVOKED\n"
    with pytest.raises(SigningError, match="was revoked"):
        signers(status, expired_keys=True)


def test_a_program_that_failed_is_no_missing_signature():
    words = "can't create the file: No space left on device"
    assert words in refusal(f"gpg: {words}\n", words).message
    assert refusal("[GNUPG:] NODATA 1\n", words).message.startswith("there is no signature")


@pytest.mark.parametrize(
    "status",
    [
        "",
        "[GNUPG:] NODATA 1\n",
        "[GNUPG:]\n[GNUPG:] \n",
        f"gpg: [GNUPG:] GOODSIG {ONE}\ngpg: [GNUPG:] VALIDSIG {ONE}\n",
        # Neither line alone is a good signature.
        f"[GNUPG:] VALIDSIG {ONE} 2020-06-01 1590969600 0 4 0 22 8 01 {ONE}\n",
        f"[GNUPG:] GOODSIG {ONE[-16:]} e\n",
        signature("GOODSIG") + f"[GNUPG:] GOODSIG {TWO[-16:]} e\n",
    ],
)
def test_incomplete_status_lines_are_refused(status):
    with pytest.raises(SigningError, match="there is no signature, or none that gpg can use"):
        signers(status)


def test_an_unknown_key_is_named():
    status = signature("ERRSIG") + f"[GNUPG:] NO_PUBKEY {ONE[-16:]}\n"
    assert f"signed with the key {ONE[-16:]}, which is none of those" in refusal(status).message
