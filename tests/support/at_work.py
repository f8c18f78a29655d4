"""A server's work, in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer

from lago_images.repository.serving.server import Server


@contextmanager
def at_work(server: BaseServer | Server) -> Iterator[None]:
    """Let a server answer for a ``with`` block; its socket is left to who opened it."""
    quickly = {"poll_interval": 0.02} if isinstance(server, BaseServer) else {}
    thread = threading.Thread(target=server.serve_forever, kwargs=quickly)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
