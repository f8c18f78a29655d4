"""GitHub's API as its OpenAPI description has it: Prism, which refuses what does not fit."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests import npm
from tests.servers.processes import free_port

# What the report may use. Anything else is no path of this server: a request to it fails.
PATHS = (
    "/repos/{owner}/{repo}/issues/{issue_number}/comments",
    "/repos/{owner}/{repo}/issues/comments/{comment_id}",
    "/repos/{owner}/{repo}/statuses/{sha}",
    "/repos/{owner}/{repo}/pulls/{pull_number}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prism:
    url: str
    log: Path

    def requests(self) -> list[str]:
        """Method and path of every request so far."""
        # The log is written later than answers are: it is complete up to a request of our own.
        last = f"/last/{uuid.uuid4().hex}"
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(self.url + last, timeout=300)
        while last not in (text := self.log.read_text()):
            time.sleep(0.05)
        found = re.findall(r"\[HTTP SERVER\] (\w+ \S+)", re.sub(r"\x1b\[[0-9;]*m", "", text))
        return [request for request in found if "/last/" not in request]


def description(url: str) -> dict:
    """GitHub's published description, with the paths above only.

    The URLs in its example answers lead to the server at ``url``, and to no second page.
    """
    path = npm.modules() / "@octokit/openapi/generated/api.github.com.json"
    plain = json.loads(path.read_text().replace("https://api.github.com", url))
    plain["paths"] = {path: plain["paths"][path] for path in PATHS}
    plain["paths"][PATHS[0]]["get"]["responses"]["200"].pop("headers")
    # The team in this example lacks what the same description requires of a team.
    plain["components"]["examples"]["pull-request"]["value"]["requested_teams"] = []
    plain.pop("x-webhooks", None)
    return plain


@contextmanager
def running(folder: Path) -> Iterator[Prism]:
    document, log = folder / "github.json", folder / "prism.log"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    document.write_text(json.dumps(description(url)))
    prism = npm.modules() / "@stoplight/prism-cli/dist/index.js"
    argv = ["node", str(prism), "mock", "--errors", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as out:
        server = subprocess.Popen([*argv, str(document)], stdout=out, stderr=out)
        try:
            _wait(url, server)
            yield Prism(url=url, log=log)
        finally:
            server.kill()
            server.wait()


def _wait(url: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None
        try:
            urllib.request.urlopen(url, timeout=5)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)
