"""Show what a run plans, how its builds ended, and what was published."""

import dataclasses
import shlex
import sys
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import click

from lago_images.building.model import Phase, Result
from lago_images.cli.documents import document
from lago_images.cli.interruption import advising, after_rebuild
from lago_images.cli.invocation import command, finish
from lago_images.cli.plan import plan_lines
from lago_images.cli.run_report import Changes, ImageReport, RunOutcome, RunReport, image_reports
from lago_images.cli.tables import table, tell, terminal_width
from lago_images.cli.targets import FILE, writable
from lago_images.console import Console, human_size
from lago_images.host.files import replace
from lago_images.jobs.plan import refuse_dirty
from lago_images.jobs.publish import PublicationOutcome
from lago_images.jobs.rebuild import run
from lago_images.jobs.timings import to_json
from lago_images.jobs.workspace import Workspace
from lago_images.meter import minutes
from lago_images.planning.model import Plan
from lago_images.repository.records.layout import CATALOGUE, METADATA
from lago_images.repository.records.state import State
from lago_images.repository.rendering.site import site_of
from lago_images.repository.verifying.findings import Finding

allow_dirty = click.option(
    "--allow-dirty",
    is_flag=True,
    help="Publish to a bucket what is not committed; it stays on record.",
)
timings_file = click.option(
    "--timings",
    type=FILE,
    callback=writable,
    help="Write how long each phase of each image took into this file, as JSON.",
)
_PUBLIC = (RunOutcome.RELEASED, RunOutcome.ALREADY)


def build_and_publish(
    workspace: Workspace,
    plan: Plan,
    state: State,
    *,
    allow_dirty: bool,
    timings: Path | None,
    form: str,
    outdated: bool = False,
) -> None:
    """Build and publish as a plan that was made from ``state`` says, show it, end the command."""
    console = workspace.console
    refuse_dirty(workspace, plan, allow=allow_dirty)
    # On stderr: stdout is for data.
    for line in plan_lines(plan, terminal_width(sys.stderr)):
        console.info(line)
    say = speaker(console, form)
    is_written = True

    def show(results: Sequence[Result]) -> None:
        nonlocal is_written
        is_written = show_builds(console, results, timings, say)

    with advising(after_rebuild(workspace, plan)):
        ended = run(workspace, plan, state, show, outdated=outdated)
    unbuilt = {each.name for each in ended.results if each.manifest is None}
    show_publication(console, ended.publication, say, told=unbuilt)
    if not (ended.results or ended.publication.outcomes):
        say("nothing to build")
    images = image_reports(workspace.store, plan, ended.results, ended.publication, state)
    show_end(workspace, images, ended.results, ended.publication, ok=ended.ok)
    if form == "json":
        click.echo(document(run_report(workspace, images, ended.publication, ok=ended.ok)))
    finish(succeeded=ended.ok and is_written)


def speaker(console: Console, form: str) -> Callable[[str], None]:
    """Return what prints a line about an image: beside a document, stdout has nothing else."""
    return console.info if form == "json" else tell


def run_report(
    workspace: Workspace,
    images: tuple[ImageReport, ...],
    publication: PublicationOutcome | None,
    *,
    ok: bool,
) -> RunReport:
    """Return the document of how a run ended; of one that only built, without a publication."""
    return RunReport(
        ok=ok,
        repository=workspace.store.url,
        catalogue=_catalogue(workspace) if publication else "",
        images=images,
        written=publication.written if publication else (),
        findings=tuple(
            dataclasses.replace(each, repair=workspace.console.completed(each.repair))
            for each in (publication.findings if publication else ())
        ),
    )


def _catalogue(workspace: Workspace) -> str:
    """Return the URL of the catalogue; that of a file where no setting says another."""
    folder = workspace.store.folder
    if folder is not None and not workspace.settings.base_url:
        return (folder / CATALOGUE).absolute().as_uri()
    # By the page's name: a bucket has no page for its folders, and answers 404.
    return f"{site_of(workspace.settings, workspace.store.url).base_url}/{CATALOGUE}"


def show_end(
    workspace: Workspace,
    images: Sequence[ImageReport],
    results: Sequence[Result],
    publication: PublicationOutcome,
    *,
    ok: bool,
) -> None:
    """Show how a run with a publication ended, and where that can be seen."""
    console = workspace.console
    show_summary(console, images)
    is_public = any(each.outcome in _PUBLIC for each in images)
    if ok or is_public:
        _show_next(workspace, ok=ok)
    show_first_failure(console, images, results, publication.findings)


def show_summary(console: Console, images: Sequence[ImageReport]) -> None:
    """Show a row for each image of a run, in the columns that any of them has."""
    heads = ("image", "verdict", "revision", "size", "time", "changes")
    rows = [_summary_row(image) for image in images]
    columns = [column for column in zip(heads, *rows, strict=True) if any(column[1:])]
    if columns:
        used, *lines = zip(*columns, strict=True)
        for line in table(used, lines, width=terminal_width(sys.stderr)):
            console.info(line)


def show_first_failure(
    console: Console,
    images: Sequence[ImageReport],
    results: Sequence[Result],
    findings: Sequence[Finding] = (),
) -> None:
    """Show once more what failed first; ``findings`` are wrong with the published files."""
    failed = next((each for each in results if each.manifest is None and not each.skipped), None)
    if failed is not None:
        console.error(f"first failure: {failed.failure}")
        _show_log(console, failed)
        return
    first = next((each for each in images if each.outcome is RunOutcome.UNPUBLISHED), None)
    if first is not None:
        console.error(f"first failure: {first.name}: not published: {first.error}")
    elif findings:
        console.error(f"first failure: {_finding(findings[0])}")


def _summary_row(image: ImageReport) -> tuple[str, ...]:
    size = "" if image.size is None else human_size(image.size)
    seconds = "" if image.seconds is None else f"{image.seconds:.0f} s"
    verdict = f"not built: {image.base} failed" if image.base else str(image.outcome)
    revision = "" if image.revision is None else str(image.revision)
    return (image.name, verdict, revision, size, seconds, _changes(image.changes))


def _changes(changes: Changes | None) -> str:
    """Return how a release differs from what clients got; empty where that is not known."""
    if changes is None:
        return ""
    if changes.is_new:
        return "new"
    # A few bytes of many are not nothing: they are shown as +0.0 %.
    size = f"size {100 * changes.size / changes.size_before:+.1f} %"
    if changes.size == 0:
        size = "same size"
    if changes.added is None:
        return size
    if not (changes.added or changes.removed or changes.upgraded):
        return f"same packages, {size}"
    return f"packages +{changes.added} -{changes.removed} ~{changes.upgraded}, {size}"


def _show_next(workspace: Workspace, *, ok: bool) -> None:
    """Show where what was published can be seen, and, of a success, how it is served."""
    store, console = workspace.store, workspace.console
    if store.folder is not None and not (store.folder / METADATA).exists():
        return
    if ok and store.folder is not None:
        console.info(f"next: lago-images serve {shlex.quote(str(store.folder))}")
    console.info(f"catalogue: {_catalogue(workspace)}")
    if not ok:
        return
    is_named = workspace.settings.origins.get("repository") == "--repository"
    named = str(store.folder or store.url) if is_named else None
    console.info(f"what is published: {command(workspace.root, named, 'repo', 'list')}")


def show_builds(
    console: Console,
    results: Sequence[Result],
    timings: Path | None,
    say: Callable[[str], None],
) -> bool:
    """Show how builds ended and how long they took; a file gets that, too, if one is named.

    Returns:
        Whether the file could be written: what was built is published all the same.
    """
    show_results(console, results, say)
    show_timings(console, results)
    try:
        if timings is not None:
            replace(timings, to_json(results))
    except OSError as error:
        console.error(f"cannot write the timings into {timings}: {error.strerror}")
        return False
    return True


def show_timings(console: Console, results: Sequence[Result]) -> None:
    """Show how long each phase of each image took, a row an image."""
    has_also = any(step.phase is Phase.ALSO for each in results for step in each.times)
    phases = [phase for phase in Phase if has_also or phase is not Phase.ALSO]
    rows = [
        (each.name, *(_phase_time(each, phase) for phase in phases), minutes(each.seconds))
        for each in results
        if each.times
    ]
    if rows:
        heads = ("image", *phases, "total")
        for line in table(heads, rows, width=terminal_width(sys.stderr)):
            console.info(line)


def _phase_time(result: Result, phase: Phase) -> str:
    steps = [each.seconds for each in result.times if each.phase is phase]
    return minutes(sum(steps)) if steps else "-"


def show_results(console: Console, results: Sequence[Result], say: Callable[[str], None]) -> None:
    """Show the result of each build, failures first, with their last lines and their log.

    What was not tried was told when its base failed, and is in the table of the run's end. Of a
    single failure only the last lines are shown: that it failed was told when it did.
    """
    order = sorted(results, key=lambda result: result.ok)
    is_alone = sum(not (each.ok or each.skipped) for each in results) == 1
    for result in order:
        if result.manifest is not None:
            size = human_size(result.manifest.disk.compressed_size)
            say(f"{result.name}: built in {result.seconds:.0f} s, {size}")
        elif result.skipped:
            continue
        elif is_alone:
            if result.tail:
                console.info(f"{result.name}: the last lines before it failed:")
            _show_tail(console, result)
        else:
            console.error(result.failure)
            _show_tail(console, result)
            _show_log(console, result)


def _show_tail(console: Console, result: Result) -> None:
    for line in result.tail:
        console.output(f"  | {line}")


def _finding(finding: Finding) -> str:
    return f"{finding.where}: {finding.what}; repair: {finding.repair}"


def _show_log(console: Console, result: Result) -> None:
    if result.log is not None:
        console.info(f"{result.name}: log: {result.log}")


def show_publication(
    console: Console,
    publication: PublicationOutcome,
    say: Callable[[str], None],
    *,
    told: Container[str] = (),
) -> None:
    """Show the release of each image, and the problems of the published files.

    ``told`` are the images of which it was told just now that they have no build.
    """
    for name, outcome in publication.outcomes.items():
        say(f"{name}: {outcome.verdict} revision {outcome.release.revision}")
    for name in (each for each in publication.missing if each not in told):
        # Who was told just now why its build failed has to mend that first.
        build = f": lago-images ci rebuild {name} makes one and publishes it"
        how = "" if name in publication.unbuilt else build
        console.error(f"{name}: not published: {publication.why_missing(name)}{how}")
    for name, why in publication.failed.items():
        console.error(f"{name}: not published: {why}")
    for finding in publication.findings:
        console.error(_finding(finding))
    changed = ", ".join(publication.written) or "nothing"
    console.info(f"rendered files that changed: {changed}")
