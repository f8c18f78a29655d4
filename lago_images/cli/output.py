"""Show what a run plans, how its builds ended, and what was published."""

import shlex
from collections.abc import Sequence

import click

from lago_images.building.model import Result
from lago_images.cli.invocation import finish
from lago_images.console import Console, human_size
from lago_images.jobs.plan import refuse_dirty
from lago_images.jobs.publish import PublicationOutcome
from lago_images.jobs.rebuild import run
from lago_images.jobs.workspace import Workspace
from lago_images.planning import formats
from lago_images.planning.model import Plan
from lago_images.repository.records.layout import CATALOGUE, METADATA
from lago_images.repository.records.state import State
from lago_images.repository.rendering.site import site_of

allow_dirty = click.option(
    "--allow-dirty",
    is_flag=True,
    help="Publish to a bucket what is not committed; it stays on record.",
)


def build_and_publish(workspace: Workspace, plan: Plan, state: State, *, allow_dirty: bool) -> None:
    """Build and publish as a plan that was made from ``state`` says, show it, end the command."""
    refuse_dirty(workspace, plan, allow=allow_dirty)
    # On stderr: stdout is for data.
    for line in formats.to_text(plan).splitlines():
        workspace.console.info(line)
    outcome = run(workspace, plan, state, lambda results: show_results(workspace.console, results))
    show_publication(workspace.console, outcome.publication)
    if not (outcome.results or outcome.publication.outcomes):
        click.echo("nothing to build")
    if outcome.ok:
        show_next(workspace)
    finish(succeeded=outcome.ok)


def show_next(workspace: Workspace) -> None:
    """Show where what was published can be seen, and how it is served."""
    settings, store, console = workspace.settings, workspace.store, workspace.console
    if store.folder is not None and not (store.folder / METADATA).exists():
        return
    if store.folder is not None:
        console.info(f"next: lago-images serve {shlex.quote(str(store.folder))}")
    if store.folder is None or settings.base_url:
        console.info(f"catalogue: {site_of(settings, store.url).base_url}/{CATALOGUE}")
    console.info("what is published: lago-images repo list")


def show_results(console: Console, results: Sequence[Result]) -> None:
    """Show the result of each build; of a failure, also the program's last lines and the log."""
    for result in results:
        if result.manifest is not None:
            size = human_size(result.manifest.disk.compressed_size)
            click.echo(f"{result.name}: built in {result.seconds:.0f} s, {size}")
        elif result.skipped:
            console.error(f"{result.name}: not built: its base {result.skipped} failed")
        else:
            _show_failure(console, result)


def _show_failure(console: Console, result: Result) -> None:
    console.error(f"{result.name}: failed while {result.step or 'building'}: {result.error}")
    for line in result.tail:
        console.output(f"  | {line}")
    if result.log is not None:
        console.info(f"{result.name}: log: {result.log}")


def show_publication(console: Console, publication: PublicationOutcome) -> None:
    """Show the release of each image, and the problems of the published files."""
    for name, outcome in publication.outcomes.items():
        click.echo(f"{name}: {outcome.verdict} revision {outcome.release.revision}")
    for name in publication.missing:
        console.error(f"{name}: not published: it has no build")
    for name, why in publication.failed.items():
        console.error(f"{name}: not published: {why}")
    for finding in publication.findings:
        console.error(f"{finding.where}: {finding.what}; repair: {finding.repair}")
    changed = ", ".join(publication.written) or "nothing"
    console.info(f"rendered files that changed: {changed}")
