"""Notices to GitHub through its API: one comment a pull request, one status a chain."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from github import Auth, Github, GithubException
from github.Commit import Commit
from github.CommitStatus import CommitStatus
from github.Issue import Issue
from github.IssueComment import IssueComment
from requests import RequestException

from lago_images.ci.environment import BOT, Target
from lago_images.console import clean
from lago_images.errors import Error
from lago_images.host.retry import RetryPolicy, asked_pause

Answer = TypeVar("Answer")

_FORBIDDEN = frozenset({401, 403, 404})
_TEMPORARY = frozenset({408, 500, 502, 503, 504})
# GitHub cuts off nothing: a longer description is refused.
_DESCRIPTION = 140
# For a secondary rate limit that names no time:
# https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
_SECONDARY_PAUSE = 60.0
# A report's job has minutes: a primary limit, which ends within the hour, is not waited for.
_LONGEST_PAUSE = 120.0
POLICY = RetryPolicy(attempts=4, delay=1.0, longest_asked=_LONGEST_PAUSE)
# PyGithub takes an answer apart as it comes, and checks the host of the URLs in it by assertion.
_STRANGE = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class GitHubError(Error):
    """A notice did not reach GitHub.

    ``pause`` is after how many seconds another attempt makes sense; None when none does.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, pause: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.pause = pause


class NotPermittedError(GitHubError):
    """The token lacks the permission, as in a run for a fork's pull request."""


class Reporter:
    """Writes notices; every method raises ``GitHubError``, and ``NotPermittedError`` on 401-404.

    What fails for a while is tried again as ``policy`` says: server errors, connections, and rate
    limits for as long as they ask to wait.
    """

    def __init__(
        self, target: Target, token: str, *, author: str = BOT, policy: RetryPolicy = POLICY
    ) -> None:
        """Write as ``author``, the login that our comments carry: nobody else's is touched."""
        self._target = target
        self._author = author
        self._policy = policy
        # PyGithub's own retries repeat no POST, and wait up to an hour for a rate limit to end.
        self._github = Github(
            auth=Auth.Token(token), base_url=target.api, retry=None, lazy=True, timeout=30
        )

    def comment(self, marker: str, body: str) -> str:
        """Write the report's comment, or replace its text; returns its URL."""
        number = self._target.pull_request
        if number is None:
            raise GitHubError("there is no pull request to comment on")
        # To the API a pull request is an issue, and so is its conversation.
        issue = self._github.get_repo(self._target.repository).get_issue(number)
        return self._attempt(
            f"commenting on pull request {number}", lambda: self._write(issue, marker, body)
        )

    def _write(self, issue: Issue, marker: str, body: str) -> str:
        # Looked for in every attempt: a POST whose answer was lost has written the comment.
        for comment in issue.get_comments():
            if self._is_ours(comment) and (comment.body or "").startswith(marker):
                if comment.body != body:
                    comment.edit(body)
                return comment.html_url
        return _written(issue.create_comment(body), "html_url")

    def _is_ours(self, comment: IssueComment) -> bool:
        # The user of a deleted account is null; and logins differ by more than their case.
        login = getattr(comment.user, "login", None)
        return login is not None and str(login).lower() == self._author.lower()

    def statuses(self, states: Mapping[str, tuple[bool, str]], url: str) -> None:
        """Set a commit status for each context: whether it is good, and a sentence.

        One that fails keeps no other away; the first failure is raised after the last attempt.
        """
        on = self._target.commit[:12] or f"pull request {self._target.pull_request}"
        doing = f"setting statuses on {on}"
        commit = self._attempt(doing, self._commit)
        failures: list[GitHubError] = []
        for context, (is_good, sentence) in states.items():
            try:
                self._attempt(doing, partial(_set_status, commit, context, is_good, sentence, url))
            except NotPermittedError:
                # A token's permissions are the same for all of them.
                raise
            except GitHubError as error:
                failures.append(error)
                # A GitHub that is away is not waited for once a status.
                self._policy = replace(self._policy, attempts=1)
        if failures:
            raise failures[0]

    def _commit(self) -> Commit:
        repository = self._github.get_repo(self._target.repository)
        if self._target.commit:
            return repository.get_commit(self._target.commit)
        if self._target.pull_request is None:
            raise GitHubError("there is neither a commit nor a pull request to set statuses on")
        return repository.get_commit(repository.get_pull(self._target.pull_request).head.sha)

    def _attempt(self, doing: str, function: Callable[[], Answer]) -> Answer:
        """Call as often as the policy says; raises ``GitHubError`` that names what was done."""

        def once() -> Answer:
            try:
                return function()
            except GithubException as error:
                raise _judged(error, doing) from error
            except RequestException as error:
                text = f"{doing}: GitHub cannot be reached: {error}"
                raise GitHubError(text, pause=0.0) from error
            except _STRANGE as error:
                raise self._strange(error, doing) from error

        return self._policy.call(
            once, lambda error: error.pause if isinstance(error, GitHubError) else None
        )

    def _strange(self, error: Exception, doing: str) -> GitHubError:
        detail = clean(" ".join(str(error).split()))[:200] or type(error).__name__
        return GitHubError(
            f"{doing}: what answered at {self._target.api} is not GitHub's API: {detail}",
            hint="use the server's canonical host name: a redirect, a proxy or a login page is "
            "no API",
        )

    def close(self) -> None:
        """Close the connections."""
        self._github.close()


def _set_status(commit: Commit, context: str, is_good: bool, sentence: str, url: str) -> None:
    short = len(sentence) <= _DESCRIPTION
    status = commit.create_status(
        "success" if is_good else "failure",
        target_url=url,
        description=sentence if short else sentence[: _DESCRIPTION - 1] + "…",
        context=context,
    )
    _written(status, "id")


def _written(answer: IssueComment | CommitStatus, field: str) -> str:
    """Return a field that all of GitHub's answers have: PyGithub makes an empty thing of a page."""
    if (value := getattr(answer, field)) is None:
        raise ValueError(f"the answer has no {field}")
    return str(value)


def _judged(error: GithubException, doing: str) -> GitHubError:
    """Judge an answer by its status, headers and body: GitHub says 403 for two things."""
    headers = {name.lower(): str(value) for name, value in (error.headers or {}).items()}
    message = error.data.get("message", "") if isinstance(error.data, dict) else ""
    text = f"{doing}: GitHub answered {error.status} {clean(str(message or ''))[:300]}".rstrip()
    if error.status in _TEMPORARY:
        return GitHubError(text, pause=asked_pause(headers))
    # A secondary limit is a 403 too, and some name no header but only the words:
    # https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
    limited = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
    limited = limited or "rate limit" in str(message).lower()
    if error.status == HTTPStatus.TOO_MANY_REQUESTS or (
        error.status == HTTPStatus.FORBIDDEN and limited
    ):
        pause = _until_reset(headers)
        if pause <= _LONGEST_PAUSE:
            return GitHubError(text, pause=pause)
        return GitHubError(text, hint=f"the rate limit ends in {pause / 60:.0f} minutes")
    if error.status in _FORBIDDEN:
        return NotPermittedError(text)
    if 200 <= error.status < 400:  # noqa: PLR2004 -- HTTP's classes
        return GitHubError(f"{text}: that is no answer of its API")
    return GitHubError(text)


def _until_reset(headers: Mapping[str, str]) -> float:
    """Return the seconds until a rate limit ends, by the answer's own clock."""
    if "retry-after" in headers:
        return asked_pause(headers)
    if headers.get("x-ratelimit-remaining") != "0":
        return _SECONDARY_PAUSE
    # By GitHub's clock, not ours, which may be minutes off.
    try:
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
        return max(0.0, float(headers.get("x-ratelimit-reset", "")) - now)
    except (ValueError, TypeError):
        return _SECONDARY_PAUSE
