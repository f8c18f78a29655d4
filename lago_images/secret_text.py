"""Find the text of secret keys, so that no message, log or document quotes it.

What people paste into the wrong place is found by its shape: armour that says of itself that it
is a private key, and long runs of base64. A path, a fingerprint and a checksum have none of these.
"""

import re

_ARMOUR = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|\Z)",
    re.DOTALL,
)
# The lines of a key have 64 or more characters, and a secret key of AWS has 40.
_RUN = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")
_KINDS = (re.compile(r"[a-z]"), re.compile(r"[A-Z]"), re.compile(r"[0-9]"))
_WORD = 10
_LOGIN = re.compile(r"(?<=//)[^/\s@:]*:[^/\s@]*@")
# A secret key packet of OpenPGP in its old and new format (RFC 9580, 4.2), and DER's sequence.
_BINARY = re.compile(rb"[\x94-\x97\xc5]|\x30[\x81\x82]")

HIDDEN = "…(looks like a secret key)…"
NOT_A_KEY = (
    "this looks like a key, not the name of one: put it into an environment variable and say "
    "env:VARIABLE"
)


def has_key(text: str) -> bool:
    """Return whether a text holds what looks like a secret key, or a part of one."""
    return bool(_ARMOUR.search(text)) or any(_is_base64(run) for run in _RUN.finditer(text))


def is_binary_key(data: bytes) -> bool:
    """Return whether a file that is no text begins as a secret key does."""
    return bool(_BINARY.match(data))


def without_keys(text: str) -> str:
    """Return a message without the keys, and the passwords in URLs, that it quotes."""
    text = _LOGIN.sub("…@", _ARMOUR.sub(HIDDEN, text))
    return _RUN.sub(lambda run: HIDDEN if _is_base64(run) else run[0], text)


def _is_base64(run: re.Match[str]) -> bool:
    # Of a path, every few characters are a slash; of base64, one in 64.
    is_path = run[0].count("/") * _WORD > len(run[0])
    return not is_path and all(kind.search(run[0]) for kind in _KINDS)


def is_key_alone(text: str) -> bool:
    """Return whether a text has a key's armour, or is nothing but a run of a key's base64."""
    run = _RUN.fullmatch(text.strip())
    return bool(_ARMOUR.search(text)) or (
        # Not whether it may be a path: a line of base64 may begin with a slash, too.
        run is not None and all(kind.search(run[0]) for kind in _KINDS)
    )
