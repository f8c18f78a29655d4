"""The run as the CI describes it: the event, the pull request, the URLs.

Also the files through which a step talks to GitHub's runner: outputs and the step summary.
"""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lago_images.errors import UsageError

API = "https://api.github.com"
# The author of what GITHUB_TOKEN writes.
BOT = "github-actions[bot]"
_PULL = re.compile(r"https://([\w.-]+(?::[0-9]+)?)/([\w.-]+/[\w.-]+)/pull/([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The place on GitHub that a report is about.

    Attributes:
        repository: ``owner/name``.
        commit: The statuses are set on it; empty for the pull request's newest.
        pull_request: Its number; None outside a pull request.
        api: The API's base URL.
    """

    repository: str
    commit: str
    pull_request: int | None
    api: str = API


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A run of CI.

    Attributes:
        target: Where to report to on GitHub; None where there is nothing.
        run: The URL of the run; empty where that is not known.
    """

    target: Target | None
    run: str


def read(environ: Mapping[str, str]) -> Event:
    """Read the variables that GitHub's runner sets, or Jenkins and its GitHub branch source.

    https://docs.github.com/actions/reference/workflows-and-actions/variables
    https://plugins.jenkins.io/github-branch-source/
    Raises ``UsageError`` when they contradict what GitHub documents.
    """
    repository = environ.get("GITHUB_REPOSITORY", "")
    if not repository:
        return Event(target=_jenkins_target(environ), run=environ.get("BUILD_URL", ""))
    pull = _payload(environ).get("pull_request") or {}
    try:
        commit = pull["head"]["sha"] if pull else environ.get("GITHUB_SHA", "")
        number = int(pull["number"]) if pull else None
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the event's pull_request is not as GitHub documents: {error}") from error
    target = Target(
        repository=repository,
        commit=str(commit),
        pull_request=number,
        api=environ.get("GITHUB_API_URL") or API,
    )
    return Event(target=target, run=_run(environ, repository))


def _jenkins_target(environ: Mapping[str, str]) -> Target | None:
    """Return the pull request: what Jenkins builds is a merge that GitHub does not know."""
    match = _PULL.fullmatch(environ.get("CHANGE_URL", ""))
    if not match:
        return None
    host, repository, number = match.groups()
    return Target(
        repository=repository,
        commit="",
        pull_request=int(number),
        api=_api(host),
    )


def _api(host: str) -> str:
    """Return the API's base URL for a host of web pages, with its port.

    https://docs.github.com/enterprise-cloud@latest/admin/data-residency/network-details-for-ghecom
    """
    if host == "github.com":
        return API
    return f"https://api.{host}" if host.endswith(".ghe.com") else f"https://{host}/api/v3"


def _payload(environ: Mapping[str, str]) -> dict[str, Any]:
    path = environ.get("GITHUB_EVENT_PATH", "")
    if not path or not Path(path).is_file():
        return {}
    try:
        plain = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    return plain if isinstance(plain, dict) else {}


def _run(environ: Mapping[str, str], repository: str) -> str:
    run = environ.get("GITHUB_RUN_ID", "")
    server = environ.get("GITHUB_SERVER_URL") or "https://github.com"
    return f"{server}/{repository}/actions/runs/{run}" if run else ""


def write(environ: Mapping[str, str], outputs: Mapping[str, str]) -> bool:
    """Append to ``GITHUB_OUTPUT``; returns False if there is none.

    Every value is between delimiters that it cannot know, so that no line of it is an output.
    """
    path = environ.get("GITHUB_OUTPUT")
    if not path:
        return False
    with Path(path).open("a", encoding="utf-8") as file:
        file.writelines(_entry(name, value) for name, value in outputs.items())
    return True


def summarise(environ: Mapping[str, str], markdown: str) -> bool:
    """Append to ``GITHUB_STEP_SUMMARY``; returns False if there is none."""
    path = environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return False
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(markdown + "\n")
    return True


def _entry(name: str, value: str) -> str:
    delimiter = secrets.token_hex(16)
    if not name.replace("-", "").replace("_", "").isalnum() or delimiter in value:
        raise UsageError(f"{name!r} cannot be the name of an output")
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


def append(environ: Mapping[str, str], lines: str) -> bool:
    """Append lines ``name=value`` as ``write`` does."""
    return write(environ, dict(line.split("=", 1) for line in lines.splitlines()))
