"""Find the text of secret keys, so that no message, log or document quotes it.

What people paste into the wrong place is found by its shape: armour that says of itself that it
is a private key, and long runs of base64. A path is made of words, and what is public says so: a
fingerprint and a checksum by the name before it, a public key by its armour or its first bytes.
"""

import re
from collections.abc import Iterator
from itertools import accumulate

# Of a certificate, signature or public key; SSH2 has four dashes and a blank (RFC 4716, 3.2).
_PUBLIC = (
    r"-{4,5} ?BEGIN (?![A-Z0-9 ]{0,40}PRIVATE)[A-Z0-9 ]{1,60}-{4,5}(?:[^-]|-(?!-))*"
    r"-{4,5} ?END [A-Z0-9 ]{1,60}-{4,5}"
)
_PRIVATE = (
    r"-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY.*?"
    r"(?:-{4,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,40}-{4,5}|\Z)"
)
# The lines of a key have 64 or more characters, and a secret key of AWS has 40.
_SHORTEST = 40
_BASE64 = rf"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{{{_SHORTEST},}}={{0,2}}"
_ARMOUR = re.compile(_PRIVATE, re.DOTALL)
_OPEN = re.compile(_PUBLIC)
_RUN = re.compile(_BASE64)
_SHAPES = re.compile(f"(?P<public>{_PUBLIC})|(?P<private>{_PRIVATE})|(?P<run>{_BASE64})", re.DOTALL)
_WORD = re.compile(r"[A-Z]?[a-z]{3,}|[0-9]{3,}")
_HEX = re.compile(r"(?:0x)?[0-9A-Fa-f]+")
# Of 40 random characters in a row, all but one in 15,000 have as many outside of words.
_WORDLESS = 11
# A length below 256, then ssh-, ecdsa- or sk- (RFC 4253, 6.6; OpenSSH's PROTOCOL.u2f).
_SSH_PUBLIC = re.compile(r"AAAA..(?:NzaC1|VjZHNh|NrL[XW])")
_DIGEST = re.compile(r"sha(256|384|512)\W{1,3}\Z", re.IGNORECASE)
_DIGEST_LENGTHS = {"256": 43, "384": 64, "512": 86}
# What S3 calls a request by, beside its short number.
_REQUEST = re.compile(r"(?:x-amz-id-2|host[ _-]?id)\W{1,4}\Z", re.IGNORECASE)
_BEFORE = 16
# A port is no password, and over HTTP a name alone may be a token: with ssh it is a user.
_NO_PORT = r"(?![0-9]{1,5}[/?#])"
_LOGIN = re.compile(
    rf"(?<=//)[^/\s@:\"<>\[]*:{_NO_PORT}[^/\s\"<>]*@"
    r"|(?:(?<=http://)|(?<=https://))(?:"
    r"[^/\s?#\"<>]+@"
    rf"|[^/\s@:\"<>\[]{{1,256}}:(?![0-9]{{1,5}}[/?#])[^\s@\"<>]{{1,256}}@)",
    re.IGNORECASE,
)
# A secret key packet of OpenPGP in its old and new format (RFC 9580, 4.2), and DER's sequence.
_BINARY = re.compile(rb"[\x94-\x97\xc5]|\x30[\x81\x82]")

HIDDEN = "…(looks like a secret key)…"
NOT_A_KEY = (
    "this looks like a key, not the name of one: put it into an environment variable and say "
    "env:VARIABLE"
)


def is_key_alone(text: str) -> bool:
    """Return whether a text holds a key's armour, or a line that is nothing but a key's base64."""
    lines = _OPEN.sub("", text).splitlines()
    runs = (_RUN.fullmatch(line.strip()) for line in lines)
    return bool(_ARMOUR.search(text)) or any(run and _is_base64(run) for run in runs)


def is_binary_key(data: bytes) -> bool:
    """Return whether a file that is no text begins as a secret key does."""
    return bool(_BINARY.match(data))


def without_keys(text: str) -> str:
    """Return a message without the keys, and the passwords and tokens in URLs, that it quotes."""
    text = _LOGIN.sub("…@", text)
    return _SHAPES.sub(lambda shape: HIDDEN if _is_secret(shape) else shape[0], text)


def _is_secret(shape: re.Match[str]) -> bool:
    return shape.lastgroup == "private" or (shape.lastgroup == "run" and _is_base64(shape))


def _is_base64(run: re.Match[str]) -> bool:
    """Return whether a run of base64's characters is random, and nothing says that it is public."""
    text = run[0].rstrip("=")
    if _is_public(run):
        return False
    # A key may stand at the end of a long path, so that no average tells of it.
    sums = [0, *accumulate(_wordless(text))]
    return any(
        after - before >= _WORDLESS for before, after in zip(sums, sums[_SHORTEST:], strict=False)
    )


def _is_public(run: re.Match[str]) -> bool:
    before = run.string[max(run.start() - _BEFORE, 0) : run.start()]
    digest = _DIGEST.search(before)
    is_digest = digest and len(run[0].rstrip("=")) == _DIGEST_LENGTHS[digest[1]]
    return bool(is_digest or _REQUEST.search(before) or _SSH_PUBLIC.match(run[0]))


def _wordless(text: str) -> Iterator[bool]:
    """Yield for each character whether it belongs to no word, number or digest, as a path's do."""
    for part in text.split("/"):
        if part in (part.lower(), part.upper()) or _HEX.fullmatch(part):
            yield from (False for _ in part)
        else:
            words = _WORD.sub(lambda word: " " * len(word[0]), part)
            yield from (character != " " for character in words)
        yield False
