"""``ci plan``, and how a plan is shown.

It is what people and CIs call most, so it imports nothing that builds or publishes.
"""

from pathlib import Path

import click

from lago_images.ci import environment
from lago_images.cli.completion import spec_names
from lago_images.cli.invocation import Invocation
from lago_images.cli.tables import table, terminal_width
from lago_images.cli.targets import FILE, writable
from lago_images.cli.values import DAYS
from lago_images.console import wrapped
from lago_images.host.files import replace
from lago_images.jobs import plan as plan_job
from lago_images.jobs.workspace import Workspace
from lago_images.planning import formats
from lago_images.planning.history import Ask
from lago_images.planning.model import WORK, Plan

_FORMATS = {
    "json": formats.to_json,
    "github": formats.to_github,
    "jenkins": formats.to_jenkins,
}
FORMS = ("text", *_FORMATS)
FAN_OUTS = ("github", "jenkins")
# Not 1 or 2, which say that the plan could not be made.
_TO_DO = 3


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=spec_names)
@click.option("--base", metavar="REV", help="Only what changed since this commit or branch.")
@click.option("--stale", type=DAYS, metavar="DAYS", help="Also images that are older.")
@click.option(
    "--outdated",
    is_flag=True,
    help="Also images that would get newer packages, or another base, from outside; --stale then "
    "is for those of which that cannot be known.",
)
@click.option("--all", "everything", is_flag=True, help="All images, affected or not.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default="text",
    show_default=True,
    help="For people, as a JSON document, or as the jobs of a CI, one for each chain.",
)
@click.option(
    "--output",
    type=FILE,
    callback=writable,
    help="Save the plan (as JSON) in this file, too.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 3 if there is something to do.")
@click.pass_obj
def plan(
    invocation: Invocation,
    names: tuple[str, ...],
    base: str | None,
    stale: int | None,
    outdated: bool,
    everything: bool,
    form: str,
    output: Path | None,
    exit_code: bool,
) -> None:
    """Show what is affected and why.

    NAMEs are built whether affected or not; they may have * and ? as shells have them. With
    --exit-code it exits with 0 if there is nothing to build or promote, and with 3 if there is.
    """
    ask = Ask(force=frozenset(names), everything=everything, stale_days=stale, outdated=outdated)
    workspace = invocation.judging_workspace(must_judge=False)
    # Before the plan: the jobs of its fan-out would each build for nothing.
    if form in FAN_OUTS:
        plan_job.refuse_passing(workspace)
    plan = plan_job.plan(workspace, ask, scope=base)
    if output is not None:
        replace(output, formats.to_json(plan).encode())
    if form == "github":
        environment.append(workspace.environ, formats.to_github(plan))
        workspace.console.info(formats.summary(plan))
    show_plan(workspace, plan, form)
    if exit_code and any(image.action in WORK for image in plan.images):
        raise click.exceptions.Exit(_TO_DO)


def show_plan(workspace: Workspace, plan: Plan, form: str) -> None:
    """Print a plan in one of its forms, and which files of what it builds are not committed.

    Its table is as wide as the terminal.
    """
    if form == "text":
        click.echo("\n".join(plan_lines(plan, terminal_width())))
    else:
        click.echo(_FORMATS[form](plan), nl=False)
    if plan.dirty and (message := plan_job.uncommitted_work(workspace, plan)):
        workspace.console.info(f"note: not committed: {message}")


def plan_lines(plan: Plan, width: int | None) -> list[str]:
    """Return a plan as a table of that width, and the summary."""
    heads, rows = ("IMAGE", "ARCH", "ACTION", "REASON"), formats.rows(plan)
    return [
        *(table(heads, rows, width=width) if rows else ()),
        *wrapped(formats.summary(plan), width),
    ]
