"""``lago-images ci plan``."""

from pathlib import Path

import click

from lago_images.ci import outputs
from lago_images.ci import plan_job as job
from lago_images.cli.common import Invocation
from lago_images.cli.work import workspace
from lago_images.host.files import replace
from lago_images.planning import document
from lago_images.planning.facts import Ask

FORMATS = {
    "text": document.to_text,
    "json": document.to_json,
    "github": document.to_github,
    "jenkins": document.to_jenkins,
}
_FAN_OUTS = ("github", "jenkins")
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option("--base", metavar="REV", help="Only what changed since this commit or branch.")
@click.option("--stale", type=click.IntRange(min=0), metavar="DAYS", help="Also what is older.")
@click.option("--all", "everything", is_flag=True, help="Everything, affected or not.")
@click.option(
    "--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True
)
@click.option("--output", type=_FILE, help="Save the plan (as JSON) in this file, too.")
@click.pass_obj
def plan(
    invocation: Invocation,
    names: tuple[str, ...],
    base: str | None,
    stale: int | None,
    everything: bool,
    form: str,
    output: Path | None,
) -> None:
    """What is affected and why. NAMEs are built whether affected or not."""
    ask = Ask(force=frozenset(names), everything=everything, stale_days=stale)
    work = workspace(invocation)
    if form in _FAN_OUTS:
        job.refuse_passing(work)
    made = job.plan(work, ask, scope=base)
    if output is not None:
        replace(output, document.to_json(made).encode())
    if form == "github":
        outputs.append(invocation.environ, document.to_github(made))
        invocation.console.info(document.summary(made))
    click.echo(FORMATS[form](made), nl=False)
