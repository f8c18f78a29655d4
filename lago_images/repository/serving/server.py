"""A repository over HTTP, as its clients want it: a gateway from a store to virt-builder and lago.

What is served is what the layout publishes: rendered files, releases, and the builds that a release
names. ``state/``, hidden and temporary files and builds that nobody released do not exist for a
client, and nothing is listed.

HTTP is waitress's: Python's http.server answered a GET with a body twice, and a thread for each
silent connection used up the descriptors.
"""

import errno
import logging
import re
import resource
import socket
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from threading import Event, Lock
from typing import Any, Self
from urllib.parse import unquote

from waitress import wasyncore
from waitress.server import create_server

from lago_images.console import Console
from lago_images.errors import Error, NotFoundError, RepositoryError
from lago_images.repository.records import layout
from lago_images.repository.records.release import Release
from lago_images.repository.serving import compression
from lago_images.storage.base import Stat, Store

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
# Public copies and releases: written once, so that what is known of one stays true.
_ONCE = (layout.IMAGES, layout.RELEASES)
# Seconds after which a connection is closed that sends nothing, and one that takes nothing.
IDLE = 10
_STUCK = 60
# Answers written at the same time: each may wait for a slow client.
_THREADS = 100
_LEAST_CONNECTIONS, _MOST_CONNECTIONS = 16, 1000
# What else than connections takes descriptors: the store's connections, libraries, the log.
_SPARE_DESCRIPTORS = 56
_HIGH_WATER = 2 * 2**20

# What to do where the system gives no socket for an address and port.
_LISTENING = {
    errno.EADDRINUSE: "choose another --port, or --port 0 for any free one",
    errno.EADDRNOTAVAIL: "that is no address of this machine: --bind one that `ip addr` shows, or "
    "0.0.0.0 for all of them",
    errno.EACCES: "a port below 1024 is for root alone: choose another --port",
    socket.EAI_NONAME: "no such host is known: --bind an address of this machine, or 0.0.0.0",
}

_Headers = list[tuple[str, str]]
_Start = Callable[[str, _Headers], object]


def served(target: str) -> str | None:
    """Return the key that a request's target asks for; None when no client may have it.

    ``/`` asks for the catalogue.
    """
    key = unquote(target.partition("?")[0]).removeprefix("/") or layout.CATALOGUE
    if layout.is_rendered(key):
        return key
    parts = key.split("/")
    hidden = any(not part or part.startswith(".") for part in parts)
    control = any(not char.isprintable() for char in key)
    return None if hidden or control or not key.startswith(_ONCE) else key


def span(asked: str | None, size: int) -> range | None:
    """Return the bytes that a ``Range`` header asks for, of ``size``; None for all of them.

    A header that is not one range of bytes counts as none, as RFC 9110 allows. An empty range is
    one that cannot be satisfied.
    """
    match = _RANGE.fullmatch(asked.strip()) if asked else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    end = size if not last else min(size, int(last) + 1)
    if last and int(last) < int(first):
        return None
    return range(int(first), end)


class Server:
    """Serves a store until it is shut down."""

    def __init__(
        self, store: Store, console: Console, *, bind: str, port: int, idle: int = IDLE
    ) -> None:
        """Listen at an address.

        Args:
            store: What is served.
            console: Where requests are logged.
            bind: The address.
            port: 0 takes a free one.
            idle: Seconds after which a connection is closed that sends nothing.

        Raises:
            Error: The address is taken, or is none of this host.
        """
        self.console = console
        listening = _listen(bind, port)
        self.server_address = listening.getsockname()
        self._sockets: dict[int, Any] = {}
        self._ended = Event()
        self._server: Any = create_server(
            _Gateway(store, console),
            map=self._sockets,
            sockets=[listening],
            threads=_THREADS,
            connection_limit=_connections(),
            channel_timeout=idle,
            cleanup_interval=max(1, idle // 2),
            outbuf_high_watermark=_HIGH_WATER,
            # No answer goes through a temporary file.
            outbuf_overflow=2**40,
            # A request for a file has no body. With one it is refused, and its connection closed.
            max_request_body_size=1,
            log_socket_errors=False,
            asyncore_use_poll=True,
            ident="lago-images",
        )
        _send_failures_to(console)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._sockets)

    @property
    def url(self) -> str:
        """Return where a client on this machine finds the repository; no slash at its end."""
        host, port = self.server_address[:2]
        name = str(host)
        if name in {"0.0.0.0", "::"}:  # noqa: S104 -- what was asked for is only shown here
            name = socket.gethostname()
        # RFC 3986: an IPv6 address stands in brackets.
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def serve_forever(self) -> None:
        """Answer requests until ``shutdown`` is called."""
        while not self._ended.is_set():
            wasyncore.loop(timeout=1, map=self._sockets, use_poll=True, count=1)

    def shutdown(self) -> None:
        """End ``serve_forever``, which another thread runs."""
        self._ended.set()
        # The pipe is closed by ``__exit__`` alone. A callback that closed it could run before the
        # pipe was written to, since an answer that is ready wakes the loop, too.
        self._server.trigger.pull_trigger()


def _listen(bind: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET)
    try:
        # The connections of a server that just ended would keep its port taken (TIME_WAIT).
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: one whose client takes nothing ends, and its thread is free.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STUCK * 1000)
        listening.bind((bind, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise Error(
            f"cannot serve at {bind} port {port}: {getattr(error, 'strerror', None) or error}",
            hint=_LISTENING.get(getattr(error, "errno", None) or 0, "check --bind and --port"),
        ) from error
    return listening


def _connections() -> int:
    """Return how many connections may be open: each takes its socket and an object's file."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    each = (descriptors - _SPARE_DESCRIPTORS) // 2
    return min(_MOST_CONNECTIONS, max(_LEAST_CONNECTIONS, each))


class _Failures(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.ERROR)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        why = record.exc_info and record.exc_info[1]
        self.console.error(f"error: {record.getMessage()}" + (f": {why!r}" if why else ""))


def _send_failures_to(console: Console) -> None:
    logger = logging.getLogger("waitress")
    logger.handlers, logger.propagate = [_Failures(console)], False


class _Releases:
    """Knows which public copies a release names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = Lock()
        self._read: set[str] = set()
        self._copies: set[layout.BuildFolder] = set()

    def have(self, copy: layout.BuildFolder) -> bool:
        """Return whether a release names the copy; a release is read once, as it never changes."""
        with self._lock:
            if copy not in self._copies:
                image = copy.key.image
                for stat in self._store.list(f"{layout.RELEASES}{image.name}/{image.arch}/"):
                    self._add(stat.key)
            return copy in self._copies

    def _add(self, key: str) -> None:
        place = layout.release_key(key)
        if place is None or key in self._read:
            return
        try:
            release = Release.parse(self._store.get(key).data, place)
        except RepositoryError:
            # A damaged release publishes nothing; ``repo verify`` names it.
            release = None
        self._read.add(key)
        if release and release.public:
            self._copies.add(release.public)


class _Gateway:
    """The WSGI application: a request to an object of the store."""

    def __init__(self, store: Store, console: Console) -> None:
        self._store = store
        self._console = console
        self._releases = _Releases(store)

    def __call__(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        status, headers, body = self._answer(environ)
        line = f"{environ['REQUEST_METHOD']} {environ['REQUEST_URI']}"
        self._console.info(f'{environ["REMOTE_ADDR"]} "{line}" {status.value}')
        start(f"{status.value} {status.phrase}", headers)
        # RFC 9110: to a HEAD the headers of a GET, Content-Length with them, and no body.
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    def _answer(self, environ: dict[str, Any]) -> tuple[HTTPStatus, _Headers, Iterable[bytes]]:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
        # As it was sent: PATH_INFO is decoded already, and would be decoded twice.
        key = served(environ["REQUEST_URI"])
        try:
            copy = layout.owner(key or "")
            if key is None or (copy and not self._releases.have(copy)):
                return _refusal(HTTPStatus.NOT_FOUND)
            stat, data = self._object(key)
        except NotFoundError:
            return _refusal(HTTPStatus.NOT_FOUND)
        except Error as error:
            self._console.error(f"error: {error.message}")
            return _refusal(HTTPStatus.BAD_GATEWAY)
        return self._send(stat, data, environ)

    def _object(self, key: str) -> tuple[Stat, bytes | None]:
        """Return what is known of an object, and its bytes if they may change between requests."""
        stat = self._store.head(key)
        if key.startswith(_ONCE):
            return stat, None
        blob = self._store.get(key)
        # Of the bytes that were read: a publisher may have replaced the file since the HEAD.
        current = Stat(key=key, size=len(blob.data), etag=blob.etag, modified=stat.modified)
        return current, blob.data

    def _send(
        self, stat: Stat, data: bytes | None, environ: dict[str, Any]
    ) -> tuple[HTTPStatus, _Headers, Iterable[bytes]]:
        # Stores differ in whether an ETag comes with its quotes; HTTP wants them.
        etag = '"' + stat.etag.strip('"') + '"'
        is_packed = compression.is_negotiated(stat.key) and compression.is_asked_for(environ)
        headers = _describe(stat, etag, is_packed=is_packed)
        # RFC 9110, 13.1.2: a list, whose weak ETags (W/) count like others in this comparison.
        if etag in environ.get("HTTP_IF_NONE_MATCH", ""):
            return HTTPStatus.NOT_MODIFIED, headers, []
        if is_packed and data is not None:
            packed = compression.compress(data)
            length = ("Content-Length", str(len(packed)))
            return HTTPStatus.OK, [*headers, ("Content-Encoding", "gzip"), length], [packed]
        part = span(environ.get("HTTP_RANGE"), stat.size)
        # Replaced since the client began: a part of this would be joined to the other's first part.
        if environ.get("HTTP_IF_RANGE", etag) != etag:
            part = None
        if part is not None and not part:
            size = ("Content-Range", f"bytes */{stat.size}")
            return _refusal(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, size)
        wanted = range(stat.size) if part is None else part
        headers.append(("Content-Length", str(len(wanted))))
        if part is not None:
            headers.append(("Content-Range", f"bytes {part.start}-{part.stop - 1}/{stat.size}"))
        body = self._body(stat.key, wanted) if data is None else [data[wanted.start : wanted.stop]]
        return HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT, headers, body

    def _body(self, key: str, wanted: range) -> Iterator[bytes]:
        try:
            yield from _cut(self._store.read(key, start=wanted.start), len(wanted))
        except Error as error:
            # Too late for a status: the client sees fewer bytes than Content-Length promised.
            self._console.error(f"error: {error.message}")


def _refusal(
    status: HTTPStatus, *headers: tuple[str, str]
) -> tuple[HTTPStatus, _Headers, Iterable[bytes]]:
    text = f"{status.value} {status.phrase}\n".encode()
    plain = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
    return status, [*plain, *headers], [text]


def _describe(stat: Stat, etag: str, *, is_packed: bool) -> _Headers:
    headers = layout.headers(stat.key)
    kind = headers.content_type
    if kind.startswith(("text/html", "application/atom")) and not layout.is_rendered(stat.key):
        # A builder wrote it: no page of this site, with its cookies and its name.
        kind = "text/plain; charset=utf-8"
    described = [
        ("Content-Type", kind),
        # RFC 9110, 8.8.3.3: other bytes of the same content. No range of these can be joined.
        ("ETag", f"W/{etag}" if is_packed else etag),
        ("Last-Modified", formatdate(stat.modified, usegmt=True)),
        ("Accept-Ranges", "none" if is_packed else "bytes"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    if compression.is_negotiated(stat.key):
        described.append(("Vary", "Accept-Encoding"))
    if headers.cache_control:
        described.append(("Cache-Control", headers.cache_control))
    return described


def _cut(chunks: Iterator[bytes], length: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:length]
        length -= len(chunk)
        if length <= 0:
            return
