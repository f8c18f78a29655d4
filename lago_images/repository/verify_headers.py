"""What a web server tells clients and caches of a repository's objects."""

import re
from collections.abc import Iterator, Mapping

from lago_images.repository import layout
from lago_images.repository.verify_model import Finding, problem

# Seconds. A proxy that keeps an index longer than this hides publications and withdrawals.
LONGEST = 3600
_DAY = 86_400
_MAX_AGE = re.compile(r"(?:s-maxage|max-age)=([0-9]+)")
_REPAIR = "set it in the web server, or serve with lago-images serve; docs/operations.md"


def check(told: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """What is wrong with the headers that each key was served with, names in small letters."""
    for key, headers in sorted(told.items()):
        if not headers.get("content-length", "").isdecimal():
            # lago reads it, and virt-builder shows progress with it.
            yield problem(key, "it is served without Content-Length", _REPAIR)
        if headers.get("content-encoding", "identity") != "identity":
            yield problem(key, "it is served with a Content-Encoding: clients get it as it is sent",
                          _REPAIR)  # fmt: skip
        yield from _caching(key, headers.get("cache-control", ""))


def _caching(key: str, said: str) -> Iterator[Finding]:
    ages = [int(age) for age in _MAX_AGE.findall(said)]
    if key.startswith((layout.BUILDS, layout.RELEASES)):
        if "immutable" not in said or max(ages, default=0) < _DAY:
            what = f"Cache-Control is {said!r}: it never changes, and caches are not told"
            yield problem(key, what, _REPAIR)
    elif "no-cache" not in said and "no-store" not in said and not ages:
        yield problem(key, f"Cache-Control is {said!r}: caches may keep it as they like", _REPAIR)
    elif max(ages, default=0) > LONGEST:
        yield problem(key, f"Cache-Control is {said!r}: caches may keep it too long", _REPAIR)
