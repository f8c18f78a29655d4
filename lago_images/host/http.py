"""Ask HTTP servers, with limits: of redirects, of bytes, of time. The one door to HTTP.

Nothing that an answer's body says gets into an error: whoever names a URL in a spec or in settings
could read with it what only this host can reach.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Timeout
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import make_headers

from lago_images.console import clean
from lago_images.errors import Error, UsageError
from lago_images.host.retry import asked_pause

PIECE = 2**20
_PORTS = {"http": 80, "https": 443}
_HEADERS = {"User-Agent": "lago-images", "Accept-Encoding": "identity"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
# More threads than use one host at a time: urllib3 warns where a connection is not kept.
_CONNECTIONS = 64
_MOST_DIGITS = 18
_FAILURES = (HTTPError, HTTPException, OSError, ValueError)


class HttpError(Error):
    """Raised for a request that failed.

    Attributes:
        what: The message without what was being done.
        status: The answer's; 0 where the failure is not in a status.
        again: Seconds that must pass at least before another attempt makes sense; None when none
            does.
        unreached: No server was found at that address.
    """

    def __init__(
        self,
        doing: str,
        reason: str,
        *,
        status: int = 0,
        again: float | None = None,
        unreached: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{doing}: {reason}", hint=hint)
        self.reason = reason
        self.status = status
        self.again = again
        self.unreached = unreached


class TooLargeError(HttpError):
    """Raised where an answer has more bytes than are taken."""


class CutOffError(HttpError):
    """Raised where a body ended before the length that was announced.

    Attributes:
        missing: Bytes that did not come.
    """

    def __init__(self, doing: str, *, done: int, length: int) -> None:
        super().__init__(doing, f"it ended after {done} of {length} bytes", again=0)
        self.missing = length - done


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of what is taken of a server.

    Attributes:
        size: Bytes of a body; counted while they come, whatever the server says.
        connect: Seconds for a connection to be made.
        read: Seconds without a byte.
        total: Seconds for the whole, looked at whenever something comes.
        redirects: How many are followed. None leads from https to http or to another scheme.
        same_host_only: Follow only those to the same host and port, or from http to https on it.
    """

    size: int
    connect: float = 10.0
    read: float = 60.0
    total: float = 600.0
    redirects: int = 5
    same_host_only: bool = False


def again(error: Error) -> float | None:
    """Return the pause after a failure, for ``RetryPolicy.call``."""
    return error.again if isinstance(error, HttpError) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Answer is a server's answer with a good status. ``headers`` by their names in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    doing: str
    limits: Limits
    _response: BaseHTTPResponse
    _time: Callable[[], None]

    @property
    def length(self) -> int | None:
        """Return the body's size in bytes as the server announces it; None where it does not."""
        text = self.headers.get("content-length", "")
        # A server may send anything, and int() takes signs, spaces, underscores and other digits.
        is_number = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
        return int(text) if is_number else None

    def pieces(self) -> Iterator[bytes]:
        """Take the body as it comes.

        Raises:
            TooLargeError: It has more bytes than may be.
            CutOffError: It ended early.
            HttpError: It broke off, or takes too long.
        """
        done = 0
        while piece := self._piece(done):
            done += len(piece)
            if done > self.limits.size:
                raise _too_large(self.doing, self.limits.size)
            self._time()
            yield piece
        if self.length is not None and done < self.length:
            raise CutOffError(self.doing, done=done, length=self.length)

    def _piece(self, done: int) -> bytes:
        try:
            # What has come, at most: a full piece could take a slow server for ever to send.
            return self._response.read1(PIECE)
        except ProtocolError as error:
            # urllib3 raises it for every connection that ends before the announced length.
            if self.length is None:
                raise _failure(self.doing, error, self.limits) from error
            raise CutOffError(self.doing, done=done, length=self.length) from error
        except _FAILURES as error:
            raise _failure(self.doing, error, self.limits) from error

    def read(self) -> bytes:
        """Take the body whole; raises as ``pieces``."""
        return b"".join(self.pieces())


@dataclass(slots=True, kw_only=True)
class Client:
    """Asks servers; safe to use from several threads.

    Attributes:
        environ: For ``http_proxy``, ``https_proxy`` and ``no_proxy``, and for OpenSSL's
            ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``.
        clock: Seconds that only grow.
    """

    environ: Mapping[str, str]
    clock: Callable[[], float] = time.monotonic
    _pools: dict[str, PoolManager] = field(default_factory=dict)

    @contextmanager
    def open(
        self,
        url: str,
        doing: str,
        limits: Limits,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Answer]:
        """Ask a server, and follow where it leads.

        Args:
            url: http or https.
            doing: What for, with the URL: it begins every message.
            limits: What is taken of it.
            method: GET or HEAD.
            headers: Further ones.

        Raises:
            HttpError: There is no answer with a good status.
            UsageError: A proxy's variable is no URL of a proxy.
        """
        end = self.clock() + limits.total

        def in_time() -> None:
            if self.clock() > end:
                raise HttpError(doing, f"it took more than {limits.total:.0f} seconds")

        request = _Request(
            doing=doing, limits=limits, method=method, headers={**_HEADERS, **(headers or {})}
        )
        for _ in range(limits.redirects + 1):
            parts = _parts(url, doing)
            with self._sent(request, url, parts) as response:
                in_time()
                if response.status not in _REDIRECTS:
                    yield _answer(request, url, response, in_time)
                    return
                url = _target(request, parts, response.headers.get("Location", ""))
        raise HttpError(doing, f"it redirects more than {limits.redirects} times")

    @contextmanager
    def _sent(
        self, request: "_Request", url: str, parts: SplitResult
    ) -> Iterator[BaseHTTPResponse]:
        try:
            response = self._pool(parts).urlopen(
                request.method,
                url,
                headers=request.headers,
                timeout=Timeout(connect=request.limits.connect, read=request.limits.read),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except _FAILURES as error:
            raise _failure(request.doing, error, request.limits) from error
        try:
            yield response
        finally:
            if request.method == "HEAD":
                # There is no body to wait for: its connection can be used again.
                response.drain_conn()
            # What was not read to its end is not waited for: the connection goes with it.
            response.close()

    def _pool(self, parts: SplitResult) -> PoolManager:
        proxy = _proxy(parts, self.environ)
        # Another thread may have made one meanwhile: setdefault keeps the first.
        pool = self._pools.get(proxy)
        return pool or self._pools.setdefault(proxy, self._new_pool(proxy))

    def _new_pool(self, proxy: str) -> PoolManager:
        trust: dict[str, Any] = {
            "ca_certs": self.environ.get("SSL_CERT_FILE") or None,
            "ca_cert_dir": self.environ.get("SSL_CERT_DIR") or None,
        }
        if not proxy:
            return PoolManager(maxsize=_CONNECTIONS, **trust)
        try:
            parts = urlsplit(proxy)
            user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            headers = make_headers(proxy_basic_auth=user) if parts.username else None
            return ProxyManager(proxy, proxy_headers=headers, maxsize=_CONNECTIONS, **trust)
        except _FAILURES as error:
            raise UsageError(
                "http_proxy or https_proxy is not the URL of an HTTP proxy",
                hint="such as http://proxy.example.org:3128",
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    doing: str
    limits: Limits
    method: str
    headers: Mapping[str, str]


def _answer(
    request: _Request, url: str, response: BaseHTTPResponse, in_time: Callable[[], None]
) -> Answer:
    headers = {name.lower(): response.headers[name] for name in response.headers}
    status = response.status
    if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        pause = asked_pause(headers) if status in _TRANSIENT else None
        # The standard's words for it: the server's own could say anything.
        is_known = status in HTTPStatus._value2member_map_
        phrase = f" {HTTPStatus(status).phrase}" if is_known else ""
        message = f"the server answered {status}{phrase}"
        raise HttpError(request.doing, message, status=status, again=pause)
    answer = Answer(
        url=url,
        status=status,
        headers=headers,
        doing=request.doing,
        limits=request.limits,
        _response=response,
        _time=in_time,
    )
    if request.method != "HEAD" and (answer.length or 0) > request.limits.size:
        raise _too_large(request.doing, request.limits.size)
    return answer


def _too_large(doing: str, most: int) -> TooLargeError:
    return TooLargeError(doing, f"it has more than {most} bytes")


def _parts(url: str, doing: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise HttpError(doing, "it is not a URL") from error
    if not usable:
        raise HttpError(doing, "it is not an http or https URL")
    # It would stand in logs, and in a redirect it could be of another server.
    if parts.username is not None:
        raise HttpError(doing, "a URL with a user or password is not used")
    return parts


def _target(request: _Request, parts: SplitResult, location: str) -> str:
    """Return the target of a redirect, if it may be followed."""
    try:
        target = urljoin(parts.geturl(), location)
    except ValueError as error:
        raise HttpError(request.doing, "it redirects to what is not a URL") from error
    following = _parts(target, f"{request.doing}, where it redirects")
    where = clean(f"{following.scheme}://{following.netloc}")
    if parts.scheme == "https" and following.scheme != "https":
        raise HttpError(request.doing, f"it redirects to {where}, which is not encrypted")
    # With the port: another one is another server, but for the usual step from http to https.
    ports = [each.port or _PORTS[each.scheme] for each in (parts, following)]
    is_upgrade = (parts.scheme, following.scheme) == ("http", "https") and ports == [80, 443]
    is_same = parts.hostname == following.hostname and (ports[0] == ports[1] or is_upgrade)
    if request.limits.same_host_only and not is_same:
        raise HttpError(
            request.doing,
            f"it redirects to another host, {where}",
            hint="name that address itself, if it is the one that is meant",
        )
    return target


def _proxy(parts: SplitResult, environ: Mapping[str, str]) -> str:
    """Return the URL of the proxy to go through; empty for none."""
    lower, upper = f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper()
    # In a CGI program a client's header Proxy: becomes HTTP_PROXY.
    trusted = "" if "REQUEST_METHOD" in environ else environ.get(upper, "")
    proxy = environ.get(lower, trusted).strip()
    if not proxy or _goes_direct(parts, environ.get("no_proxy", environ.get("NO_PROXY", ""))):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _goes_direct(parts: SplitResult, names: str) -> bool:
    """Decide whether ``no_proxy`` has the host: its name, its domain, or with the port."""
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    for text in names.split(","):
        name = text.strip().lower().removeprefix("*").lstrip(".")
        # No standard says what no_proxy may hold: curl and Go take a name with or without its dot,
        # and Go one with a port.
        wholes = (host, f"{host}:{port}") if name else ()
        if text.strip() == "*" or any(f".{whole}".endswith(f".{name}") for whole in wholes):
            return True
    return False


def _failure(doing: str, error: Exception, limits: Limits) -> HttpError:
    """Return the error for what urllib3 raised; its own words may have what the server sent."""
    match error:
        case SSLError():
            message = f"no encrypted connection: {_reason(error)}"
            hint = "SSL_CERT_FILE names the certificate authorities that are trusted"
            return HttpError(doing, message, hint=hint)
        case ProxyError():
            message = f"the proxy cannot be used: {_reason(error)}"
            hint = "check http_proxy, https_proxy and no_proxy"
            return HttpError(doing, message, again=0, hint=hint)
        case NameResolutionError():
            message = "the name of the host is not known"
        case NewConnectionError():
            message = _reason(error)
        case ConnectTimeoutError():
            message = f"no connection within {limits.connect:.0f} seconds"
        case ReadTimeoutError() | TimeoutError():
            message = f"nothing came for {limits.read:.0f} seconds"
        case _:
            message = _reason(error)
    unreached = isinstance(error, NameResolutionError | NewConnectionError | ConnectTimeoutError)
    return HttpError(doing, message, again=0, unreached=unreached)


def _reason(error: BaseException) -> str:
    """Return the words of the operating system or OpenSSL, from among a failure's causes."""
    causes: list[BaseException] = [error]
    for cause in causes:
        # urllib3 hands the system's error on as a cause, a context or an argument.
        more = (cause.__cause__, cause.__context__, *cause.args)
        causes += [each for each in more if isinstance(each, BaseException) and each not in causes]
        if isinstance(cause, OSError) and cause.strerror:
            return clean(cause.strerror)
    return "the connection was cut off, or the answer is not HTTP"
