"""What clients and caches are told of a repository's objects: by a web server, or by a store."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from lago_images.repository import layout
from lago_images.repository.verify_model import REFRESH, Finding, note, problem
from lago_images.storage.base import Blob, Headers, Stat, Store

# Seconds. A proxy that keeps an index longer than this hides publications and withdrawals.
LONGEST = 3600
_DAY = 86_400
_MAX_AGE = re.compile(r"(?:s-maxage|max-age)=([0-9]+)")
_COPY = "copy it over itself with the right headers: docs/operations.md"
_T = TypeVar("_T", Stat, Blob)
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
        yield from _caching(key, headers.get("cache-control", ""), _REPAIR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A store, and in ``told`` the headers that it keeps for what was read of it, by key."""

    store: Store
    told: dict[str, Headers] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.store.url

    def head(self, key: str) -> Stat:
        return self._hear(self.store.head(key))

    def get(self, key: str) -> Blob:
        return self._hear(self.store.get(key))

    def read(self, key: str, *, start: int = 0) -> Iterator[bytes]:
        return self.store.read(key, start=start)

    def _hear(self, found: _T) -> _T:
        if found.headers is not None:
            self.told[found.key] = found.headers
        return found


def kept(told: Mapping[str, Headers]) -> Iterator[Finding]:
    """What is wrong with the headers that a store keeps for its HTTP clients."""
    if told and not any(headers.cache_control for headers in told.values()):
        # Some stores keep none: a web server in front must send them then.
        yield note(layout.INDEX, "the store keeps no Cache-Control", f"{REFRESH}; or {_REPAIR}")
        return
    for key, headers in sorted(told.items()):
        once = key.startswith((layout.BUILDS, layout.RELEASES))
        yield from _caching(key, headers.cache_control or "", _COPY if once else REFRESH)
        wanted = layout.headers(key).content_type
        if not once and _media(headers.content_type) != _media(wanted):
            what = f"Content-Type is {headers.content_type!r}, not {wanted!r}"
            yield problem(key, what, REFRESH)


def _media(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _caching(key: str, said: str, repair: str) -> Iterator[Finding]:
    ages = [int(age) for age in _MAX_AGE.findall(said)]
    if key.startswith((layout.BUILDS, layout.RELEASES)):
        if "immutable" not in said or max(ages, default=0) < _DAY:
            what = f"Cache-Control is {said!r}: it never changes, and caches are not told"
            yield problem(key, what, repair)
    elif "no-cache" not in said and "no-store" not in said and not ages:
        yield problem(key, f"Cache-Control is {said!r}: caches may keep it as they like", repair)
    elif max(ages, default=0) > LONGEST:
        yield problem(key, f"Cache-Control is {said!r}: caches may keep it too long", repair)
