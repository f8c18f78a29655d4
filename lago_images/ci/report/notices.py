"""The report's way to the pull request: what the token permits, each notice by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

from lago_images.ci.environment import Target
from lago_images.ci.github import GitHubError, NotPermittedError, Reporter
from lago_images.ci.report.markdown import Report, chain_states, render
from lago_images.console import Console
from lago_images.errors import Error


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """The end of the notices: whether there is a comment now, and what failed."""

    commented: bool
    failures: Sequence[Error] = ()


def post(console: Console, report: Report, target: Target, token: str, *, author: str) -> Posted:
    """Write the comment and the statuses; one that fails keeps the other from nothing.

    What the token may not do is no failure: the report of a fork's pull request has such a token.
    """
    reporter = Reporter(target, token, author=author)
    failures: list[Error] = []
    commented = False
    try:
        if target.pull_request is not None:
            try:
                url = reporter.comment(report.marker, render(report))
                commented = True
                console.info(f"reported at {url}")
            except NotPermittedError as error:
                console.info(f"{error.message}: the report is in the step summary only")
            except GitHubError as error:
                failures.append(error)
        if report.entries:
            try:
                reporter.statuses(chain_states(report), report.run)
            except NotPermittedError as error:
                console.info(f"{error.message}: none is set")
            except GitHubError as error:
                failures.append(error)
    finally:
        reporter.close()
    return Posted(commented=commented, failures=failures)
