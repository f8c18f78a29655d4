"""``cache list`` and ``clear``: what builds keep on this machine, to use again or to be read."""

import time

import click

from lago_images.building import caches
from lago_images.building.caches import Kind
from lago_images.cli.answers import CacheClearing, CacheContent
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation
from lago_images.cli.moments import day
from lago_images.cli.tables import table, tell, terminal_width
from lago_images.console import counted, human_size
from lago_images.jobs.workspace import cache_folder

_KINDS = click.argument(
    "kinds", nargs=-1, type=click.Choice([kind.value for kind in Kind]), metavar="[KIND…]"
)


@click.command("list")
@_KINDS
@FORMAT
@click.pass_obj
def list_(invocation: Invocation, kinds: tuple[str, ...], form: str) -> None:
    """Show what builds keep to use again, and their logs, and how much of it.

    All of it, or the KINDs downloads, guest-packages, layers, logs, packages and trees. With
    --format json every entry. Logs that --logs put into a folder of yours are not counted.
    """
    folder = cache_folder(invocation.environ)
    content = CacheContent.of(folder, caches.entries(folder), [Kind(each) for each in kinds])
    if form == "json":
        click.echo(document(content))
        return
    rows = [
        (
            each.kind,
            str(each.entries),
            human_size(each.size),
            human_size(each.limit),
            "" if each.used is None else day(each.used),
            each.purpose,
        )
        for each in content.kinds
    ]
    heads = ("kind", "files", "size", "limit", "last used", "what")
    for line in table(heads, rows, width=terminal_width(), spare=("last used", "limit")):
        click.echo(line)
    invocation.console.info(f"all of it is below {folder}")


@click.command()
@_KINDS
@FORMAT
@click.pass_obj
def clear(invocation: Invocation, kinds: tuple[str, ...], form: str) -> None:
    """Remove what builds keep to use again, and their logs.

    All of it, or the KINDs downloads, guest-packages, layers, logs, packages and trees; what
    another run is writing is left. Nothing depends on it: the next builds take longer.
    """
    folder = cache_folder(invocation.environ)
    chosen = [Kind(each) for each in kinds] or list(Kind)
    removed, left = caches.clear(folder, chosen, time.time())
    if form == "json":
        click.echo(document(CacheClearing(folder=str(folder), removed=removed, left=left)))
    else:
        size = human_size(sum(each.size for each in removed))
        tell(f"removed {counted(len(removed), 'file')}, {size}, from {folder}")
    for each in left:
        invocation.console.warn(f"{each.kind}/{each.name} is in use by another run, and was left")
