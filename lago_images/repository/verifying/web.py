"""Read a repository as its clients do: over plain HTTP, by name, without a listing."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from urllib.parse import quote

from lago_images.errors import MANUAL, NotFoundError, StorageError
from lago_images.host.http import Answer, Client, HttpError, Limits, again
from lago_images.host.retry import RetryPolicy
from lago_images.repository.records import layout
from lago_images.repository.verifying.findings import Finding, note, problem
from lago_images.storage.base import Blob, Stat, Store

RETRY = RetryPolicy(attempts=4, delay=0.4)
# A rendered file or a record is read whole; a disk goes by in pieces, for as long as hours.
_SMALL = Limits(size=256 * 2**20)
_DISK = Limits(size=2**40, total=6 * 3600.0)
_NO_PROXIES: Mapping[str, str] = MappingProxyType({})
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_PUBLIC_POLICY = (
    "let everybody read what is published: docs/policies has the policies, public-aws.json and "
    f"bucket-ceph.json, and {MANUAL}/ci.md says how to set them"
)
_UNREACHABLE = "check the URL, and whether the server runs and can be reached from here"
_LENGTH = re.compile(r"[0-9]{1,18}")


class DeniedError(StorageError):
    """Raised where a server lets nobody read without credentials, or hides what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """Read objects below a URL.

    Attributes:
        url: Of the repository, without a slash at its end.
        client: Asks the server.
        retry: For a server that fails.
        headers: Those of the last answer for each key.
    """

    url: str
    client: Client = field(default_factory=lambda: Client(environ=_NO_PROXIES))
    retry: RetryPolicy = RETRY
    headers: dict[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def at(cls, url: str, environ: Mapping[str, str] = _NO_PROXIES) -> "Web":
        """Make one from the URL of a repository, or of one of its rendered files.

        ``environ`` says which proxies lead there.
        """
        base, _, last = url.rstrip("/").rpartition("/")
        named = last in layout.RENDERED or last.startswith("index-")
        return cls(url=base if named else url.rstrip("/"), client=Client(environ=environ))

    def head(self, key: str) -> Stat:
        def ask() -> Stat:
            with self._open("HEAD", key, _DISK) as answer:
                size = -1 if answer.length is None else answer.length
                return Stat(key=key, size=size, etag=_etag(answer), modified=0.0)

        with _as_storage_errors():
            return self.retry.call(ask, again)

    def get(self, key: str) -> Blob:
        def ask() -> Blob:
            with self._open("GET", key, _SMALL) as answer:
                return Blob(key=key, data=answer.read(), etag=_etag(answer))

        with _as_storage_errors():
            return self.retry.call(ask, again)

    def read(self, key: str, *, start: int = 0) -> Iterator[bytes]:
        """Read as ``Source`` says; what was cut off is taken up again where it broke.

        Raises:
            StorageError: It breaks off at one place again and again, or was replaced meanwhile.
        """
        at, attempt, first = start, 1, None
        while True:
            failure = HttpError(f"GET {self.url}/{key}", f"it breaks off after {at} bytes", again=0)
            try:
                with self._open("GET", key, _DISK, at, first) as answer:
                    version = _Version.of(answer, at)
                    # If-Range is optional: a server may answer 206 of another version.
                    if first is not None and not first.same(version):
                        raise StorageError(f"GET {self.url}/{key}: it was replaced meanwhile")
                    first = first or version
                    for piece in _pieces(answer, at - version.begin):
                        at, attempt = at + len(piece), 1
                        yield piece
                    if version.total is None or at >= version.total:
                        return
            except HttpError as error:
                failure = error
            if failure.again is None or attempt >= self.retry.attempts:
                raise _refusal(failure) from failure
            self.retry.wait(attempt, asked=failure.again)
            attempt += 1

    @contextmanager
    def _open(
        self,
        method: str,
        key: str,
        limits: Limits,
        start: int = 0,
        version: "_Version | None" = None,
    ) -> Iterator[Answer]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and version and version.mark:
            headers["If-Range"] = version.mark
        url = f"{self.url}/{quote(key)}"
        with self.client.open(
            url, f"{method} {url}", limits, method=method, headers=headers
        ) as answer:
            self.headers[key] = answer.headers
            yield answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """Hold what an answer says of the object it has bytes of.

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
    def of(cls, answer: Answer, start: int) -> "_Version":
        """Return the version of an answer.

        Raises ``StorageError`` for one that begins after ``start``.
        """
        begin, length = 0, answer.headers.get("content-length", "")
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            match = _RANGE.fullmatch(answer.headers.get("content-range", ""))
            begin, length = (int(match[1]), match[2]) if match else (start + 1, "")
        if begin > start:
            raise StorageError(f"GET {answer.url}: the server does not read from byte {start} on")
        etag = _etag(answer)
        # RFC 9110: a weak ETag does not tell whether bytes are the same.
        mark = answer.headers.get("last-modified", "") if etag[:1] != '"' else etag
        total = int(length) if _LENGTH.fullmatch(length) else None
        return cls(begin=begin, total=total, etag=etag, mark=mark)

    def same(self, other: "_Version") -> bool:
        totals = {self.total, other.total} - {None}
        return self.etag == other.etag and len(totals) <= 1


def _pieces(answer: Answer, skip: int) -> Iterator[bytes]:
    """Return the body after its first ``skip`` bytes."""
    # A server that knows no ranges answers 200 with the whole object.
    for piece in answer.pieces():
        if kept := piece[skip:]:
            yield kept
        skip = max(0, skip - len(piece))


def _etag(answer: Answer) -> str:
    return answer.headers.get("etag", "")


@contextmanager
def _as_storage_errors() -> Iterator[None]:
    try:
        yield
    except HttpError as error:
        raise _refusal(error) from error


def _refusal(error: HttpError) -> StorageError:
    if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return DeniedError(error.message, hint=_PUBLIC_POLICY)
    # 404 alone means missing: 410 and the like are a server's own words.
    kind = NotFoundError if error.status == HTTPStatus.NOT_FOUND else StorageError
    unreachable = None if error.status else _UNREACHABLE
    return kind(error.message, hint=error.hint or unreachable)


def base_url_problem(store: Store, base_url: str, environ: Mapping[str, str]) -> Finding | None:
    """Read the index of a bucket at its base URL once, as any client does; None if that works.

    A bucket is private until a policy opens it, and whoever has a key does not notice. It is a
    note where the URL cannot be reached from this machine, whose network may not be the clients'.
    """
    if not store.url.startswith("s3://") or not is_web(base_url):
        return None
    web = Web(url=base_url, client=Client(environ=environ), retry=RetryPolicy(attempts=1))
    try:
        next(web.read(layout.INDEX), b"")
    except (DeniedError, NotFoundError) as error:
        cause = error.__cause__
        if isinstance(cause, HttpError) and cause.status == HTTPStatus.UNAUTHORIZED:
            # S3 says 403 or 404. Somebody put a server before it that knows its clients.
            return note(
                base_url, f"it asks for a password: {error.message}", "nothing, if it is meant to"
            )
        message = f"nobody can read {store.url} there: {error.message}"
        return problem(
            base_url, message, f"{_PUBLIC_POLICY}; or set base-url to where it is served"
        )
    except StorageError as error:
        message = f"whether clients can read {store.url} there is not known: {error.message}"
        return note(base_url, message, "try it from where clients are")
    return None


def is_web(url: str) -> bool:
    """Return whether a URL is of the web, and not of a store."""
    return url.lower().startswith(("http://", "https://"))
