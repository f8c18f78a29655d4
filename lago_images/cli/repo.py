"""``repo list``, ``refresh``, ``verify`` and ``gc``."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from lago_images.cli.invocation import Invocation, finish
from lago_images.console import clean, human_size
from lago_images.repository.publishing import collect
from lago_images.repository.publishing.publisher import Publisher, publishing
from lago_images.repository.publishing.retention import Retention, Step, Sweep
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.state import State, read
from lago_images.repository.rendering.lago import version_name
from lago_images.repository.verifying.findings import Report
from lago_images.repository.verifying.verifier import Verifier
from lago_images.repository.verifying.web import Web, is_web

_COLUMNS = ("name", "arch", "revision", "version", "published", "size", "fingerprint", "commit")
_SHORT = 12
FORMAT = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)


@click.command("list")
@click.option("--all", "all_", is_flag=True, help="Older revisions that are still offered, too.")
@FORMAT
@click.pass_obj
def list_(invocation: Invocation, all_: bool, form: str) -> None:
    """List what is published."""
    store = invocation.store()
    if store.folder is not None and not store.folder.exists():
        invocation.console.warn(f"there is no folder {store.folder}: nothing is published there")
    state = read(store)
    _warn_of_damage(invocation, state)
    rows = list(_rows(state, all_=all_))
    if form == "json":
        click.echo(as_json(rows))
    else:
        _show_rows(rows)
    finish(succeeded=not state.damaged)


def _show_rows(rows: Iterable[dict[str, Any]]) -> None:
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
    help="A key that no longer signs: delete what it signed.",
)
@click.pass_obj
def refresh(invocation: Invocation, retire: tuple[str, ...]) -> None:
    """Render index, repo.metadata and catalogue again from what is in the repository."""
    keys = frozenset(text.replace(" ", "").upper() for text in retire)
    with publishing_from(invocation, retire=keys) as publisher:
        refreshed = publisher.refresh(recheck=True)
    for name in refreshed.written:
        click.echo(f"written {name}")
    for name in refreshed.deleted:
        click.echo(f"deleted {name}")
    if not refreshed.written and not refreshed.deleted:
        invocation.console.info("everything was up to date")
    _warn_of_damage(invocation, refreshed.state)
    finish(succeeded=not refreshed.state.damaged)


@click.command()
@click.argument("url", required=False)
@click.option("--deep", is_flag=True, help="Read every disk, and check what is in it.")
@FORMAT
@click.pass_obj
def verify(invocation: Invocation, url: str | None, deep: bool, form: str) -> None:
    """Check a repository as its clients see it.

    It is the repository of the settings, or the one at URL: that of a store (s3://…, file:///…,
    a path), or the http or https URL that clients use. Of that, everything that index and
    repo.metadata name is checked, and how it is served.
    """
    web = Web.at(url, invocation.environ) if url and is_web(url) else None
    if url and web is None:
        invocation.use_repository(url)
    verifier = Verifier(
        settings=invocation.settings,
        environ=invocation.environ,
        console=invocation.console,
        deep=deep,
        now=time.time(),
    )
    report = verifier.web(web) if web else verifier.store(invocation.store())
    if form == "json":
        click.echo(as_json({**asdict(report), "ok": report.ok}))
    else:
        _show_report(report)
    finish(succeeded=report.ok)


@click.command()
@click.option("--apply", "really", is_flag=True, help="Remove it; else it is a dry run.")
@FORMAT
@click.pass_obj
def gc(invocation: Invocation, really: bool, form: str) -> None:
    """Remove what retention lets go.

    That is old revisions, builds never released and unfinished uploads. A build is first retired,
    so that nothing offers it any more; a later call deletes its objects when the grace period is
    over. Without --apply it is a dry run.
    """
    retention = Retention.of(invocation.settings)
    store = invocation.store()
    empty = next(store.list(), None) is None
    planned = collect.look(store, retention, time.time()) if empty or not really else None
    # A mistyped path must not become a repository.
    nothing = empty and planned is not None and planned.is_empty
    if nothing:
        invocation.console.warn(f"{store.url} is empty: check --repository")
    if planned is None or (really and not nothing):
        with publishing_from(invocation) as publisher:
            done = collect.sweep(publisher, retention)
        planned = done.sweep
        for image in done.left:
            invocation.console.warn(f"{image} was published meanwhile: left alone")
    if form == "json":
        click.echo(as_json({"applied": really, **_plain(planned)}))
        return
    _show_sweep(planned, really=really)
    if planned.waiting:
        first, last = _day(planned.waiting[0]), _day(planned.waiting[-1])
        click.echo(
            f"waiting: {len(planned.waiting)} builds, for the end of their grace period: "
            f"the first on {first}, the last on {last}"
        )
    if not really and not planned.is_empty:
        invocation.console.info("nothing was removed: repo gc --apply does it")


def _warn_of_damage(invocation: Invocation, state: State) -> None:
    """Name the releases that cannot be read: nothing before them is offered."""
    for what in state.damaged.values():
        invocation.console.warn(f"{what}; restore it from a copy")


def publishing_from(
    invocation: Invocation, *, retire: frozenset[str] = frozenset()
) -> AbstractContextManager[Publisher]:
    return publishing(
        invocation.store(),
        invocation.settings,
        console=invocation.console,
        environ=invocation.environ,
        now=time.time,
        retire=retire,
    )


def _rows(state: State, *, all_: bool) -> Iterator[dict[str, Any]]:
    for name, arch in state.images:
        for release in state.live(name, arch)[0 if all_ else -1 :]:
            manifest = release.manifest
            if manifest:
                yield {
                    "name": name,
                    "arch": arch,
                    "revision": release.revision,
                    "version": version_name(release, manifest),
                    "published": release.published,
                    "size": manifest.disk.compressed_size,
                    "fingerprint": release.fingerprint,
                    "commit": manifest.commit,
                }


def _texts(row: dict[str, Any]) -> tuple[str, ...]:
    moment = datetime.fromtimestamp(row["published"], UTC).strftime("%Y-%m-%d %H:%M")
    shown = {
        **row,
        "published": moment,
        "size": human_size(row["size"]),
        "fingerprint": row["fingerprint"].removeprefix("sha256:")[:_SHORT],
        "commit": row["commit"][:_SHORT],
    }
    return tuple(clean(str(shown[column])) for column in _COLUMNS)


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def as_json(plain: object) -> str:
    return json.dumps(plain, indent=1, ensure_ascii=False)


def _show_report(report: Report) -> None:
    for finding in report.findings:
        click.echo(clean(f"{finding.severity}: {finding.where}: {finding.what}"))
        if finding.repair:
            click.echo(clean(f"  repair: {finding.repair}"))
    notes = len(report.findings) - len(report.problems)
    read = f", {human_size(report.read)} of disks read" if report.read else ""
    click.echo(
        f"{report.url}: {report.images} images, {report.versions} versions{read}: "
        f"{len(report.problems)} problems, {notes} notes"
    )


def _show_sweep(planned: Sweep, *, really: bool) -> None:
    verbs = ("retired", "deleted") if really else ("to retire", "to delete")
    for verb, steps in zip(verbs, (planned.retire, planned.delete), strict=True):
        for step in steps:
            what = f"{len(step.objects)} objects, {human_size(step.size)}"
            click.echo(clean(f"{verb}: {step.build.folder}: {what}: {step.why}"))
        for image, (objects, total) in sorted(_per_image(steps).items()):
            click.echo(f"{verb}, in all of {image}: {objects} objects, {human_size(total)}")
    for upload in planned.abort:
        click.echo(clean(f"{'aborted' if really else 'to abort'}: the upload of {upload.key}"))
    for verb, steps in zip(verbs, (planned.retire, planned.delete), strict=True):
        total = sum(step.size for step in steps)
        click.echo(f"{verb}: {len(steps)} builds, {human_size(total)}")


def _per_image(steps: Iterable[Step]) -> dict[ImageId, tuple[int, int]]:
    totals: dict[ImageId, tuple[int, int]] = {}
    for step in steps:
        objects, total = totals.get(step.build.key.image, (0, 0))
        totals[step.build.key.image] = (objects + len(step.objects), total + step.size)
    return totals


def _plain(planned: Sweep) -> dict[str, Any]:
    def plain(steps: Iterable[Step]) -> dict[str, Any]:
        images = [
            {**image._asdict(), "objects": objects, "bytes": total}
            for image, (objects, total) in sorted(_per_image(steps).items())
        ]
        builds = [
            {**asdict(step), "build": asdict(step.build.key), "folder": step.build.folder}
            for step in steps
        ]
        return {"bytes": sum(step.size for step in steps), "images": images, "builds": builds}

    return {
        "retire": plain(planned.retire),
        "delete": plain(planned.delete),
        "abort": [asdict(upload) for upload in planned.abort],
        "forget": list(planned.forget),
        "waiting": [int(moment) for moment in planned.waiting],
    }
