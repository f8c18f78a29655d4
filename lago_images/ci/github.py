"""What is told to GitHub through its API: one comment a pull request, one status a chain."""

from collections.abc import Mapping

from github import Auth, Github, GithubException
from github.Commit import Commit
from github.Issue import Issue
from github.IssueComment import IssueComment
from requests import RequestException
from urllib3.util import Retry

from lago_images.ci.environment import BOT, Target
from lago_images.errors import Error

_FORBIDDEN = frozenset({401, 403, 404})
# GitHub cuts off nothing: a longer description is refused.
_DESCRIPTION = 140


class GitHubError(Error):
    """GitHub could not be told."""


class NotPermittedError(GitHubError):
    """The token may not do this, as in a run for a fork's pull request."""


class Reporter:
    """Tells GitHub; every method raises ``GitHubError``, and ``NotPermittedError`` on 401-404."""

    def __init__(self, target: Target, token: str, *, author: str = BOT) -> None:
        """``author`` is the login that our comments carry: nobody else's comment is touched."""
        self._target = target
        self._author = author
        # PyGithub's own retries wait for a rate limit to end, which takes up to an hour.
        retry = Retry(total=3, backoff_factor=1, status_forcelist=(500, 502, 503, 504))
        self._github = Github(
            auth=Auth.Token(token), base_url=target.api, retry=retry, lazy=True, timeout=30
        )

    def comment(self, marker: str, body: str) -> str:
        """Write the report's comment, or replace its text; returns its URL."""
        number = self._target.pull_request
        if number is None:
            raise GitHubError("there is no pull request to comment on")
        try:
            # To the API a pull request is an issue, and so is its conversation.
            issue = self._github.get_repo(self._target.repository).get_issue(number)
            return self._write(issue, marker, body)
        except (GithubException, RequestException) as error:
            raise _told(error, f"commenting on pull request {number}") from error

    def _write(self, issue: Issue, marker: str, body: str) -> str:
        for comment in issue.get_comments():
            if self._is_ours(comment) and (comment.body or "").startswith(marker):
                if comment.body != body:
                    comment.edit(body)
                return comment.html_url
        return issue.create_comment(body).html_url

    def _is_ours(self, comment: IssueComment) -> bool:
        # A user who is gone is null; and logins differ by more than their case.
        login = getattr(comment.user, "login", None)
        return login is not None and str(login).lower() == self._author.lower()

    def statuses(self, states: Mapping[str, tuple[bool, str]], url: str) -> None:
        """Set a commit status for each chain: by name, whether it is good, and a sentence."""
        try:
            commit = self._commit()
            for name, (good, told) in states.items():
                commit.create_status(
                    "success" if good else "failure",
                    target_url=url,
                    description=told
                    if len(told) <= _DESCRIPTION
                    else told[: _DESCRIPTION - 1] + "…",
                    context=f"lago-images / {name}",
                )
        except (GithubException, RequestException) as error:
            on = self._target.commit[:12] or f"pull request {self._target.pull_request}"
            raise _told(error, f"setting statuses on {on}") from error

    def _commit(self) -> Commit:
        repository = self._github.get_repo(self._target.repository)
        if self._target.commit:
            return repository.get_commit(self._target.commit)
        if self._target.pull_request is None:
            raise GitHubError("there is neither a commit nor a pull request to set statuses on")
        return repository.get_commit(repository.get_pull(self._target.pull_request).head.sha)

    def close(self) -> None:
        self._github.close()


def _told(error: GithubException | RequestException, doing: str) -> GitHubError:
    if isinstance(error, RequestException):
        return GitHubError(f"{doing}: GitHub cannot be reached: {error}")
    message = error.data.get("message", "") if isinstance(error.data, dict) else ""
    text = f"{doing}: GitHub answered {error.status} {message}".rstrip()
    if error.status in _FORBIDDEN:
        return NotPermittedError(text)
    return GitHubError(text)
