"""A repository as its clients get at it: over plain HTTP, by name, without a listing."""

import http.client
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
            size = int(length) if length.isdecimal() else -1
            return Stat(key=key, size=size, etag=answer.headers.get("ETag", ""), modified=0.0)

    def get(self, key: str) -> Blob:
        with self._open("GET", key) as answer:
            data = answer.read()
            return Blob(key=key, data=data, etag=answer.headers.get("ETag", ""))

    def read(self, key: str, *, start: int = 0) -> Iterator[bytes]:
        with self._open("GET", key, start) as answer:
            while piece := answer.read(_PIECE):
                yield piece

    @contextmanager
    def _open(self, method: str, key: str, start: int = 0) -> Iterator[http.client.HTTPResponse]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        request = urllib.request.Request(  # noqa: S310 -- the user's own http or https URL
            f"{self.url}/{quote(key)}", method=method, headers=headers
        )
        try:
            with self._answer(request) as answer:
                self.told[key] = {name.lower(): value for name, value in answer.headers.items()}
                yield answer
        except urllib.error.HTTPError as error:
            error.close()
            kind = NotFoundError if error.code == HTTPStatus.NOT_FOUND else StorageError
            raise kind(f"{method} {request.full_url}: {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise StorageError(f"{method} {request.full_url}: {reason}") from error

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
            except urllib.error.URLError:
                if attempt == _ATTEMPTS:
                    raise
            else:
                return answer
            self.pause(0.2 * 2**attempt)
            attempt += 1


def is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))
