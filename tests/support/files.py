"""A loopback HTTP server of a few files, that can be told to fail the way servers fail."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.server_threads import in_thread


@dataclass(slots=True)
class Files:
    """What is served, by path, and what goes wrong.

    Attributes:
        content: By path, such as ``/disk.img``.
        cut: How many bytes of a body are sent before the connection is dropped, one entry for
            each of the next answers; None sends all.
        refuse: Status codes that the next requests get instead of an answer.
        ranges: Whether Range is understood.
        etag: The validator of every file; empty for none.
        modified: The time of every file, as HTTP writes it; empty for none.
        times: That of some files, by path.
        retry_after: What a refusal asks to wait.
        requests: (path, Range or None, status) of each request.
        sent: The bytes of all answers' bodies.
    """

    content: dict[str, bytes] = field(default_factory=dict)
    cut: list[int | None] = field(default_factory=list)
    refuse: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str = '"one"'
    modified: str = ""
    times: dict[str, str] = field(default_factory=dict)
    retry_after: str = ""
    requests: list[tuple[str, str | None, int]] = field(default_factory=list)
    sent: int = 0
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path not in self.content:
            # Who takes this for its proxy names another host before the path.
            handler.path = re.sub("^http://[^/]*", "", handler.path)
        wanted, body = handler.headers.get("Range"), self.content.get(handler.path)
        if self.refuse or body is None:
            asked = {"Retry-After": self.retry_after} if self.retry_after else {}
            self._send(handler, self.refuse.pop(0) if self.refuse else 404, b"no", asked, wanted)
            return
        modified = self.times.get(handler.path, self.modified)
        named = {"ETag": self.etag, "Last-Modified": modified}
        headers = {name: value for name, value in named.items() if value}
        start = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        status = 200
        if start and self.ranges and handler.headers.get("If-Range") in headers.values():
            at = int(start[1])
            if at >= len(body):
                self._send(handler, 416, b"", headers, wanted)
                return
            headers["Content-Range"] = f"bytes {at}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[at:]
        self._send(handler, status, body, headers, wanted)

    def _send(self, handler, status, body, headers, wanted) -> None:
        self.requests.append((handler.path, wanted, status))
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        cut = self.cut.pop(0) if self.cut and status in {200, 206} else None
        if handler.command != "HEAD":
            handler.wfile.write(body[:cut])
            self.sent += len(body[:cut])
        handler.close_connection = True


@contextmanager
def serving(content: dict[str, bytes] | None = None, address: str = "127.0.0.1") -> Iterator[Files]:
    files = Files(content=content or {})
    with _served(files, files.answer, address):
        yield files


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], object]) -> Iterator[Files]:
    """A server whose answers are all made by a function; knows its URL and the requests."""
    files = Files()

    def noted(handler: BaseHTTPRequestHandler) -> None:
        files.requests.append((handler.path, handler.headers.get("Range"), 0))
        handler.close_connection = True
        answer(handler)

    with _served(files, noted):
        yield files


@contextmanager
def _served(
    files: Files, answer: Callable[[BaseHTTPRequestHandler], None], address: str = "127.0.0.1"
) -> Iterator[None]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_HEAD(self) -> None:
            self.do_GET()

    with LoopbackServer(Handler, address) as server, in_thread(server):
        files.url = server.url
        yield
