"""Run a server in a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer

from lago_images.repository.serving.server import Server


@contextmanager
def in_thread(server: BaseServer | Server) -> Iterator[None]:
    """Serve for a ``with`` block; closing the socket is left to the caller."""
    quickly = {"poll_interval": 0.02} if isinstance(server, BaseServer) else {}
    thread = threading.Thread(target=server.serve_forever, kwargs=quickly)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
