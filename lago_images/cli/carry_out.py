"""Building and publishing, and how it is told."""

from collections.abc import Sequence

import click

from lago_images.building.model import Result
from lago_images.ci.publish_job import PublicationOutcome
from lago_images.ci.run import run
from lago_images.ci.workspace import Workspace
from lago_images.cli.common import Invocation
from lago_images.cli.work import finish, show_plan
from lago_images.planning.model import Plan
from lago_images.repository.state import State


def show_results(invocation: Invocation, ended: Sequence[Result]) -> None:
    """How each build ended; for a failure its last words and where its log is."""
    for result in ended:
        if result.manifest is not None:
            size = result.manifest.disk.compressed_size / 2**20
            click.echo(f"{result.name}: built in {result.seconds:.0f} s, {size:.1f} MiB")
        elif result.skipped:
            invocation.console.error(f"{result.name}: not built: its base {result.skipped} failed")
        else:
            _show_failure(invocation, result)


def _show_failure(invocation: Invocation, result: Result) -> None:
    console = invocation.console
    console.error(f"{result.name}: failed while {result.step or 'building'}: {result.error}")
    for line in result.tail:
        console.output(f"  | {line}")
    if result.log is not None:
        console.info(f"{result.name}: log: {result.log}")


def show_publication(invocation: Invocation, publication: PublicationOutcome) -> None:
    """What became of each image."""
    for name, outcome in publication.outcomes.items():
        click.echo(f"{name}: {outcome.verdict} revision {outcome.release.revision}")
    for name in publication.missing:
        invocation.console.error(f"{name}: not published: it has no build")
    for name, why in publication.failed.items():
        invocation.console.error(f"{name}: not published: {why}")
    for found in publication.findings:
        invocation.console.error(f"{found.where}: {found.what}; repair: {found.repair}")
    changed = ", ".join(publication.written) or "nothing"
    invocation.console.info(f"rendered files that changed: {changed}")


def carry_out(invocation: Invocation, work: Workspace, made: Plan, state: State) -> None:
    """Build and publish what a plan made from ``state`` says, and end the command."""
    show_plan(invocation, made)
    ended = run(work, made, state, lambda results: show_results(invocation, results))
    show_publication(invocation, ended.publication)
    if not (ended.results or ended.publication.outcomes):
        click.echo("nothing to build")
    finish(succeeded=ended.ok)
