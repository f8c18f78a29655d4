"""The small published files: fetched side by side, and read by our own strict readers.

What clients and caches are told of a repository's objects: by a web server, or by a store.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import urlsplit

from lago_images.errors import MANUAL, NotFoundError, RepositoryError
from lago_images.repository.records import layout
from lago_images.repository.records.reading import THREADS
from lago_images.repository.rendering import client_setup, index, lago, sums
from lago_images.repository.rendering.index import Entry
from lago_images.repository.rendering.lago import Version
from lago_images.repository.verifying.findings import REFRESH, Finding, Source, note, problem
from lago_images.repository.verifying.web import DeniedError
from lago_images.storage.base import Blob, Headers, Stat, Store

_SIGNED = ".asc"
_DENIED = "nothing in an unsigned repository; in a signed one, let everybody read it"


def fetch(
    source: Source, names: Iterable[str], denied: dict[str, Finding] | None = None
) -> dict[str, bytes]:
    """Return the small files of these names that are there.

    Signed files and keys that the server denies go into ``denied``, if it is given, as notes.
    """

    def get(name: str) -> bytes | None:
        try:
            return source.get(name).data
        except NotFoundError:
            return None
        except DeniedError as error:
            # S3 answers 403 for what is not there to those who may not list the bucket.
            if denied is None or not name.endswith(_SIGNED):
                raise
            denied[name] = note(name, f"taken as missing: {error.message}", _DENIED)
            return None

    wanted = sorted(names)
    with ThreadPoolExecutor(THREADS) as pool:
        return {
            name: data
            for name, data in zip(wanted, pool.map(get, wanted), strict=True)
            if data is not None
        }


def pages(store: Store) -> set[str]:
    """List the pages, of which each image has its own."""
    listed = (stat.key for folder in layout.PAGE_FOLDERS for stat in store.list(folder))
    return {key for key in listed if layout.is_rendered(key)}


def documents(files: Mapping[str, bytes]) -> set[str]:
    """Return the documents for scripts that ``SHA256SUMS`` lists."""
    return {path for path in parse_sums(files)[0] if layout.is_rendered(path)}


def documents_agree(listed: Mapping[str, str], files: Mapping[str, bytes]) -> Iterator[Finding]:
    """Compare the documents for scripts with their digests in ``SHA256SUMS``."""
    for path, sha256 in listed.items():
        if not layout.is_rendered(path):
            continue
        if path not in files:
            yield problem(path, "it is missing", REFRESH)
        elif hashlib.sha256(files[path]).hexdigest() != sha256:
            yield problem(path, f"it has another sha256 in {layout.SUMS}", REFRESH)


def led_elsewhere(files: Mapping[str, bytes], url: str) -> Iterator[Finding]:
    """Return where ``repo.metadata`` sends lago, if that is not the URL that was looked at."""
    try:
        published = client_setup.describe(files.get(layout.METADATA, b""))
    except RepositoryError:
        return
    for base in client_setup.elsewhere(published, url):
        what = f"it sends lago's users to {base}"
        if _is_loopback(base) and not _is_loopback(url):
            where = "which is each user's own machine"
            repair = "set base-url to the public URL, then lago-images repo refresh"
            yield problem(layout.METADATA, f"{what}, {where}", repair)
        else:
            yield note(layout.METADATA, what, f"lago-images repo verify {base}")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse(
    files: Mapping[str, bytes],
) -> tuple[list[Entry], list[Version], list[Finding]]:
    """Return what the two published formats say, by our own strict readers."""
    found = [
        problem(name, "it is missing: nothing is published", REFRESH)
        for name in (layout.INDEX, layout.METADATA)
        if name not in files
    ]
    entries, wrong = index.parse(files.get(layout.INDEX, b""))
    versions: list[Version] = []
    if layout.METADATA in files:
        versions, more = lago.parse(files[layout.METADATA])
        wrong += more
    found += [
        problem(one.path if one.line is None else f"{one.path}:{one.line}", one.what, REFRESH)
        for one in wrong
    ]
    return entries, versions, found


def parse_sums(files: Mapping[str, bytes]) -> tuple[dict[str, str], list[Finding]]:
    """Read ``SHA256SUMS``: the sha256 of each disk and document, by path."""
    if layout.SUMS not in files:
        missing = problem(layout.SUMS, "it is missing", REFRESH)
        return {}, [missing] if layout.INDEX in files else []
    try:
        return dict(sums.parse(files[layout.SUMS], layout.SUMS)), []
    except RepositoryError as error:
        return {}, [problem(layout.SUMS, error.message, REFRESH)]


# Seconds. A proxy that keeps an index longer than this hides publications and withdrawals.
LONGEST = 3600
_DAY = 86_400
_MAX_AGE = re.compile(r"(?:s-maxage|max-age)=([0-9]+)")
_COPY = f"copy it over itself with the right headers: {MANUAL}/operations.md"
_T = TypeVar("_T", Stat, Blob)
_REPAIR = f"set it in the web server, or serve with lago-images serve; {MANUAL}/operations.md"


def check(told: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Find what is wrong with the headers that each key was served with, names in small letters."""
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
    """Find what is wrong with the headers that a store keeps for its HTTP clients."""
    if told and not any(headers.cache_control for headers in told.values()):
        # Some stores keep none: a web server in front must send them then.
        yield note(layout.INDEX, "the store keeps no Cache-Control", f"{REFRESH}; or {_REPAIR}")
        return
    for key, headers in sorted(told.items()):
        once = key.startswith(layout.WRITTEN_ONCE)
        yield from _caching(key, headers.cache_control or "", _COPY if once else REFRESH)
        wanted = layout.headers(key).content_type
        if not once and _media(headers.content_type) != _media(wanted):
            what = f"Content-Type is {headers.content_type!r}, not {wanted!r}"
            yield problem(key, what, REFRESH)


def _media(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _caching(key: str, said: str, repair: str) -> Iterator[Finding]:
    ages = [int(age) for age in _MAX_AGE.findall(said)]
    if key.startswith(layout.WRITTEN_ONCE):
        if "immutable" not in said or max(ages, default=0) < _DAY:
            what = f"Cache-Control is {said!r}: it never changes, and caches are not told"
            yield problem(key, what, repair)
    elif "no-cache" not in said and "no-store" not in said and not ages:
        yield problem(key, f"Cache-Control is {said!r}: caches may keep it as they like", repair)
    elif max(ages, default=0) > LONGEST:
        yield problem(key, f"Cache-Control is {said!r}: caches may keep it too long", repair)
