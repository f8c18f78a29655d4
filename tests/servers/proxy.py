"""A proxy that breaks chosen requests between a client and a server.

    def plan(request):
        return Fault(answer=503) if request.number == 3 else None

    with FaultProxy(server.endpoint, plan) as proxy:
        environ = server.through(proxy.endpoint).environ

Everything is passed on as it came, the Host header too, so signatures hold.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from socketserver import StreamRequestHandler, ThreadingTCPServer
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}
_BLOCK = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that came in.

    ``number`` counts from 1; ``target`` is the path and query; ``headers`` have their names in
    lower case.
    """

    number: int
    method: str
    target: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def writes(self) -> bool:
        return self.method in {"PUT", "POST", "DELETE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to a request, in this order.

    Attributes:
        before: Called before anything else: kill the client here, and it never was sent.
        delay: Seconds the request is held back.
        reset: The connection is reset, and the server never sees the request.
        answer: The client gets this status, and the server never sees the request.
        code: S3's name of the error in that answer.
        after: Called when the server has answered: kill the client here, and it was applied.
        drop: The connection is reset instead of passing on the server's answer.
        truncate: The connection is reset after so many bytes of the answer's body.
        headers: These replace the answer's own.
    """

    before: Callable[[], None] | None = None
    delay: float = 0
    reset: bool = False
    answer: int | None = None
    code: str = ""
    after: Callable[[], None] | None = None
    drop: bool = False
    truncate: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Plan = Callable[[Request], Fault | None]


def passing(_request: Request) -> None:
    """No fault at all: counts requests only."""


class FaultProxy(ThreadingTCPServer):
    """Listens on loopback within a ``with`` block; ``requests`` holds what came, in order.

    ``plan`` may be replaced between requests. Bodies are kept only with ``keep_bodies``.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, upstream: str, plan: Plan = passing, *, keep_bodies: bool = False) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "", parts.port or 80)
        self.plan = plan
        self.keep_bodies = keep_bodies
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def arrived(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
        with self._lock:
            kept = body if self.keep_bodies else b""
            number = len(self.requests) + 1
            request = Request(
                number=number, method=method, target=target, headers=headers, body=kept
            )
            self.requests.append(request)
            return request

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed, or a reset of our own, is no error of the proxy's."""


class _ResetError(Exception):
    """The client's connection is to be reset."""


class _Handler(StreamRequestHandler):
    rbufsize = _BLOCK
    disable_nagle_algorithm = True

    def handle(self) -> None:
        proxy = cast("FaultProxy", self.server)
        try:
            while self._one(proxy):
                pass
        except _ResetError:
            # With no linger time, closing sends RST instead of FIN.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            with suppress(OSError):
                self.rfile.close()
                self.wfile.close()
            self.connection.close()
        except (OSError, HTTPException):
            self.connection.close()

    def _one(self, proxy: FaultProxy) -> bool:
        """One request of a connection; False at its end."""
        line = self.rfile.readline().decode("latin-1").split()
        if len(line) != 3:
            return False
        method, target, _ = line
        headers = self._headers()
        lookup = {name.lower(): value for name, value in headers}
        if lookup.get("expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.rfile.read(int(lookup.get("content-length", "0")))
        request = proxy.arrived(method, target, lookup, body)
        fault = proxy.plan(request) or Fault()
        if fault.before:
            fault.before()
        time.sleep(fault.delay)
        if fault.reset:
            raise _ResetError
        if fault.answer is not None:
            self._answer(fault.answer, fault.code, bodiless=method == "HEAD")
            return True
        upstream = HTTPConnection(*proxy.upstream, timeout=600)
        try:
            self._forward(upstream, request, headers, body)
            self._relay(upstream.getresponse(), method, fault)
        finally:
            upstream.close()
        return True

    def _headers(self) -> list[tuple[str, str]]:
        headers = []
        while line := self.rfile.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
        return headers

    @staticmethod
    def _forward(
        upstream: HTTPConnection, request: Request, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        method, target = request.method, request.target
        upstream.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            if name.lower() not in _HOP:
                upstream.putheader(name, value)
        upstream.endheaders(body or None)

    def _relay(self, response: HTTPResponse, method: str, fault: Fault) -> None:
        length = response.getheader("Content-Length")
        whole = None
        if length is None or fault.drop or fault.after:
            whole = response.read()
        if fault.after:
            fault.after()
        if fault.drop:
            raise _ResetError
        self.wfile.write(f"HTTP/1.1 {response.status} {response.reason}\r\n".encode("latin-1"))
        replaced = {name.lower() for name in fault.headers}
        for name, value in fault.headers.items():
            self.wfile.write(f"{name}: {value}\r\n".encode("latin-1"))
        for name, value in response.getheaders():
            if name.lower() not in _HOP | replaced:
                self.wfile.write(f"{name}: {value}\r\n".encode("latin-1"))
        bodiless = method == "HEAD" or response.status in {204, 304}
        if length is None and not bodiless:
            self.wfile.write(b"Content-Length: %d\r\n" % len(whole or b""))
        self.wfile.write(b"\r\n")
        if bodiless:
            return
        sent = 0
        while block := whole if whole is not None else response.read(_BLOCK):
            whole = b"" if whole is not None else None
            if fault.truncate is not None and sent + len(block) > fault.truncate:
                self.wfile.write(block[: fault.truncate - sent])
                raise _ResetError
            self.wfile.write(block)
            sent += len(block)

    def _answer(self, status: int, code: str, *, bodiless: bool) -> None:
        usual = {429: "TooManyRequests", 500: "InternalError", 503: "SlowDown"}
        code = code or usual.get(status, "Error")
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>fault</Message></Error>"
        head = f"HTTP/1.1 {status} Fault\r\nContent-Type: application/xml\r\n"
        head += f"Content-Length: {len(text)}\r\n\r\n"
        self.wfile.write((head if bodiless else head + text).encode())
