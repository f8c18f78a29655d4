"""``lago-images ci report``."""

from collections.abc import Callable, Mapping
from pathlib import Path

import click

from lago_images.ci import event as events
from lago_images.ci import gather, junit, outputs, publication, results
from lago_images.ci.event import Event
from lago_images.ci.github import BOT, NotPermittedError, Reporter, Target
from lago_images.ci.publication import Fate
from lago_images.ci.report import Report, chain_states, marker, render
from lago_images.cli.common import Invocation
from lago_images.host.files import replace
from lago_images.planning import document
from lago_images.planning.model import Plan
from lago_images.repository import state as states

_SUMMARY_LIMIT = 900_000


@click.command()
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), default="plan.json")
@click.option("--results", "folder", type=click.Path(path_type=Path), default="results")
@click.option("--junit", "junit_file", type=click.Path(path_type=Path), help="Also as JUnit XML.")
@click.option(
    "--publication",
    "ended",
    type=click.Choice(["success", "failure", "cancelled", "skipped"]),
    help="How the job that publishes ended, should it not have told so itself.",
)
@click.option("--author", default=BOT, show_default=True, help="Whose comment is updated.")
@click.pass_obj
def report(
    invocation: Invocation,
    plan_file: Path,
    folder: Path,
    junit_file: Path | None,
    ended: str | None,
    author: str,
) -> None:
    """Tell how the images fared: on the pull request, in the step summary, else here.

    Uses what GitHub Actions sets (GITHUB_REPOSITORY, GITHUB_EVENT_PATH, …) or Jenkins (CHANGE_URL,
    BUILD_URL), and GITHUB_TOKEN.
    """
    environ, settings = invocation.environ, invocation.settings
    event = events.read(environ)
    store, plan = invocation.store(), document.load(plan_file)
    source = gather.Source(
        store=store,
        state=states.read(store),
        base_url=settings.base_url,
        run=event.run,
        aside=folder / "repository",
        fates=_fates(event, plan, folder, ended),
    )
    told = Report(
        plan=plan,
        entries=gather.entries(plan, results.read_folder(folder), source),
        marker=marker(settings.name or settings.repository),
        run=event.run,
    )
    if junit_file is not None:
        replace(junit_file, junit.render(told.entries))
    shown = outputs.summarise(environ, render(told, limit=_SUMMARY_LIMIT))
    token = environ.get("GITHUB_TOKEN", "")
    posted = (
        event.target is not None
        and bool(token)
        and _post(invocation, told, event.target, token, author)
    )
    if not (shown or posted):
        click.echo(render(told))


def _fates(event: Event, plan: Plan, folder: Path, ended: str | None) -> Mapping[str, Fate] | None:
    """How the publication ended; None where there was none."""
    if event.target is not None and event.target.pull_request is not None:
        return None
    fates = publication.read(folder, plan)
    if fates is None and ended in {"failure", "cancelled"}:
        why = "the publication ended without telling how"
        fates = {fate.name: fate for fate in publication.stopped(plan, why)}
    return fates


def _post(invocation: Invocation, told: Report, target: Target, token: str, author: str) -> bool:
    """Tell GitHub what its token permits; whether a comment was written."""
    reporter = Reporter(target, token, author=author)

    def comment() -> None:
        url = reporter.comment(told.marker, render(told))
        invocation.console.info(f"reported at {url}")

    commented = False
    try:
        if target.pull_request is not None:
            otherwise = "the report is in the step summary only"
            commented = _permitted(invocation, comment, otherwise)
        if told.entries:
            states = chain_states(told)
            _permitted(invocation, lambda: reporter.statuses(states, told.run), "none is set")
    finally:
        reporter.close()
    return commented


def _permitted(invocation: Invocation, call: Callable[[], None], otherwise: str) -> bool:
    """Whether the token permits a call; if not, what holds ``otherwise`` is told."""
    try:
        call()
    except NotPermittedError as error:
        invocation.console.info(f"{error.message}: {otherwise}")
        return False
    return True
