"""An HTTP server on loopback, for a test's own handler."""

import socketserver
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LoopbackServer(ThreadingHTTPServer):
    """Listens on a free port; a thread answers each connection.

    A client that hangs up is no error of the server's: it ends that connection, quietly.
    """

    # The usual 5 make clients wait a second for their next attempt where many connect at once.
    request_queue_size = 128

    def __init__(self, handler: type[BaseHTTPRequestHandler], address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), handler)

    @property
    def url(self) -> str:
        return f"http://{self.server_name}:{self.server_port}"

    def server_bind(self) -> None:
        """Bind without asking the name service for a name, as HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = (
            str(self.server_address[0]),
            int(self.server_address[1]),
        )

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that logs no requests."""

    def log_message(self, *_args: object) -> None: ...

    def read_body(self) -> bytes:
        """Read the request's body: to close with some of it unread resets the connection."""
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))
