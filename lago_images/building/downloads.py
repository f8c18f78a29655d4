"""Download files over HTTP into a bounded cache, resumed where an earlier attempt ended."""

import errno
import fcntl
import os
import shlex
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lago_images.console import Console
from lago_images.errors import BuildError, Error, HostError
from lago_images.host import space
from lago_images.host.http import (
    Answer,
    Client,
    CutOffError,
    HttpError,
    Limits,
    TooLargeError,
    again,
)
from lago_images.host.retry import RetryPolicy

LIMIT = 20 * 2**30
LOCK = ".lock"
# What an unfinished download has behind its name: its bytes, and what identifies the version.
_PART, _VALIDATOR = ".part", ".part.validator"


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold a lock beside ``path``; other runs and threads wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_unless_locked(path: Path) -> bool:
    """Remove a file of a cache; returns false, and leaves it, where another run has locked it."""
    lock = path.with_name(path.name.removesuffix(_VALIDATOR).removesuffix(_PART) + LOCK)
    if not lock.exists():
        path.unlink(missing_ok=True)
        return True
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink(missing_ok=True)
        return True


def prune(folder: Path, *, limit: int = LIMIT, keep: Path | None = None) -> None:
    """Remove what was used longest ago until at most ``limit`` bytes are left.

    Who reads a file that is removed reads it to its end all the same.
    """
    used: dict[Path, os.stat_result] = {}
    for path in folder.glob("*"):
        # A lock file that is removed while it is held leaves the next run another file to lock.
        if path == keep or path.suffix == LOCK:
            continue
        # Another run may rename or remove it at this moment.
        with suppress(FileNotFoundError):
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                used[path] = status
    total = sum(status.st_size for status in used.values())
    for path, status in sorted(used.items(), key=lambda item: item[1].st_mtime):
        if total <= limit:
            return
        with suppress(OSError):
            path.unlink()
        total -= status.st_size


def touch(path: Path) -> None:
    """Note that a file was used now."""
    with suppress(OSError):
        os.utime(path)


ATTEMPTS = 4
RETRY = RetryPolicy(attempts=ATTEMPTS, delay=1.0, longest=60.0)
# Bytes: no disk image is larger.
LARGEST = 64 * 2**30
# Bytes that a download of unknown length leaves free for others.
_SPARE = 256 * 2**20
# Seconds: 64 GiB at 3 MiB/s.
_LONGEST = 6 * 3600.0
_PARTIAL = 206
_RANGE_WRONG = 416
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloader:
    """Downloads into a folder.

    Attributes:
        folder: Where finished files and ``.part`` files are kept.
        console: Shows the progress.
        client: Asks the servers.
        retry: For servers that fail.
        largest: Bytes that a file may have.
    """

    folder: Path
    console: Console
    client: Client
    retry: RetryPolicy = field(default=RETRY)
    largest: int = LARGEST

    def fetch(self, url: str, key: str) -> Path:
        """Return the file at ``url``, from the cache or downloaded; its checksum is not checked.

        Args:
            url: http or https.
            key: The name to keep it under: it must belong to this one content.

        Raises:
            BuildError: It could not be fetched. What was transferred is kept for the next attempt,
                if the server lets it go on from there.
            HostError: It does not fit on the disk; nothing of it is left.
        """
        path = self.folder / key
        with locked(path):
            if not path.exists():
                self._download(url, path)
        touch(path)
        prune(self.folder, keep=path)
        return path

    def has(self, key: str) -> bool:
        """Return whether a file is in the cache."""
        return (self.folder / key).exists()

    def drop(self, key: str) -> None:
        """Forget a file that turned out to be wrong."""
        (self.folder / key).unlink(missing_ok=True)

    def _download(self, url: str, path: Path) -> None:
        part = path.with_name(path.name + _PART)

        def warn(error: Error) -> float | None:
            pause = again(error)
            if pause is not None:
                self.console.warn(f"{error.message}; trying again")
            return pause

        try:
            self.retry.call(lambda: self._transfer(url, part), warn)
        except HttpError as error:
            if isinstance(error, TooLargeError) or not _validator_of(part).exists():
                _forget(part)
            raise self._given_up(url, error, kept=part.exists()) from error
        except HostError:
            _forget(part)
            raise
        part.replace(path)
        _validator_of(part).unlink(missing_ok=True)

    def _given_up(self, url: str, error: HttpError, *, kept: bool) -> BuildError:
        check = f"check the URL: curl -I {shlex.quote(url)}"
        if error.again is None:
            return BuildError(error.message, hint=error.hint or (check if error.status else None))
        hint = "run it again" + (": the download goes on where it ended" if kept else "")
        if error.unreached and not kept:
            hint = check
        return BuildError(
            f"downloading {url} failed {self.retry.attempts} times, at last: {error.reason}",
            hint=error.hint or hint,
        )

    def _transfer(self, url: str, part: Path) -> None:
        limits = Limits(size=self.largest, total=_LONGEST)
        try:
            with self.client.open(
                url, f"downloading {url}", limits, headers=_range(part)
            ) as answer:
                self._receive(answer, part)
        except CutOffError as error:
            done = _size(part)
            total = done + error.missing
            raise CutOffError(f"downloading {url}", done=done, length=total) from error
        except HttpError as error:
            if error.status != _RANGE_WRONG:
                raise
            _forget(part)
            message = "the server has no more than was downloaded already"
            raise HttpError(f"downloading {url}", message, again=0) from error
        except OSError as error:
            doing = f"downloading {url}"
            if error.errno in _FULL:
                raise _no_room(doing, part) from error
            reason = error.strerror or error
            raise BuildError(f"{doing}: writing {part}: {reason}") from error

    def _receive(self, answer: Answer, part: Path) -> None:
        start = _size(part) if answer.status == _PARTIAL else 0
        if answer.status == _PARTIAL and _starts_at(answer) != start:
            _forget(part)
            message = "the server answered with another range than was asked for"
            raise HttpError(answer.doing, message, again=0)
        if not start:
            _remember(answer, part)
            part.unlink(missing_ok=True)
        left = answer.length
        allowed = space.free(part.parent) - _SPARE if left is None else left
        if left is not None:
            space.demand(part.parent, left, answer.doing)
        done, total = start, None if left is None else start + left
        with (
            part.open("ab") as file,
            self.console.progress(answer.doing, total) as advance,
        ):
            for piece in answer.pieces():
                done += len(piece)
                if done > self.largest:
                    raise TooLargeError(answer.doing, f"it has more than {self.largest} bytes")
                if done > start + allowed:
                    raise _no_room(answer.doing, part)
                file.write(piece)
                advance(len(piece))


def _no_room(doing: str, part: Path) -> HostError:
    return HostError(f"{doing}: it does not fit into {part.parent}", hint=space.HINT)


def _range(part: Path) -> dict[str, str]:
    """Return the headers that ask for the missing part of a file."""
    validator = _validator_of(part)
    if not _size(part) or not validator.exists():
        return {}
    # If-Range: when the file was changed meanwhile the server sends it from the start.
    mark = validator.read_text(encoding="latin-1")
    return {"Range": f"bytes={_size(part)}-", "If-Range": mark}


def _remember(answer: Answer, part: Path) -> None:
    etag = answer.headers.get("etag", "")
    # RFC 9110, 13.1.5: a weak ETag must not be used with If-Range.
    validator = "" if etag.startswith("W/") else etag
    validator = validator or answer.headers.get("last-modified", "")
    _validator_of(part).unlink(missing_ok=True)
    if validator:
        _validator_of(part).write_text(validator, encoding="latin-1")


def _forget(part: Path) -> None:
    """Remove an unfinished file, so that its disk space is free and the next attempt is new."""
    part.unlink(missing_ok=True)
    _validator_of(part).unlink(missing_ok=True)


def _validator_of(part: Path) -> Path:
    return part.with_name(part.name + ".validator")


def _starts_at(answer: Answer) -> int | None:
    unit, _, rest = answer.headers.get("content-range", "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdecimal() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
