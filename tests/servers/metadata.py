"""A cloud's metadata service, one connection of it: QEMU starts this file for each.

``python metadata.py FOLDER`` answers one request of HTTP at its standard input, of what the file
``tree.json`` has: a text's answer is that text, a folder's the names in it, or its text named "".
With a token in the file ``token`` it asks for one as EC2's service does, version 2 (IMDSv2).
``requests`` gets a line for each request: status, method and path.
"""

import json
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from socketserver import BaseServer

_TOKEN_PATH = "/latest/api/token"
_TOKEN = "X-aws-ec2-metadata-token"
_SECONDS = "X-aws-ec2-metadata-token-ttl-seconds"


class _Handler(BaseHTTPRequestHandler):
    folder: Path

    def do_GET(self) -> None:
        token = self._token()
        if token and self.headers[_TOKEN] != token:
            return self._answer(HTTPStatus.UNAUTHORIZED)
        text = _find(json.loads((self.folder / "tree.json").read_text()), self.path)
        return self._answer(HTTPStatus.NOT_FOUND if text is None else HTTPStatus.OK, text or "")

    def do_PUT(self) -> None:
        if not self._token() or self.path != _TOKEN_PATH:
            self._answer(HTTPStatus.NOT_FOUND)
        elif not (self.headers[_SECONDS] or "").isdigit():
            self._answer(HTTPStatus.BAD_REQUEST)
        else:
            self._answer(HTTPStatus.OK, self._token())

    def _token(self) -> str:
        file = self.folder / "token"
        return file.read_text() if file.exists() else ""

    def _answer(self, status: HTTPStatus, text: str = "") -> None:
        with (self.folder / "requests").open("a") as log:
            log.write(f"{status.value} {self.command} {self.path}\n")
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: QEMU sends the standard error to the guest, too."""


def _find(tree: Any, path: str) -> str | None:
    for name in filter(None, path.split("/")):
        if not isinstance(tree, dict) or name not in tree:
            return None
        tree = tree[name]
    return tree if isinstance(tree, str) else tree.get("", _names(tree))


def _names(folder: dict[str, Any]) -> str:
    return "\n".join(name if isinstance(each, str) else f"{name}/" for name, each in folder.items())


if __name__ == "__main__":
    _Handler.folder = Path(sys.argv[1])
    with socket.socket(fileno=0) as connection:
        _Handler(connection, ("guest", 0), cast("BaseServer", None))
