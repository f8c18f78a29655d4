"""``ci build``, ``publish``, ``rebuild`` and ``report``: for both CIs and a person."""

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import click

from lago_images.building.model import Result
from lago_images.ci import attestations, environment
from lago_images.ci.environment import BOT, Event
from lago_images.ci.report import entries, junit
from lago_images.ci.report.markdown import SUMMARY_LIMIT, Report, identity, render
from lago_images.cli.answers import PlanReport
from lago_images.cli.completion import spec_names
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.interruption import BUILD_AGAIN, PUBLISH_AGAIN, advising
from lago_images.cli.invocation import Invocation, command, finish
from lago_images.cli.outdated import RECORD
from lago_images.cli.output import (
    allow_dirty,
    build_and_publish,
    run_report,
    show_builds,
    show_end,
    show_first_failure,
    show_publication,
    show_summary,
    speaker,
    timings_file,
)
from lago_images.cli.plan import FAN_OUTS, FORMS, show_plan
from lago_images.cli.run_report import image_reports
from lago_images.cli.targets import FILE, FOLDER, writable
from lago_images.cli.values import CHAINS, DAYS
from lago_images.console import first_of
from lago_images.errors import Error
from lago_images.host.files import replace
from lago_images.jobs import build as build_job
from lago_images.jobs import plan as plan_job
from lago_images.jobs import publish as publish_job
from lago_images.jobs import results
from lago_images.jobs.results import Fate
from lago_images.planning import formats
from lago_images.planning.history import Ask
from lago_images.planning.model import Plan, ReasonKind
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.state import read, survey
from lago_images.specs.quarantine import day

# As many names as a line has.
_SHOWN = 3


def _saved(path: Path | None, sha256: str | None) -> Plan | None:
    """Return the saved plan, if one is named."""
    if path is None and sha256:
        raise click.UsageError("--plan-sha256 is of a saved plan: give it with --plan")
    return None if path is None else formats.load(path, sha256)


def _digest(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value and not re.fullmatch("[0-9a-f]{64}", value):
        raise click.BadParameter(f"{value!r} is not a SHA-256: 64 hexadecimal digits")
    # A workflow hands on an output that no job has set as an empty text.
    return value or None


_plan_sha256 = click.option(
    "--plan-sha256",
    metavar="HEX",
    envvar="LAGO_IMAGES_PLAN_SHA256",
    callback=_digest,
    help="Take no other saved plan than the one with this digest, an output of ci plan.",
)


def _two_numbers(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    if value is None:
        return None
    # It comes through a CI's matrix, as text.
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value)
    if not match:
        raise click.BadParameter(f"{value!r} is not two numbers, such as 3/256")
    return int(match[1]), int(match[2])


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=spec_names)
@click.option("--plan", "plan_file", type=FILE, help="A saved plan; else one is made now.")
@_plan_sha256
@click.option(
    "--batch",
    callback=_two_numbers,
    metavar="N/M",
    help="The chains of this entry of the saved plan's fan-out, instead of NAMEs.",
)
@click.option(
    "--results",
    "folder",
    type=FOLDER,
    callback=writable,
    help="Write the result of each build here.",
)
@click.option("--logs", type=FOLDER, callback=writable, help="Keep each image's log here.")
@click.option("--jobs", "side_by_side", type=CHAINS, help="Chains at a time.")
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
    help="Write builds/ of the repository, or keep the builds in the results' folder.",
)
@timings_file
@FORMAT
@click.pass_obj
def build(
    invocation: Invocation,
    names: tuple[str, ...],
    plan_file: Path | None,
    plan_sha256: str | None,
    batch: tuple[int, int] | None,
    folder: Path | None,
    logs: Path | None,
    side_by_side: int | None,
    require_kvm: bool | None,
    network: bool | None,
    upload: bool,
    timings: Path | None,
    form: str,
) -> None:
    """Build chains on this host, into builds/ of the repository.

    The chains are those with the images that NAMEs mean, which may have * and ? as shells have
    them, or those of --batch: one of the two is required. What is up to date is not built again,
    even by its name: ci plan NAME --output FILE plans that. ci publish makes them public.
    """
    if bool(names) == bool(batch):
        raise click.UsageError("name what to build: either NAME… or --batch N/M")
    if batch and plan_file is None:
        raise click.UsageError("--batch is an entry of a saved plan: give it with --plan")
    invocation.override(jobs=side_by_side, require_kvm=require_kvm, network=network)
    aside = None if upload else folder or Path("results")
    workspace = invocation.workspace(logs=logs, aside=aside)
    named = Ask(changed=False, force=frozenset(names), promote=False)
    plan = _saved(plan_file, plan_sha256) or plan_job.plan(workspace, named)
    if batch:
        names = formats.batch(plan, *batch)
    with advising(BUILD_AGAIN):
        built = build_job.build(workspace, plan, names)
    if folder is not None:
        _keep_results(folder, built, workspace.environ)
    say, ok = speaker(workspace.console, form), all(result.ok for result in built)
    is_written = show_builds(workspace.console, built, timings, say)
    images = image_reports(workspace.store, plan, built, None)
    show_summary(workspace.console, images)
    if not built:
        say("nothing to build: these images are published, or built and waiting to be")
    elif upload and ok:
        workspace.console.info(_after_build(invocation, plan, built, plan_file, folder))
    show_first_failure(workspace.console, images, built)
    if form == "json":
        click.echo(document(run_report(workspace, images, None, ok=ok)))
    finish(succeeded=ok and is_written)


def _keep_results(folder: Path, built: Sequence[Result], environ: Mapping[str, str]) -> None:
    results.write_folder(folder, built)
    # For actions/attest-build-provenance, which takes a file of checksums (subject-checksums).
    if subjects := attestations.subjects(built):
        file = folder / attestations.FILE
        replace(file, subjects.encode())
        environment.write(environ, {"subjects": str(file.absolute())})


def _after_build(
    invocation: Invocation,
    plan: Plan,
    built: Sequence[Result],
    plan_file: Path | None,
    folder: Path | None,
) -> str:
    """Return how what was built becomes public."""
    begins = partial(command, invocation.root, invocation.overrides.get("repository"))
    names = {result.name for result in built}
    unchanged = sorted(
        image.name
        for image in plan.images
        if image.name in names and {each.kind for each in image.reasons} == {ReasonKind.FORCED}
    )
    if plan_file is None and unchanged:
        # Who publishes without this plan has one that keeps what has not changed.
        again = begins("ci", "rebuild", *sorted(names))
        return (
            f"next: {again}, which builds and publishes; ci publish alone leaves "
            f"{first_of(unchanged, _SHOWN)}, unchanged, as published"
        )
    options = ["--plan", str(plan_file)] if plan_file else []
    options += ["--results", str(folder)] if folder else []
    return f"next: {begins('ci', 'publish', *options)}, which makes them public"


@click.command()
@click.option("--plan", "plan_file", type=FILE, help="A saved plan; else one is made now.")
@_plan_sha256
@click.option(
    "--results",
    "folder",
    type=FOLDER,
    callback=writable,
    help="The folder with the results of the builds; that of the publication is added.",
)
@RECORD
@allow_dirty
@FORMAT
@click.pass_obj
def publish(
    invocation: Invocation,
    plan_file: Path | None,
    plan_sha256: str | None,
    folder: Path | None,
    outdated: bool,
    allow_dirty: bool,
    form: str,
) -> None:
    """Publish what was planned and built, to a bucket or a directory.

    It is released, the repository is rendered, and what clients see is verified.
    """
    workspace = invocation.judging_workspace(must_judge=True)
    # Without a saved plan everything is compared anew: what an earlier run lost is made up for.
    plan = _saved(plan_file, plan_sha256) or plan_job.plan(workspace, Ask())
    plan_job.refuse_dirty(workspace, plan, allow=allow_dirty)
    built = [] if folder is None else results.read_folder(folder)
    try:
        before = read(workspace.store)
        with advising(PUBLISH_AGAIN):
            published = publish_job.publish(workspace, plan, built, outdated=outdated)
    except Error as error:
        # The report's job has nothing but this folder to tell its readers from.
        if folder is not None:
            results.write_fates(folder, plan, results.stopped(plan, error.message))
        raise
    if folder is not None:
        results.write_fates(folder, plan, results.fates(published))
    show_publication(workspace.console, published, speaker(workspace.console, form))
    for manifest in published.waiting:
        workspace.console.info(_never_released(invocation, manifest))
    images = image_reports(workspace.store, plan, built, published, before)
    show_end(workspace, images, built, published, ok=published.ok)
    if form == "json":
        click.echo(document(run_report(workspace, images, published, ok=published.ok)))
    finish(succeeded=published.ok)


def _never_released(invocation: Invocation, manifest: Manifest) -> str:
    """Return that a build waits which this plan did not ask for, and what to do."""
    again = command(
        invocation.root, invocation.overrides.get("repository"), "ci", "rebuild", manifest.name
    )
    return (
        f"note: {manifest.name}: its build {manifest.build_id} is not released: it was asked for "
        "by name or for its age, which this plan was not; only the plan that asks for a build of "
        f"an unchanged spec releases it: {again} builds and publishes"
    )


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=spec_names)
@click.option("--changed", is_flag=True, help="Images that are affected since they were published.")
@click.option("--all", "everything", is_flag=True, help="All images.")
@click.option("--stale", type=DAYS, metavar="DAYS", help="Images that are older.")
@click.option(
    "--outdated",
    is_flag=True,
    help="Images that would get newer packages, or another base, from outside; --stale then is for "
    "those of which that cannot be known. What is outdated still is recorded in the repository.",
)
@click.option("--base-url", help="Where clients will find the repository.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default="text",
    show_default=True,
    help="Of how it ended; of a dry run, of the plan. Only a plan has github and jenkins.",
)
@click.option("--logs", type=FOLDER, callback=writable, help="Keep each image's log here.")
@click.option("--jobs", "side_by_side", type=CHAINS, help="Chains at a time.")
@click.option("--require-kvm", is_flag=True, default=None, help="Refuse to build without KVM.")
@timings_file
@allow_dirty
@click.pass_obj
def rebuild(
    invocation: Invocation,
    names: tuple[str, ...],
    changed: bool,
    everything: bool,
    stale: int | None,
    outdated: bool,
    base_url: str | None,
    dry_run: bool,
    form: str,
    logs: Path | None,
    side_by_side: int | None,
    require_kvm: bool | None,
    timings: Path | None,
    allow_dirty: bool,
) -> None:
    """Plan, build and publish on this machine, to a bucket or a directory.

    What to rebuild is required: NAMEs, which may have * and ? as shells have them, or --changed,
    --all, --outdated or --stale. The repository is that of the settings, or
    --repository; lago-images build makes a directory only. A bucket needs --base-url, or base-url
    in the settings.
    """
    if not (names or changed or everything or outdated or stale is not None):
        raise click.UsageError(
            "name what to rebuild: --changed, --all, --outdated, --stale DAYS or NAME…"
        )
    if form in FAN_OUTS and not dry_run:
        raise click.UsageError(f"--format {form} is of a plan: give it with --dry-run")
    invocation.override(base_url=base_url, jobs=side_by_side, require_kvm=require_kvm)
    force = frozenset(names)
    ask = Ask(
        changed=changed, force=force, everything=everything, stale_days=stale, outdated=outdated
    )
    workspace = invocation.workspace(logs=logs)
    if not dry_run:
        publish_job.refuse_settings(workspace)
    plan, state = plan_job.plan_and_state(workspace, ask)
    if dry_run:
        show_plan(workspace, plan, form)
        return
    build_and_publish(
        workspace,
        plan,
        state,
        allow_dirty=allow_dirty,
        timings=timings,
        form=form,
        outdated=outdated,
    )


@click.command()
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    default="plan.json",
    show_default=True,
    help="The saved plan that was built and published.",
)
@click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path),
    default="results",
    show_default=True,
    help="The folder with the results of the builds and of the publication.",
)
@click.option("--junit", "junit_file", type=FILE, callback=writable, help="Also as JUnit XML.")
@click.option(
    "--publication",
    "job_result",
    type=click.Choice(["success", "failure", "cancelled", "skipped"]),
    help="The end of the publishing job, should it not have left its own results.",
)
@click.option("--author", default=BOT, show_default=True, help="The user whose comment is updated.")
@FORMAT
@click.pass_obj
def report(
    invocation: Invocation,
    plan_file: Path,
    folder: Path,
    junit_file: Path | None,
    job_result: str | None,
    author: str,
    form: str,
) -> None:
    """Report the images' outcomes: on the pull request, in the step summary, else here.

    Uses what GitHub Actions sets (GITHUB_REPOSITORY, GITHUB_EVENT_PATH, …) or Jenkins (CHANGE_URL,
    BUILD_URL), and GITHUB_TOKEN.
    """
    environ = invocation.environ
    event, plan = environment.read(environ), formats.load(plan_file)
    report = _gathered(invocation, event, plan, folder, _fates(event, plan, folder, job_result))
    if junit_file is not None:
        replace(junit_file, junit.render(report.entries))
    shown = environment.summarise(environ, render(report, limit=SUMMARY_LIMIT))
    if form == "json":
        click.echo(document(PlanReport.of(report)))
        shown = True
    token = environ.get("GITHUB_TOKEN", "")
    # A pull request of a fork gets a token that may only read, and Jenkins may give none.
    if event.target is None or not token:
        if not shown:
            click.echo(render(report))
        return
    # PyGithub takes long to import, and no other command needs it.
    from lago_images.ci.report import notices  # noqa: PLC0415

    posted = notices.post(invocation.console, report, event.target, token, author=author)
    if not (shown or posted.commented):
        click.echo(render(report))
    for error in posted.failures[1:]:
        invocation.console.error(error.message)
    if posted.failures:
        raise posted.failures[0]


def _gathered(
    invocation: Invocation,
    event: Event,
    plan: Plan,
    folder: Path,
    fates: Mapping[str, Fate] | None,
) -> Report:
    """Gather the report, of what was planned, the results in a folder, and the repository."""
    settings = invocation.settings
    source = dataclasses.replace(
        _source(invocation), run=event.run, aside=folder / "repository", fates=fates
    )
    return Report(
        plan=plan,
        entries=entries.entries(plan, results.read_folder(folder), source),
        identity=identity(settings.name, settings.repository),
        run=event.run,
        today=day(time.time()),
    )


def _source(invocation: Invocation) -> entries.Source:
    """Read the repository for a report; the source is empty where it cannot be read."""
    try:
        store = invocation.store()
        state = survey(store)
    except Error as error:
        invocation.console.warn(f"{error.message}: sizes and packages are left out of the report")
        return entries.Source(store=None, state=None)
    return entries.Source(store=store, state=state, base_url=entries.published_url(store))


def _fates(
    event: Event, plan: Plan, folder: Path, job_result: str | None
) -> Mapping[str, Fate] | None:
    """Return the result of the publication for each image; None where there was none."""
    if event.target is not None and event.target.pull_request is not None:
        return None
    fates = results.read_fates(folder, plan)
    # A runner that was killed writes no file; `needs.publish.result` still says how it ended.
    if fates is None and job_result in {"failure", "cancelled"}:
        why = "the publication left no results"
        fates = {fate.name: fate for fate in results.stopped(plan, why)}
    return fates
