"""Name the author of a release, which records it: a CI's run, or a person at a machine."""

import getpass
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from lago_images.repository.records.fields import line
from lago_images.repository.records.release import Released

# Of the CIs: the variable of who started the run. A scheduled run in Jenkins has none.
_STARTERS = ("GITHUB_ACTOR", "BUILD_USER_ID", "BUILD_USER", "CHANGE_AUTHOR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Name who releases, and the URL of the CI's run, which is empty outside CI."""

    actor: str
    run: str

    def of(self, commit: str, *, dirty: bool, repository: str = "") -> Released:
        """Make what a release records, of the checked-out commit of the specs' repository."""
        return Released(
            commit=commit, dirty=dirty, actor=self.actor, run=self.run, repository=repository
        )


NOBODY = Author(actor="", run="")


def author_of(environ: Mapping[str, str]) -> Author:
    """Read the author from the environment of a run."""
    starter = next((text for name in _STARTERS if (text := environ.get(name))), "")
    if run := _run(environ):
        return Author(actor=line(starter) or "unknown", run=line(run))
    return Author(actor=line(f"{_user(environ)}@{socket.gethostname()}"), run="")


def _run(environ: Mapping[str, str]) -> str:
    if environ.get("GITHUB_ACTIONS") == "true":
        server = environ.get("GITHUB_SERVER_URL", "https://github.com")
        repository, run = environ.get("GITHUB_REPOSITORY", ""), environ.get("GITHUB_RUN_ID", "")
        return f"{server}/{repository}/actions/runs/{run}"
    # BUILD_URL by itself is no sign of Jenkins: people name variables so.
    return environ.get("BUILD_URL", "") if environ.get("JENKINS_URL") else ""


def _user(environ: Mapping[str, str]) -> str:
    try:
        return environ.get("USER") or getpass.getuser()
    except (KeyError, OSError):
        # A container may have no name for its user.
        return "unknown"
