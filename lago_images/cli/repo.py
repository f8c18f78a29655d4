"""``repo list`` and ``repo refresh``."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from lago_images.cli.common import Invocation
from lago_images.console import clean
from lago_images.repository.catalogue import size
from lago_images.repository.metadata import version_name
from lago_images.repository.publisher import publishing
from lago_images.repository.state import State, read

_COLUMNS = ("name", "arch", "revision", "version", "published", "size", "fingerprint", "commit")
_SHORT = 12


@click.command("list")
@click.option("--all", "all_", is_flag=True, help="Older revisions that are still offered, too.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@click.pass_obj
def list_(invocation: Invocation, all_: bool, form: str) -> None:
    """List what is published."""
    store = invocation.store()
    if store.folder is not None and not store.folder.exists():
        invocation.console.warn(f"there is no folder {store.folder}: nothing is published there")
    rows = list(_rows(read(store), all_=all_))
    if form == "json":
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    table = [_COLUMNS, *(_texts(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_COLUMNS))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@click.command("refresh")
@click.option(
    "--retire-key",
    "retire",
    metavar="FINGERPRINT",
    multiple=True,
    help="A key that no longer signs: delete what it signed (see docs/signing.md).",
)
@click.pass_obj
def refresh(invocation: Invocation, retire: tuple[str, ...]) -> None:
    """Render index, repo.metadata and catalogue again from what is in the repository."""
    with publishing(
        invocation.store(),
        invocation.settings,
        console=invocation.console,
        environ=invocation.environ,
        now=time.time,
        retire=frozenset(text.replace(" ", "").upper() for text in retire),
    ) as publisher:
        refreshed = publisher.refresh()
    for name in refreshed.written:
        click.echo(f"written {name}")
    for name in refreshed.deleted:
        click.echo(f"deleted {name}")
    if not refreshed.written and not refreshed.deleted:
        invocation.console.info("everything was up to date")
    for why in refreshed.state.unreadable.values():
        invocation.console.warn(why)


def _rows(state: State, *, all_: bool) -> Iterator[dict[str, Any]]:
    for name, arch in state.images:
        for release in state.live(name, arch)[0 if all_ else -1 :]:
            manifest = state.manifest(release)
            if manifest:
                yield {
                    "name": name,
                    "arch": arch,
                    "revision": release.revision,
                    "version": version_name(release, manifest),
                    "published": release.published,
                    "size": manifest.disk.compressed_size,
                    "fingerprint": release.fingerprint,
                    "commit": release.commit,
                }


def _texts(row: dict[str, Any]) -> tuple[str, ...]:
    moment = datetime.fromtimestamp(row["published"], UTC).strftime("%Y-%m-%d %H:%M")
    shown = {
        **row,
        "published": moment,
        "size": size(row["size"]),
        "fingerprint": row["fingerprint"].removeprefix("sha256:")[:_SHORT],
        "commit": row["commit"][:_SHORT],
    }
    return tuple(clean(str(shown[column])) for column in _COLUMNS)
