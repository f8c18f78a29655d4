"""A repository as its clients get at it: over plain HTTP, by name, without a listing."""

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import quote

from lago_images.errors import NotFoundError, StorageError
from lago_images.repository import layout
from lago_images.storage.base import Blob, Stat

_ATTEMPTS = 4
_TIMEOUT = 60.0
_PIECE = 1 << 20
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_LENGTH = re.compile(r"[0-9]{1,18}")


class DeniedError(StorageError):
    """The server lets nobody read it without credentials, or will not say whether it is there."""


class _CutError(StorageError):
    """An answer ended before its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """Objects below a URL. ``told`` keeps the headers of the last answer for each key."""

    url: str
    pause: Callable[[float], None] = time.sleep
    told: dict[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def at(cls, url: str) -> "Web":
        """From the URL of a repository, or of one of its rendered files."""
        base, _, last = url.rstrip("/").rpartition("/")
        named = last in layout.RENDERED or last.startswith("index-")
        return cls(url=base if named else url.rstrip("/"))

    def head(self, key: str) -> Stat:
        with self._open("HEAD", key) as answer:
            length = answer.headers.get("Content-Length", "")
            size = int(length) if _LENGTH.fullmatch(length) else -1
            return Stat(key=key, size=size, etag=answer.headers.get("ETag", ""), modified=0.0)

    def get(self, key: str) -> Blob:
        attempt = 1
        while True:
            try:
                with self._open("GET", key) as answer:
                    data = answer.read()
                    return Blob(key=key, data=data, etag=answer.headers.get("ETag", ""))
            except _CutError:
                if attempt == _ATTEMPTS:
                    raise
            self._wait(attempt)
            attempt += 1

    def read(self, key: str, *, start: int = 0) -> Iterator[bytes]:
        """See ``Source``; what was cut off is taken up again where it broke.

        Raises:
            StorageError: It breaks off at one place again and again, or was replaced meanwhile.
        """
        at, attempt, first = start, 1, None
        while True:
            try:
                with self._open("GET", key, at, first) as answer:
                    version = _Version.of(answer, at)
                    if first is not None and not first.same(version):
                        raise StorageError(f"GET {self.url}/{key}: it was replaced meanwhile")
                    first = first or version
                    for piece in _pieces(answer, at - version.begin):
                        at, attempt = at + len(piece), 1
                        yield piece
                    if version.total is None or at >= version.total:
                        return
            except _CutError:
                if attempt == _ATTEMPTS:
                    raise
            if attempt == _ATTEMPTS:
                raise StorageError(f"GET {self.url}/{key}: it breaks off after {at} bytes")
            self._wait(attempt)
            attempt += 1

    @contextmanager
    def _open(
        self, method: str, key: str, start: int = 0, version: "_Version | None" = None
    ) -> Iterator[http.client.HTTPResponse]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and version and version.mark:
            headers["If-Range"] = version.mark
        request = urllib.request.Request(  # noqa: S310 -- the user's own http or https URL
            f"{self.url}/{quote(key)}", method=method, headers=headers
        )
        doing = f"{method} {request.full_url}"
        try:
            answer = self._answer(request)
        except urllib.error.HTTPError as error:
            error.close()
            raise _refusal(error.code)(f"{doing}: {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise StorageError(f"{doing}: {getattr(error, 'reason', None) or error}") from error
        with answer:
            self.told[key] = {name.lower(): value for name, value in answer.headers.items()}
            try:
                yield answer
            except (OSError, http.client.HTTPException) as error:
                raise _CutError(f"{doing}: the answer was cut off: {error}") from error

    def _answer(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        attempt = 1
        while True:
            try:
                answer: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310 -- as above
                    request, timeout=_TIMEOUT
                )
            except urllib.error.HTTPError as error:
                if error.code not in _AGAIN or attempt == _ATTEMPTS:
                    raise
                error.close()
            except (OSError, http.client.HTTPException):
                if attempt == _ATTEMPTS:
                    raise
            else:
                return answer
            self._wait(attempt)
            attempt += 1

    def _wait(self, attempt: int) -> None:
        self.pause(0.2 * 2**attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """What an answer says of the object it has bytes of.

    Attributes:
        begin: The first byte that the answer has; 0 where a server knows no ranges.
        total: Bytes of the whole object; None where the server does not say.
        etag: Empty where there is none.
        mark: What ``If-Range`` may name; empty where there is no such thing.
    """

    begin: int
    total: int | None
    etag: str
    mark: str

    @classmethod
    def of(cls, answer: http.client.HTTPResponse, start: int) -> "_Version":
        """Raises ``StorageError`` for an answer that begins after ``start``."""
        begin, length = 0, answer.headers.get("Content-Length", "")
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            begin, length = (int(match[1]), match[2]) if match else (start + 1, "")
        if begin > start:
            raise StorageError(f"GET {answer.url}: the server does not read from byte {start} on")
        etag = answer.headers.get("ETag", "")
        # RFC 9110: a weak ETag does not tell whether bytes are the same.
        mark = answer.headers.get("Last-Modified", "") if etag[:1] != '"' else etag
        total = int(length) if _LENGTH.fullmatch(length) else None
        return cls(begin=begin, total=total, etag=etag, mark=mark)

    def same(self, other: "_Version") -> bool:
        totals = {self.total, other.total} - {None}
        return self.etag == other.etag and len(totals) <= 1


def _pieces(answer: http.client.HTTPResponse, skip: int) -> Iterator[bytes]:
    """The body after its first ``skip`` bytes."""
    while piece := answer.read(_PIECE):
        if kept := piece[skip:]:
            yield kept
        skip = max(0, skip - len(piece))


def _refusal(status: int) -> type[StorageError]:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return DeniedError
    return NotFoundError if status == HTTPStatus.NOT_FOUND else StorageError


def is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))
