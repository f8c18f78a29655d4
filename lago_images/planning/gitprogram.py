"""The git program, as it is called, and the only user of GitPython."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from lago_images.errors import GitError, ToolMissingError

# GitPython's import runs git, with all of the environment, and fails on a machine without git,
# which may have no use for it. A git that cannot be run is not run.
os.environ |= {"GIT_PYTHON_REFRESH": "quiet", "GIT_PYTHON_GIT_EXECUTABLE": os.devnull}

from git import cmd
from git.exc import CommandError, GitCommandNotFound

from lago_images.host.process import ALLOWED
from lago_images.host.redaction import redacted

FETCH_SECONDS = 600
# A fixed language, because messages are read; no questions, because nobody may be there to answer;
# and no write to the index, because another git may be at work.
_ENVIRONMENT = {
    "LC_ALL": "C",
    "LANGUAGE": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LITERAL_PATHSPECS": "1",
}
# What git may see of the environment besides what every child may: what it needs to fetch, and
# who called sudo, which git asks before it refuses a clone of somebody else's.
_FETCHING = frozenset(
    {
        *("SSH_AUTH_SOCK", "SSH_ASKPASS", "SUDO_UID", "USER", "LOGNAME", "XDG_CONFIG_HOME"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "all_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE"),
    }
)
# How env ends when there is no such program.
_NO_PROGRAM = 127


class Program:
    """Git, called in a folder."""

    def __init__(self, folder: Path) -> None:
        self._git = cmd.Git(str(folder))
        self._git.update_environment(**_ENVIRONMENT)

    def close(self) -> None:
        """End what git processes are left."""
        self._git.clear_cache()

    def ask(self, *arguments: str) -> str | None:
        """What git says; None when it says no."""
        try:
            return self.run(*arguments).strip()
        except GitError:
            return None

    def run(self, *arguments: str, stdin: Sequence[str] | None = None) -> str:
        """What git says, with the lines of ``stdin`` as its input.

        Raises:
            GitError: It says no.
            ToolMissingError: There is no git.
        """
        with TemporaryFile() as given:
            given.write("".join(f"{line}\n" for line in stdin or ()).encode())
            given.seek(0)
            return self._execute(arguments, given)

    def _execute(self, arguments: Sequence[str], stdin: IO[bytes]) -> str:
        limit = FETCH_SECONDS if arguments[0] == "fetch" else None
        try:
            return str(
                self._git.execute(
                    [*_without_others(os.environ), "git", *arguments],
                    stdin.fileno(),
                    kill_after_timeout=limit,
                    strip_newline_in_stdout=False,
                )
            )
        except CommandError as error:
            if isinstance(error, GitCommandNotFound) or error.status == _NO_PROGRAM:
                missing = ToolMissingError("git is not installed", hint="apt-get install git")
                raise missing from error
            raise _refused(arguments, error) from error


def _without_others(names: Iterable[str]) -> list[str]:
    """The start of a command that runs git without what it may not see of the environment.

    GitPython hands all of it on, and leaves nothing out.
    """
    kept = _FETCHING.union(ALLOWED, _ENVIRONMENT)
    hidden = [name for name in names if name not in kept and not name.startswith("GIT_")]
    return ["env", *(f"--unset={name}" for name in sorted(hidden))]


def _refused(arguments: Sequence[str], error: CommandError) -> GitError:
    said = str(error.stderr).strip().removeprefix("stderr:").strip(" '\n")
    said = redacted(said)
    hint = None
    if "dubious ownership" in said:
        hint = "git config --global --add safe.directory FOLDER, if you trust its owner"
    return GitError(f"git {arguments[0]} failed: {said or error.status}", hint=hint)
