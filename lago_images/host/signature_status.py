"""Read what gpg and gpgv say of signatures for programs: the lines of ``--status-fd``.

Their exit codes do not tell: both end with 0 for a signature by a key that was revoked, or that has
expired. GnuPG's doc/DETAILS describes the lines.
"""

from collections.abc import Iterator

from lago_images.errors import SigningError

_STATUS = "[GNUPG:] "
_GOOD = "GOODSIG"
_EXPIRED_KEY = "EXPKEYSIG"
_REVOKED = "it is signed with a key that was revoked"
# Beside EXPKEYSIG, in the place of REVKEYSIG, where a key has expired and was revoked, too.
_REVOKED_TOO = "KEYREVOKED"
# For each signature gpg writes one of these lines.
_VERDICTS = {
    _GOOD: "",
    "BADSIG": "its signature is of another text",
    "REVKEYSIG": _REVOKED,
    _EXPIRED_KEY: "it is signed with a key that has expired",
    "EXPSIG": "its signature has expired",
    "ERRSIG": "its signature cannot be checked",
}


class OtherTextError(SigningError):
    """A signature is of another text: one of the two was replaced, or somebody changed it."""


def signers(status: str, *, expired_keys: bool = False) -> tuple[str, ...]:
    """Return who signed a text, by the primary keys' fingerprints.

    Args:
        status: The lines of gpg or gpgv that ended with 0.
        expired_keys: Take signatures by keys that have expired since, too.

    Raises:
        OtherTextError: A signature is of another text.
        SigningError: There is none, or one of them is not good: its key is unknown, was revoked or
            has expired, or the signature has.
    """
    accepted = {_GOOD, _EXPIRED_KEY} if expired_keys else {_GOOD}
    events = list(_events(status))
    kinds = {kind for kind, _ in events}
    verdicts = [kind for kind, _ in events if kind in _VERDICTS]
    # The last word of VALIDSIG, which stands beside any verdict but a bad one.
    valid = tuple(words[-1] for kind, words in events if kind == "VALIDSIG")
    is_good = accepted.issuperset(verdicts) and _REVOKED_TOO not in kinds
    if not valid or len(valid) != len(verdicts) or not is_good:
        raise refusal(status)
    return valid


def refusal(status: str, otherwise: str = "") -> SigningError:
    """Return what is wrong with the signatures that gpg or gpgv has refused.

    ``otherwise`` is how the program failed, for where it says nothing of what it read: it may lack
    disk space, or time.
    """
    events = list(_events(status))
    kinds = {kind for kind, _ in events}
    if missing := [words[0] for kind, words in events if kind == "NO_PUBKEY"]:
        return SigningError(
            f"it is signed with the key {missing[0]}, which is none of those it is checked with"
        )
    if _REVOKED_TOO in kinds:
        return SigningError(_REVOKED)
    for kind, what in _VERDICTS.items():
        if what and kind in kinds:
            return OtherTextError(what) if kind == "BADSIG" else SigningError(what)
    if otherwise and not events:
        return SigningError(f"the signature could not be checked: {otherwise}")
    return SigningError("there is no signature, or none that gpg can use")


def _events(status: str) -> Iterator[tuple[str, list[str]]]:
    for line in status.splitlines():
        if line.startswith(_STATUS):
            kind, _, words = line.removeprefix(_STATUS).partition(" ")
            yield kind, words.split()
