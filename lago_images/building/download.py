"""Files over HTTP, taken up again where an earlier attempt ended."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lago_images.building import cache
from lago_images.console import Console
from lago_images.errors import BuildError
from lago_images.host import space

ATTEMPTS = 4
_PIECE = 2**20
_PATIENCE = 60.0
_PARTIAL = 206
_RANGE_WRONG = 416
_RETRIED = (408, 425, 429, 500, 502, 503, 504)


class _BrokenError(Exception):
    """A transfer that may go better next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloader:
    """Downloads into a folder.

    Attributes:
        folder: Where finished files and ``.part`` files are kept.
        console: Told of progress.
        pause: Called with the seconds to wait before another attempt.
    """

    folder: Path
    console: Console
    pause: Callable[[float], None] = time.sleep

    def fetch(self, url: str, key: str) -> Path:
        """The file at ``url``, from the cache or downloaded; its checksum is not checked here.

        Args:
            url: http or https.
            key: The name to keep it under: it must belong to this one content.

        Raises:
            BuildError: It could not be had. What was transferred is kept for the next attempt.
        """
        path = self.folder / key
        with cache.locked(path):
            if not path.exists():
                self._download(url, path)
        cache.touch(path)
        cache.prune(self.folder, keep=path)
        return path

    def has(self, key: str) -> bool:
        """Whether a file is in the cache."""
        return (self.folder / key).exists()

    def drop(self, key: str) -> None:
        """Forget a file that turned out to be wrong."""
        (self.folder / key).unlink(missing_ok=True)

    def _download(self, url: str, path: Path) -> None:
        part = path.with_name(path.name + ".part")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._transfer(url, part)
                part.replace(path)
                _validator_of(part).unlink(missing_ok=True)
            except _BrokenError as broken:
                if attempt == ATTEMPTS:
                    raise BuildError(
                        f"downloading {url} failed {ATTEMPTS} times, at last: {broken}",
                        hint="run it again: the download goes on where it ended",
                    ) from broken
                self.console.warn(f"downloading {url}: {broken}; trying again")
                self.pause(2.0 ** (attempt - 1))
            else:
                return

    def _transfer(self, url: str, part: Path) -> None:
        try:
            with urllib.request.urlopen(_request(url, part), timeout=_PATIENCE) as answer:  # noqa: S310 -- http(s), see below
                self._receive(answer, url, part)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == _RANGE_WRONG:
                part.unlink(missing_ok=True)
                raise _BrokenError("the server has no more than was there already") from error
            if error.code in _RETRIED:
                raise _BrokenError(f"the server answered {error.code}") from error
            raise BuildError(
                f"downloading {url}: the server answered {error.code} {error.reason}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(str(getattr(error, "reason", None) or error)) from error

    def _receive(self, answer: http.client.HTTPResponse, url: str, part: Path) -> None:
        resumed = answer.status == _PARTIAL and _starts_at(answer) == _size(part)
        if answer.status == _PARTIAL and not resumed:
            part.unlink(missing_ok=True)
            raise _BrokenError("the server answered with another range than was asked for")
        length = answer.headers.get("Content-Length")
        left = int(length) if length and length.isdecimal() else None
        if left is not None:
            space.demand(part.parent, left, f"downloading {url}")
        if not resumed:
            _remember(answer, part)
        done = 0
        total = None if left is None else left + (_size(part) if resumed else 0)
        with (
            part.open("ab" if resumed else "wb") as file,
            self.console.progress(f"downloading {url}", total) as advance,
        ):
            while piece := answer.read1(_PIECE):
                file.write(piece)
                advance(len(piece))
                done += len(piece)
        if left is not None and done < left:
            raise _BrokenError(f"it ended after {done} of {left} bytes")


def _request(url: str, part: Path) -> urllib.request.Request:
    if not url.startswith(("http://", "https://")):
        raise BuildError(f"{url} is not an http or https URL")
    request = urllib.request.Request(url, headers={"User-Agent": "lago-images"})  # noqa: S310 -- checked
    validator = _validator_of(part)
    if _size(part) and validator.exists():
        # If-Range: when the file was changed meanwhile the server sends it from the start.
        request.add_header("Range", f"bytes={_size(part)}-")
        request.add_header("If-Range", validator.read_text(encoding="latin-1"))
    return request


def _remember(answer: http.client.HTTPResponse, part: Path) -> None:
    etag = answer.headers.get("ETag", "")
    # RFC 9110, 13.1.5: a weak ETag must not be used with If-Range.
    validator = "" if etag.startswith("W/") else etag
    validator = validator or answer.headers.get("Last-Modified", "")
    _validator_of(part).unlink(missing_ok=True)
    if validator:
        _validator_of(part).write_text(validator, encoding="latin-1")


def _validator_of(part: Path) -> Path:
    return part.with_name(part.name + ".validator")


def _starts_at(answer: http.client.HTTPResponse) -> int | None:
    unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdecimal() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
