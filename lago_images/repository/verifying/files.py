"""Fetch the small published files side by side, and read them by our own strict readers.

Headers that clients and caches get with a repository's objects: from a web server, or a store.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import urlsplit

from lago_images.errors import MANUAL, NotFoundError, RepositoryError
from lago_images.host.threads import side_by_side
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
            # S3 answers 403 for a missing object to those who may not list the bucket.
            if denied is None or not name.endswith(_SIGNED):
                raise
            denied[name] = note(name, f"taken as missing: {error.message}", _DENIED)
            return None

    # Side by side: over HTTP each costs a round trip, and all of them are small.
    wanted = sorted(names)
    with side_by_side(THREADS, "fetch") as workers:
        return {
            name: data
            for name, data in zip(wanted, workers.map(get, wanted), strict=True)
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
    # lago downloads disks from the URL in the file, wherever it got that file from.
    for base in client_setup.elsewhere(published, url):
        message = f"it sends lago's users to {base}"
        if _is_loopback(base) and not _is_loopback(url):
            where = "which is each user's own machine"
            repair = "set base-url to the public URL, then lago-images repo refresh"
            yield problem(layout.METADATA, f"{message}, {where}", repair)
        else:
            repair = (
                f"if clients read it at {url}: set base-url to that, then lago-images repo refresh"
            )
            yield note(layout.METADATA, message, repair)


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
    findings = [
        problem(name, "it is missing: nothing is published", REFRESH)
        for name in (layout.INDEX, layout.METADATA)
        if name not in files
    ]
    entries, problems = index.parse(files.get(layout.INDEX, b""))
    versions: list[Version] = []
    if layout.METADATA in files:
        versions, more = lago.parse(files[layout.METADATA])
        problems += more
    findings += [
        problem(each.path if each.line is None else f"{each.path}:{each.line}", each.what, REFRESH)
        for each in problems
    ]
    return entries, versions, findings


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
# Shared caches go by s-maxage, where there is one, and others by max-age (RFC 9111, 5.2.2).
_MAX_AGE = re.compile(r"(?:s-maxage|max-age)=([0-9]+)")
_COPY = f"copy it over itself with the right headers: {MANUAL}/operations.md"
_T = TypeVar("_T", Stat, Blob)
_REPAIR = f"set it in the web server, or serve with lago-images serve; {MANUAL}/operations.md"


def check(headers_by_key: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Find what is wrong with the headers that each key was served with, names in small letters."""
    for key, headers in sorted(headers_by_key.items()):
        if not headers.get("content-length", "").isdecimal():
            # lago reads it, and virt-builder shows progress with it.
            yield problem(key, "it is served without Content-Length", _REPAIR)
        # A proxy that compresses on its way sends other bytes than the checksums are of, to clients
        # that did not ask for it.
        if headers.get("content-encoding", "identity") != "identity":
            yield problem(key, "it is served with a Content-Encoding: clients get it as it is sent",
                          _REPAIR)  # fmt: skip
        yield from _caching(key, headers.get("cache-control", ""), _REPAIR)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderReader:
    """Reads a store, and collects the headers that it keeps for what was read, by key."""

    store: Store
    headers: dict[str, Headers] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.store.url

    def head(self, key: str) -> Stat:
        return self._collect(self.store.head(key))

    def get(self, key: str) -> Blob:
        return self._collect(self.store.get(key))

    def read(self, key: str, *, start: int = 0) -> Iterator[bytes]:
        return self.store.read(key, start=start)

    def _collect(self, answer: _T) -> _T:
        if answer.headers is not None:
            self.headers[answer.key] = answer.headers
        return answer


def check_kept(headers_by_key: Mapping[str, Headers]) -> Iterator[Finding]:
    """Find what is wrong with the headers that a store keeps for its HTTP clients."""
    kept = headers_by_key.values()
    if kept and not any(headers.cache_control for headers in kept):
        # Some stores keep none: a web server in front must send them then.
        yield note(layout.INDEX, "the store keeps no Cache-Control", f"{REFRESH}; or {_REPAIR}")
        return
    for key, headers in sorted(headers_by_key.items()):
        once = key.startswith(layout.WRITTEN_ONCE)
        yield from _caching(key, headers.cache_control or "", _COPY if once else REFRESH)
        wanted = layout.headers(key).content_type
        if not once and _media(headers.content_type) != _media(wanted):
            message = f"Content-Type is {headers.content_type!r}, not {wanted!r}"
            yield problem(key, message, REFRESH)


def _media(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _caching(key: str, directives: str, repair: str) -> Iterator[Finding]:
    """Judge a Cache-Control (RFC 9111): forever for what never changes, and short for the rest."""
    ages = [int(age) for age in _MAX_AGE.findall(directives)]
    if key.startswith(layout.WRITTEN_ONCE):
        if "immutable" not in directives or max(ages, default=0) < _DAY:
            message = f"Cache-Control is {directives!r}: it never changes, and is not immutable"
            yield problem(key, message, repair)
    elif "no-cache" not in directives and "no-store" not in directives and not ages:
        message = f"Cache-Control is {directives!r}: caches may keep it as they like"
        yield problem(key, message, repair)
    elif max(ages, default=0) > LONGEST:
        yield problem(key, f"Cache-Control is {directives!r}: caches may keep it too long", repair)
