"""A repository over HTTP, as its clients want it: a gateway from a store to virt-builder and lago.

What is served is what the layout publishes; ``state/``, hidden and temporary files are not there
for a client. Nothing is listed.
"""

import re
import socket
import sys
from collections.abc import Iterator
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import unquote

from lago_images.console import Console
from lago_images.errors import Error, NotFoundError
from lago_images.repository.records import layout
from lago_images.storage.base import Stat, Store

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_IDLE = 60.0


def served(target: str) -> str | None:
    """Return the key that a request's target asks for; None when no client may have it.

    ``/`` asks for the catalogue.
    """
    key = unquote(target.partition("?")[0]).removeprefix("/") or layout.CATALOGUE
    if key in layout.RENDERED or layout.key_behind(key):
        return key
    parts = key.split("/")
    hidden = any(not part or part.startswith(".") for part in parts)
    control = any(not char.isprintable() for char in key)
    if hidden or control or not key.startswith((layout.IMAGES, layout.RELEASES)):
        return None
    return key


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


class Server(ThreadingHTTPServer):
    """Serves a store until it is shut down. ``port`` 0 takes a free one."""

    daemon_threads = True

    def __init__(self, store: Store, console: Console, *, bind: str, port: int) -> None:
        """Raises ``Error`` when the address cannot be had."""
        self.store = store
        self.console = console
        self.address_family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        try:
            super().__init__((bind, port), _Handler)
        except (OSError, OverflowError) as error:
            raise Error(
                f"cannot serve at {bind} port {port}: {error}",
                hint="choose another --port, or --port 0 for any free one",
            ) from error

    @property
    def url(self) -> str:
        """Return where a client on this machine finds the repository; no slash at its end."""
        host, port = self.server_address[:2]
        name = str(host)
        if name in {"0.0.0.0", "::"}:  # noqa: S104 -- what was asked for is only shown here
            name = socket.gethostname()
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up: lago drops its first connection of each file."""
        del request, client_address
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            self.console.error(f"error: a request could not be served: {error!r}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "lago-images"
    sys_version = ""
    timeout = _IDLE

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- http.server's name
        self._server.console.info(f"{self.address_string()} {format % args}")

    def log_error(self, format: str, *args: object) -> None:  # noqa: A002 -- http.server's name
        """Say nothing more: the status is in the request's line; an idle client is no error."""

    @property
    def _server(self) -> Server:
        return cast("Server", self.server)

    def _answer(self, *, body: bool) -> None:
        key = served(self.path)
        try:
            found = None if key is None else self._object(key)
        except NotFoundError:
            found = None
        except Error as error:
            self._server.console.error(f"error: {error.message}")
            self.send_error(HTTPStatus.BAD_GATEWAY)
            return
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(*found, body=body)

    def _object(self, key: str) -> tuple[Stat, bytes | None]:
        """What is known of an object, and its bytes if they may change between two requests."""
        stat = self._server.store.head(key)
        if key.startswith((layout.IMAGES, layout.RELEASES)):
            return stat, None
        blob = self._server.store.get(key)
        current = Stat(key=key, size=len(blob.data), etag=blob.etag, modified=stat.modified)
        return current, blob.data

    def _send(self, stat: Stat, data: bytes | None, *, body: bool) -> None:
        etag = '"' + stat.etag.strip('"') + '"'
        if etag in self.headers.get("If-None-Match", ""):
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self._describe(stat, etag)
            self.end_headers()
            return
        part = span(self.headers.get("Range"), stat.size)
        if self.headers.get("If-Range", etag) != etag:
            part = None
        if part is not None and not part:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{stat.size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT)
        self._describe(stat, etag)
        if part is not None:
            self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{stat.size}")
        wanted = part if part is not None else range(stat.size)
        self.send_header("Content-Length", str(len(wanted)))
        self.end_headers()
        if body:
            self._body(stat.key, wanted, data)

    def _describe(self, stat: Stat, etag: str) -> None:
        headers = layout.headers(stat.key)
        self.send_header("Content-Type", headers.content_type)
        if headers.cache_control:
            self.send_header("Cache-Control", headers.cache_control)
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", formatdate(stat.modified, usegmt=True))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Content-Type-Options", "nosniff")

    def _body(self, key: str, wanted: range, data: bytes | None) -> None:
        if data is not None:
            self.wfile.write(data[wanted.start : wanted.stop])
            return
        try:
            for piece in _cut(self._server.store.read(key, start=wanted.start), len(wanted)):
                self.wfile.write(piece)
        except Error as error:
            # Too late for a status: the client sees fewer bytes than Content-Length promised.
            self._server.console.error(f"error: {error.message}")
            self.close_connection = True


def _cut(chunks: Iterator[bytes], length: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:length]
        length -= len(chunk)
        if length <= 0:
            return
