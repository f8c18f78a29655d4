"""``repo reproduce``: build a published revision again, and compare."""

from collections.abc import Iterator

import click

from lago_images.cli.completion import published_names
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation, finish
from lago_images.cli.tables import tell, terminal_width
from lago_images.cli.values import REVISION
from lago_images.console import clean, counted, wrapped
from lago_images.host.workdir import default_scratch, workdir
from lago_images.jobs import reproduce as job
from lago_images.jobs.reproduce import Reproduction

# As many files as are shown; JSON has all.
_SHOWN = 40


@click.command()
@click.argument("name", shell_complete=published_names)
@click.option("--arch", default="", help="Of an image with several architectures.")
@click.option("--revision", type=REVISION, help="By default the one clients get.")
@click.option("--dry-run", is_flag=True, help="Only say what stands in the way; build nothing.")
@FORMAT
@click.pass_obj
def reproduce(
    invocation: Invocation, name: str, arch: str, revision: int | None, dry_run: bool, form: str
) -> None:
    """Build a published revision again, and tell whether it has the same bytes.

    It is built from the commit that its manifest names, on the base revision that it stood on, and
    nothing is published or booted. What differs is named: packages, files, areas of the disk. It
    ends with 1 where that should have been the same, and where it cannot be built again.
    """
    console = invocation.console
    with workdir(default_scratch(invocation.environ), console) as folder:
        case = job.look(invocation.workspace(), name, arch, revision, folder)
        report = case.report
        if form == "text":
            tell(_title(report))
        for doubt in report.doubts:
            console.info(f"note: {doubt}")
        for tool in report.tools:
            console.info(f"note: {tool.name} {tool.old} then, {tool.new or 'missing'} now")
        for obstacle in report.obstacles:
            console.warn(obstacle)
        if not dry_run:
            report = job.reproduce(case, folder)
    if form == "json":
        click.echo(document(report))
    else:
        for line in _lines(report):
            click.echo(line)
    finish(succeeded=not report.obstacles if dry_run else report.ok)


def _title(report: Reproduction) -> str:
    return (
        f"{report.name} ({report.arch}), revision {report.revision}: build {report.build} of "
        f"commit {report.commit}"
    )


def _lines(report: Reproduction) -> Iterator[str]:
    width = terminal_width()
    for text in _texts(report):
        yield from wrapped(clean(text), width, indent="    ")


def _texts(report: Reproduction) -> Iterator[str]:
    if report.verdict is None:
        yield "it cannot be built again" if report.obstacles else "it can be built again"
        return
    yield str(report.verdict)
    if report.base:
        yield f"  base {report.base.name}: {report.base.old} → {report.base.new}"
    if packages := report.packages:
        yield from (f"  package {text}" for text in packages.lines().texts)
    if report.files is None and report.no_files:
        yield f"  its files cannot be compared: {report.no_files}"
    files = report.files or ()
    for each in files[:_SHOWN]:
        why = f" ({each.expected})" if each.expected else ""
        yield f"  {each.path}: {', '.join(each.what)}{why}"
    if len(files) > _SHOWN:
        yield f"  and {counted(len(files) - _SHOWN, 'file')} more: --format json has all"
    for area in report.areas:
        yield f"  {area.name}: {counted(area.blocks, 'block')} of 4 KiB, from byte {area.first}"
