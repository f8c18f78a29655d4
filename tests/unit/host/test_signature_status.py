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


def test_who_signed_is_the_primary_key_of_each_good_signature():
    assert signers(signature("GOODSIG")) == (ONE,)
    assert signers(signature("GOODSIG") + signature("GOODSIG", TWO)) == (ONE, TWO)
    by_subkey = signature("GOODSIG").replace(f"VALIDSIG {ONE}", f"VALIDSIG {TWO}")
    assert signers(by_subkey) == (ONE,)


@pytest.mark.parametrize("verdict", BAD)
@pytest.mark.parametrize("beside", ["", signature("GOODSIG", TWO)])
def test_one_that_is_not_good_refuses_all(verdict, beside):
    for status in (signature(verdict) + beside, beside + signature(verdict)):
        with pytest.raises(SigningError) as caught:
            signers(status)
        assert caught.value.message == BAD[verdict]
        assert isinstance(caught.value, OtherTextError) == (verdict == "BADSIG")


def test_a_key_that_expired_counts_where_that_is_asked_for_and_nothing_else_does():
    assert signers(signature("EXPKEYSIG"), expired_keys=True) == (ONE,)
    for verdict in BAD.keys() - {"EXPKEYSIG"}:
        with pytest.raises(SigningError):
            signers(signature(verdict), expired_keys=True)


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
def test_what_is_no_whole_signature_is_none(status):
    with pytest.raises(SigningError, match="there is no signature, or none that gpg can use"):
        signers(status)


def test_a_key_that_is_unknown_is_named():
    status = signature("ERRSIG") + f"[GNUPG:] NO_PUBKEY {ONE[-16:]}\n"
    assert f"signed with the key {ONE[-16:]}, which is none of those" in refusal(status).message
