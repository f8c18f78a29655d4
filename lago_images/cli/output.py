"""Show what a run plans, how its builds ended, and what was published."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from lago_images.building.model import Phase, Result
from lago_images.cli.invocation import finish
from lago_images.cli.plan import plan_lines
from lago_images.cli.tables import table, terminal_width
from lago_images.console import Console, human_size
from lago_images.errors import Error
from lago_images.host.files import replace
from lago_images.jobs.plan import refuse_dirty
from lago_images.jobs.publish import PublicationOutcome
from lago_images.jobs.rebuild import run
from lago_images.jobs.timings import to_json
from lago_images.jobs.workspace import Workspace
from lago_images.meter import minutes
from lago_images.planning.model import Plan
from lago_images.repository.browsing.queries import packages_of
from lago_images.repository.publishing.releasing import Verdict
from lago_images.repository.records.changes import compare_packages
from lago_images.repository.records.layout import CATALOGUE, METADATA
from lago_images.repository.records.state import State
from lago_images.repository.rendering.site import site_of
from lago_images.storage.base import Store

allow_dirty = click.option(
    "--allow-dirty",
    is_flag=True,
    help="Publish to a bucket what is not committed; it stays on record.",
)
timings_file = click.option(
    "--timings",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write how long each phase of each image took into this file, as JSON.",
)


def build_and_publish(
    workspace: Workspace, plan: Plan, state: State, *, allow_dirty: bool, timings: Path | None
) -> None:
    """Build and publish as a plan that was made from ``state`` says, show it, end the command."""
    console = workspace.console
    refuse_dirty(workspace, plan, allow=allow_dirty)
    # On stderr: stdout is for data.
    for line in plan_lines(plan, terminal_width(sys.stderr)):
        console.info(line)
    ended = run(workspace, plan, state, lambda results: show_builds(console, results, timings))
    show_publication(console, ended.publication)
    if not (ended.results or ended.publication.outcomes):
        click.echo("nothing to build")
    show_summary(console, workspace.store, ended.results, ended.publication, state)
    if ended.ok:
        show_next(workspace)
    finish(succeeded=ended.ok)


def show_summary(
    console: Console,
    store: Store,
    results: Sequence[Result],
    publication: PublicationOutcome,
    before: State | None,
) -> None:
    """Show a row for each image of a run, and what failed first once more.

    ``before`` is the repository before the run; None where it was not read.
    """
    by_name = {result.name: result for result in results}
    names = [*by_name, *publication.outcomes, *publication.missing, *publication.failed]
    rows = [
        _summary_row(
            name, by_name.get(name), publication, _changes(store, name, publication, before)
        )
        for name in dict.fromkeys(names)
    ]
    width = terminal_width(sys.stderr)
    if rows:
        heads = ("image", "verdict", "revision", "size", "time", "changes")
        for line in table(heads, rows, width=width, spare=("time", "revision")):
            console.info(line)
    failed = next((each for each in results if each.manifest is None and not each.skipped), None)
    if failed is not None and len(results) > 1:
        console.error(f"first failure: {_failure(failed)}")
        _show_log(console, failed)
    elif publication.failed and len(rows) > 1:
        name, why = next(iter(publication.failed.items()))
        console.error(f"first failure: {name}: not published: {why}")


def _summary_row(
    name: str, result: Result | None, publication: PublicationOutcome, changes: str
) -> tuple[str, ...]:
    manifest, verdict, revision = result and result.manifest, "not published", ""
    if outcome := publication.outcomes.get(name):
        manifest = outcome.release.manifest or manifest
        verdict, revision = str(outcome.verdict), str(outcome.release.revision)
    elif result and result.skipped:
        verdict = f"not built: {result.skipped} failed"
    elif result and not result.ok:
        verdict = "failed"
    size = human_size(manifest.disk.compressed_size) if manifest else ""
    return (name, verdict, revision, size, f"{result.seconds:.0f} s" if result else "", changes)


def _changes(store: Store, name: str, publication: PublicationOutcome, before: State | None) -> str:
    """Return how a release differs from what clients got; empty where that is not known."""
    outcome = publication.outcomes.get(name)
    if before is None or outcome is None or outcome.verdict is not Verdict.RELEASED:
        return ""
    release = outcome.release
    old, new = before.current(release.name, release.arch), release.manifest
    if old is None or old.manifest is None or new is None:
        return "new"
    size, now = old.manifest.disk.compressed_size, new.disk.compressed_size
    parts = [f"size {100 * (now - size) / size:+.1f} %"]
    # The images are published: a list that cannot be read is no failure of the run.
    with suppress(Error):
        lists = [packages_of(store, each) for each in (old, release)]
        if lists[0] is not None and lists[1] is not None:
            changes = compare_packages(lists[0], lists[1])
            counts = (len(changes.added), len(changes.removed), len(changes.upgraded))
            parts.insert(0, "packages +{} -{} ~{}".format(*counts))
    return ", ".join(parts)


def show_next(workspace: Workspace) -> None:
    """Show where what was published can be seen, and how it is served."""
    settings, store, console = workspace.settings, workspace.store, workspace.console
    if store.folder is not None and not (store.folder / METADATA).exists():
        return
    if store.folder is not None:
        console.info(f"next: lago-images serve {shlex.quote(str(store.folder))}")
    # By the page's name: a bucket has no page for its folders, and answers 404.
    if store.folder is None or settings.base_url:
        console.info(f"catalogue: {site_of(settings, store.url).base_url}/{CATALOGUE}")
    console.info("what is published: lago-images repo list")


def show_builds(console: Console, results: Sequence[Result], timings: Path | None) -> None:
    """Show how builds ended and how long they took; a file gets that, too, if one is named."""
    show_results(console, results)
    show_timings(console, results)
    if timings is not None:
        replace(timings, to_json(results))


def show_timings(console: Console, results: Sequence[Result]) -> None:
    """Show how long each phase of each image took, a row an image."""
    rows = [
        (each.name, *(_phase_time(each, phase) for phase in Phase), minutes(each.seconds))
        for each in results
        if each.times
    ]
    if rows:
        heads = ("image", *Phase, "total")
        for line in table(heads, rows, width=terminal_width(sys.stderr), spare=("disk", "base")):
            console.info(line)


def _phase_time(result: Result, phase: Phase) -> str:
    steps = [each.seconds for each in result.times if each.phase is phase]
    return minutes(sum(steps)) if steps else "-"


def show_results(console: Console, results: Sequence[Result]) -> None:
    """Show the result of each build, failures first, with their last lines and their log."""
    # What was not tried stands on what failed, which is therefore printed before it.
    order = sorted(results, key=lambda result: (result.ok, bool(result.skipped)))
    for result in order:
        if result.manifest is not None:
            size = human_size(result.manifest.disk.compressed_size)
            click.echo(f"{result.name}: built in {result.seconds:.0f} s, {size}")
        elif result.skipped:
            console.error(f"{result.name}: not built: its base {result.skipped} failed")
        else:
            console.error(_failure(result))
            for line in result.tail:
                console.output(f"  | {line}")
            _show_log(console, result)


def _failure(result: Result) -> str:
    return f"{result.name}: failed while {result.step or 'building'}: {result.error}"


def _show_log(console: Console, result: Result) -> None:
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
