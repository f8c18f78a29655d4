"""``lago-images ci build``, ``publish``, ``rebuild``."""

import re
from pathlib import Path

import click

from lago_images.ci import build_job, plan_job, publication, publish_job, results
from lago_images.cli.carry_out import carry_out, show_publication, show_results
from lago_images.cli.common import Invocation
from lago_images.cli.plan import FORMATS
from lago_images.cli.work import finish, override, plan_of, workspace
from lago_images.errors import Error
from lago_images.planning import document
from lago_images.planning.facts import Ask

_PLAN = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


def _two_numbers(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value)
    if not match:
        raise click.BadParameter(f"{value!r} is not two numbers, such as 3/256")
    return int(match[1]), int(match[2])


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option("--plan", "plan_file", type=_PLAN, help="A saved plan; else one is made now.")
@click.option(
    "--batch",
    callback=_two_numbers,
    metavar="N/M",
    help="What this entry of the saved plan's fan-out has, instead of NAMEs.",
)
@click.option("--results", "folder", type=_FOLDER, help="Write how each build ended here.")
@click.option("--logs", type=_FOLDER, help="Keep each image's log here.")
@click.option("--jobs", "side_by_side", type=click.IntRange(min=1), help="Chains at a time.")
@click.option("--require-kvm", is_flag=True, default=None, help="Refuse to build without KVM.")
@click.option(
    "--no-network",
    "network",
    flag_value=False,
    default=None,
    type=bool,
    help="No network for the images' commands.",
)
@click.option(
    "--upload/--no-upload",
    default=True,
    help="Write builds/ of the repository, or keep what is built in the results' folder.",
)
@click.pass_obj
def build(
    invocation: Invocation,
    names: tuple[str, ...],
    plan_file: Path | None,
    batch: tuple[int, int] | None,
    folder: Path | None,
    logs: Path | None,
    side_by_side: int | None,
    require_kvm: bool | None,
    network: bool | None,
    upload: bool,
) -> None:
    """Build the chains with these images on this host, into builds/ of the repository."""
    if bool(names) == bool(batch):
        raise click.UsageError("say what: either NAME… or --batch N/M")
    if batch and plan_file is None:
        raise click.UsageError("--batch is an entry of a saved plan: give it with --plan")
    override(invocation, jobs=side_by_side, require_kvm=require_kvm, network=network)
    aside = None if upload else folder or Path("results")
    work = workspace(invocation, logs=logs, aside=aside)
    named = Ask(changed=False, force=frozenset(names), promote=False)
    made = plan_of(plan_file) or plan_job.plan(work, named)
    if batch:
        names = document.batch(made, *batch)
    ended = build_job.build(work, made, names)
    if folder is not None:
        results.write_folder(folder, ended)
    show_results(invocation, ended)
    if not ended:
        click.echo("nothing to build: what was named is published, or waits to be")
    finish(succeeded=all(result.ok for result in ended))


@click.command()
@click.option("--plan", "plan_file", type=_PLAN, help="A saved plan; else one is made now.")
@click.option(
    "--results",
    "folder",
    type=_FOLDER,
    help="The folder with how each build ended; it is told there how the publication did.",
)
@click.pass_obj
def publish(invocation: Invocation, plan_file: Path | None, folder: Path | None) -> None:
    """Release what was planned and built, render the repository, verify it."""
    work = workspace(invocation)
    made = plan_of(plan_file) or plan_job.plan(work, Ask())
    ended = [] if folder is None else results.read_folder(folder)
    try:
        published = publish_job.publish(work, made, ended)
    except Error as error:
        if folder is not None:
            publication.write(folder, made, publication.stopped(made, error.message))
        raise
    if folder is not None:
        publication.write(folder, made, publication.fates(published))
    show_publication(invocation, published)
    finish(succeeded=published.ok)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option("--changed", is_flag=True, help="What is affected since it was published.")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.option("--stale", type=click.IntRange(min=0), metavar="DAYS", help="What is older.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), help="Of a dry run's plan.")
@click.option("--logs", type=_FOLDER, help="Keep each image's log here.")
@click.option("--jobs", "side_by_side", type=click.IntRange(min=1), help="Chains at a time.")
@click.option("--require-kvm", is_flag=True, default=None, help="Refuse to build without KVM.")
@click.pass_obj
def rebuild(
    invocation: Invocation,
    names: tuple[str, ...],
    changed: bool,
    everything: bool,
    stale: int | None,
    dry_run: bool,
    form: str | None,
    logs: Path | None,
    side_by_side: int | None,
    require_kvm: bool | None,
) -> None:
    """Plan, build and publish on this machine."""
    if not (names or changed or everything or stale is not None):
        raise click.UsageError("say what: --changed, --all, --stale DAYS or NAME…")
    if form and not dry_run:
        raise click.UsageError("--format is for --dry-run: else there is no plan on stdout")
    override(invocation, jobs=side_by_side, require_kvm=require_kvm)
    ask = Ask(changed=changed, force=frozenset(names), everything=everything, stale_days=stale)
    work = workspace(invocation, logs=logs)
    if not dry_run:
        publish_job.refuse_settings(work)
    made, state = plan_job.plan_and_state(work, ask)
    if dry_run:
        click.echo(FORMATS[form or "text"](made), nl=False)
        return
    carry_out(invocation, work, made, state)
