"""Check the properties this project knows.

A key that is not known is carried through to lago's ``.metadata``, unless it comes so near to a
known one that it is more likely a slip.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

from lago_images.specs.boot_check import MUST_BE, NO_REASON, is_boot_check
from lago_images.specs.names import ARCHITECTURE_ALIASES, ARCHITECTURES, NAME, shown, suggestion

VALUE_LENGTH = 1000
REQUIRED = MappingProxyType(
    {
        "base": "virt-builder and lago need an image, and an image needs a base",
        "arch": "virt-builder's index needs it",
        "distro": "lago chooses how to set up a machine by it",
    }
)
BOOTSTRAP_ONLY = ("packages", "mirror", "snapshot", "cloud-init")
FIRMWARES = ("bios", "uefi")
# A BIOS is of IBM's PC and its successors alone.
BIOS_ARCHITECTURES = frozenset(("i686", "x86_64"))

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([1-9][0-9]{0,15})([KMGT]?)")
_SMALLEST, _LARGEST = 2**20, 2**46
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_SEPARATORS = re.compile(r"[,\s]+")
# What apt's sources.list takes for a URL, and no place for something to be put in.
_MIRROR = re.compile(r"https?://[^?\[\]{}]+")
_SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{6}Z")
# Below this a word is not a slip of the known one: `user` is not `size`, `vesion` is `version`.
_SLIP = 0.8
# In short words one letter is much, and these are words of their own.
_NO_SLIPS = frozenset(("case", "game", "same", "side", "site", "test"))
_LEAST = 4


class Rule(NamedTuple):
    """A property's rule: a test of the value, and in words."""

    accepts: Callable[[str], object]
    must_be: str


def size_bytes(value: str) -> int | None:
    """Return the bytes of a size such as ``6G`` (K, M, G and T are powers of 1024), else None."""
    match = _SIZE.fullmatch(value)
    return int(match[1]) * _UNITS[match[2]] if match else None


def words(value: str) -> tuple[str, ...]:
    """Return the words of a list with commas or blanks, such as ``packages``."""
    return tuple(word for word in _SEPARATORS.split(value) if word)


def firmwares(properties: Mapping[str, str]) -> tuple[str, ...]:
    """Return the kinds of firmware that the property ``firmware`` names; none without it."""
    named = words(properties.get("firmware", ""))
    return tuple(kind for kind in FIRMWARES if kind in named)


def _pattern(pattern: str, must_be: str) -> Rule:
    return Rule(re.compile(pattern).fullmatch, must_be)


def _all(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda value: bool(words(value)) and all(map(pattern.fullmatch, words(value)))


def _is_size(value: str) -> bool:
    size = size_bytes(value)
    return size is not None and _SMALLEST <= size <= _LARGEST


def _is_moment(value: str) -> bool:
    try:
        return bool(_SNAPSHOT.fullmatch(value) and datetime.strptime(value, "%Y%m%dT%H%M%S%z"))
    except ValueError:
        return False


def is_url(value: str) -> bool:
    """Return whether a value is an http(s) URL without a password, blanks or a fragment."""
    try:
        url = urlsplit(value)
        return (
            url.scheme in {"http", "https"}
            and bool(url.hostname)
            and url.username is None
            and not url.fragment
            and value.isascii()
            and not re.search(r"[\s\"'\\<>]", value)
            and (url.port is None or url.port > 0)
        )
    except ValueError:
        return False


def _is_place(value: str) -> bool:
    return is_url(value) and "?" not in value


def _is_places(value: str) -> bool:
    return bool(value.split()) and all(map(_is_place, value.split()))


def _is_mirrors(value: str) -> bool:
    urls = value.split()
    return bool(urls) and all(_MIRROR.fullmatch(url) and is_url(url) for url in urls)


def _is_firmwares(value: str) -> bool:
    return sorted(words(value)) in (["bios"], ["uefi"], ["bios", "uefi"])


_WORD = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
_IS_WORD = "letters, digits and ._+- after a first letter or digit"
_DEVICE = r"/dev(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._+-]+)+"
_IS_DEVICE = "a device such as /dev/sda1"
_ARE_MIRRORS = "http or https URLs without a password, with blanks between"

KNOWN: Mapping[str, Rule] = MappingProxyType(
    {
        "aliases": Rule(_all(NAME), "names with commas or blanks between them"),
        "arch": Rule(ARCHITECTURES.__contains__, "one of " + ", ".join(sorted(ARCHITECTURES))),
        "base": Rule(bool, "libguestfs:…, layer:…, simple:… or bootstrap:…"),
        "base-checksum": _pattern(r"sha256:[0-9a-f]{64}", "sha256: and 64 hexadecimal digits"),
        "base-checksums": Rule(_is_place, "an http or https URL without a password or a query"),
        "base-key": Rule(bool, "a file in the repository"),
        "base-mirror": Rule(_is_places, _ARE_MIRRORS),
        "boot-test": Rule(is_boot_check, MUST_BE),
        "cloud-init": _pattern("yes|no", "yes or no"),
        "distro": _pattern(_WORD, _IS_WORD),
        "expand": _pattern(_DEVICE, _IS_DEVICE),
        "firmware": Rule(_is_firmwares, "bios, uefi, or both with a comma or blank between"),
        "hidden": _pattern("true|false", "true or false"),
        "lvexpand": _pattern(_DEVICE, _IS_DEVICE),
        "mirror": Rule(_is_mirrors, _ARE_MIRRORS),
        "name": Rule(bool, "some text"),
        "notes": Rule(bool, "some text"),
        "osinfo": _pattern(_WORD, _IS_WORD),
        "packages": Rule(_all(_PACKAGE), "Debian package names with commas or blanks between"),
        "root-partition": _pattern(_DEVICE, _IS_DEVICE),
        "size": Rule(_is_size, "a size from 1M to 64T such as 6G"),
        "snapshot": Rule(_is_moment, "a moment such as 20260131T120000Z"),
        "version": _pattern(_WORD, _IS_WORD),
    }
)


def value_problem(key: str, value: str) -> str | None:
    """Return what is wrong with a property; None if nothing is."""
    rule = KNOWN.get(key)
    if rule is None:
        slip = _slip(key)
        if slip:
            return f"unknown property {key!r}{slip}"
    elif not rule.accepts(value):
        if key == "arch" and value in ARCHITECTURE_ALIASES:
            return f"arch {value!r} is spelled {ARCHITECTURE_ALIASES[value]!r} here"
        if key == "boot-test" and value.rstrip(": ") == "no":
            return NO_REASON
        return f"{key} must be {rule.must_be}, not {shown(value)}"
    if len(value) > VALUE_LENGTH:
        return f"{key} has {len(value)} characters, more than {VALUE_LENGTH}"
    return None


@lru_cache(maxsize=1024)
def _slip(key: str) -> str:
    plain = key.lower().replace("_", "-")
    if plain in KNOWN:
        return suggestion(plain, KNOWN, cutoff=1.0)
    if plain in _NO_SLIPS:
        return ""
    near = [known for known in KNOWN if _is_one_apart(plain, known) or known.endswith(f"-{plain}")]
    sure = near if len(plain) >= _LEAST else []
    return suggestion(plain, sure or KNOWN, cutoff=0.0 if sure else _SLIP)


def _is_one_apart(word: str, other: str) -> bool:
    """Return whether one other letter, or two that changed places, make the difference."""
    if len(word) != len(other):
        return False
    differ = [place for place, pair in enumerate(zip(word, other, strict=True)) if len({*pair}) > 1]
    if len(differ) == 1:
        return True
    first, last = differ[0], differ[-1]
    swapped = word[first] == other[last] and word[last] == other[first]
    return swapped and differ == [first, first + 1]
