"""What GitHub's runner tells of the run: the event, the pull request, the URLs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lago_images.ci.github import API, Target
from lago_images.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A run on GitHub.

    Attributes:
        target: What to report to; None outside GitHub.
        run: The URL of the run; empty outside GitHub.
    """

    target: Target | None
    run: str


def read(environ: Mapping[str, str]) -> Event:
    """From the variables that the runner sets; of Jenkins' only ``BUILD_URL``.

    https://docs.github.com/actions/reference/workflows-and-actions/variables
    Raises ``UsageError`` when they contradict what GitHub documents.
    """
    repository = environ.get("GITHUB_REPOSITORY", "")
    if not repository:
        return Event(target=None, run=environ.get("BUILD_URL", ""))
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
