"""``repo refresh``, ``verify`` and ``gc``: what looks after a repository."""

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import click

from lago_images.cli.answers import Cleaning, Refreshment, Verification, totals
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation, finish
from lago_images.cli.moments import day
from lago_images.cli.outdated import RECORD, recorder
from lago_images.cli.tables import tell
from lago_images.console import counted, human_size
from lago_images.first_steps import makes_the_first
from lago_images.repository.publishing import collect
from lago_images.repository.publishing.publisher import Publisher, as_published, publishing
from lago_images.repository.publishing.retention import Retention, Sweep
from lago_images.repository.records import gaps
from lago_images.repository.records.presence import Presence, look
from lago_images.repository.verifying.findings import Report
from lago_images.repository.verifying.verifier import Verifier, refuse_missing, refuse_nothing
from lago_images.repository.verifying.web import Web, is_web
from lago_images.settings import Settings
from lago_images.specs.folder import without_specs
from lago_images.storage.base import Store
from lago_images.storage.open import is_same


@click.command("refresh")
@click.option(
    "--retire-key",
    "retire",
    metavar="FINGERPRINT",
    multiple=True,
    help="A key that no longer signs: delete what it signed.",
)
@click.option("--base-url", help="Where clients will find the repository.")
@RECORD
@FORMAT
@click.pass_obj
def refresh(
    invocation: Invocation, retire: tuple[str, ...], base_url: str | None, outdated: bool, form: str
) -> None:
    """Render index, repo.metadata and catalogue again from what is in the repository.

    Its name and base-url become those that settings, environment or this call say; what none of
    these says stays as it is published.
    """
    invocation.override(base_url=base_url)
    # gpg shows a fingerprint in groups of four, and people paste it as they see it.
    keys = frozenset(text.replace(" ", "").upper() for text in retire)
    record = recorder(invocation) if outdated else None
    store = invocation.store_to_publish()
    refuse_missing(store)
    with _publishing(invocation, store, invocation.settings, retire=keys) as publisher:
        if record:
            record()
        refreshed = publisher.refresh(recheck=True)
    if form == "json":
        report = Refreshment(
            written=refreshed.written,
            deleted=refreshed.deleted,
            damaged=tuple(map(str, refreshed.state.damaged)),
        )
        click.echo(document(report))
    else:
        for name in refreshed.written:
            click.echo(f"written {name}")
        for name in refreshed.deleted:
            click.echo(f"deleted {name}")
    if not refreshed.written and not refreshed.deleted:
        invocation.console.info("everything was up to date")
    # What is before a record that cannot be read is not offered: it may have been withdrawn there.
    for message in refreshed.state.damaged_unaccepted.values():
        invocation.console.warn(f"{message}; restore it from a copy")
    finish(succeeded=not refreshed.state.damaged_unaccepted)


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
    own, settings = invocation.own_repository, invocation.settings
    is_own = (
        settings.base_url.rstrip("/") == web.url
        if web
        else is_same(settings.repository, own, settings.folder)
    )
    is_elsewhere = not is_own
    if is_elsewhere:
        settings = _of_another(settings)
    verifier = Verifier(
        settings=settings,
        environ=invocation.environ,
        console=invocation.console,
        deep=deep,
        now=time.time(),
    )
    is_named = "repository" in invocation.overrides
    if web:
        report = verifier.web(web)
    else:
        store = invocation.store()
        first = makes_the_first(store.url, base_url=settings.base_url)
        if not (is_named or invocation.has_specs):
            first = without_specs(invocation.root)
        refuse_nothing(store, is_named=is_named, first=first)
        report = verifier.store(store)
    if web and is_elsewhere:
        report = report.repaired_by(partial(_at_store_behind, invocation, web.url))
    else:
        report = report.repaired_by(invocation.completed)
    if form == "json":
        click.echo(document(Verification.of(report)))
    else:
        _show_report(report)
    finish(succeeded=report.ok)


def _at_store_behind(invocation: Invocation, url: str, repair: str) -> str:
    """Return a repair of which nobody here knows where it is to be done: clients know the URL."""
    named = invocation.completed(repair, "STORE")
    is_there = named == invocation.completed(repair)
    return named if is_there else f"{named}, where STORE is the store behind {url}"


def _of_another(settings: Settings) -> Settings:
    """Return settings without what their file says of its own repository.

    An option or a variable may be meant for the other one.
    """
    own = {"name", "base_url", "signing_key"} - settings.origins.keys()
    nothing: dict[str, Any] = dict.fromkeys(own, "")
    return replace(settings, **nothing)


@click.command()
@click.option("--apply", "apply", is_flag=True, help="Remove it; else it is a dry run.")
@FORMAT
@click.pass_obj
def gc(invocation: Invocation, apply: bool, form: str) -> None:
    """Remove what retention lets go.

    Old revisions go, builds never released and unfinished uploads: of each image, the settings
    keep-revisions and keep-days say what is kept, and what is newer than grace-days is not touched.
    A build is first retired, so that nothing offers it any more; a later call deletes its objects
    when the grace period is over. Without --apply it is a dry run.
    """
    retention = Retention.of(invocation.settings)
    store = invocation.store()
    empty = look(store) is Presence.EMPTY
    planned = collect.look(store, retention, time.time()) if empty or not apply else None
    # A mistyped path must not become a repository.
    nothing = empty and planned is not None and planned.is_empty
    if nothing:
        is_missing = store.folder is not None and not store.folder.exists()
        missing = f"there is no folder {store.folder}: nothing is published there"
        what = missing if is_missing else f"{store.url} is empty"
        invocation.console.warn(f"{what}: check --repository")
    if planned is None or (apply and not nothing):
        with publishing_from(invocation) as publisher:
            done = collect.sweep(publisher, retention)
        planned = done.sweep
        for image in done.left:
            invocation.console.warn(f"{image} was published meanwhile: left alone")
    for lost in gaps.by_image(planned.missing).values():
        invocation.console.error(
            f"{lost} is missing: nothing is cleared up until it is restored from a copy"
        )
    if form == "json":
        click.echo(document(Cleaning.of(planned, applied=apply)))
        finish(succeeded=not planned.missing)
        return
    if planned.missing:
        finish(succeeded=False)
    _show_sweep(planned, apply=apply)
    if planned.waiting:
        first, last = day(planned.waiting[0].until), day(planned.waiting[-1].until)
        tell(
            f"waiting: {counted(len(planned.waiting), 'build')}, for the end of the grace period: "
            f"the first on {first}, the last on {last}"
        )
        for each in planned.waiting:
            invocation.console.detail(f"waiting: {each.build.folder}: until {day(each.until)}")
    if not apply and not planned.is_empty:
        how = invocation.completed("lago-images repo gc --apply")
        invocation.console.info(f"nothing was removed: {how} does it")


def publishing_from(invocation: Invocation) -> AbstractContextManager[Publisher]:
    """Open a publisher that keeps the name and URL which are published.

    Who withdraws an image or clears up changes neither, and the settings may be those of another
    repository.
    """
    store = invocation.store_to_publish()
    return _publishing(invocation, store, as_published(store, invocation.settings))


def _publishing(
    invocation: Invocation,
    store: Store,
    settings: Settings,
    *,
    retire: frozenset[str] = frozenset(),
) -> AbstractContextManager[Publisher]:
    return publishing(
        store,
        settings,
        console=invocation.console,
        environ=invocation.environ,
        now=time.time,
        retire=retire,
    )


def _show_report(report: Report) -> None:
    for finding in report.findings:
        tell(f"{finding.severity}: {finding.where}: {finding.what}")
        if finding.repair:
            tell(f"  repair: {finding.repair}", indent="    ")
    notes = len(report.findings) - len(report.problems)
    read = f", {human_size(report.read)} of disks read" if report.read else ""
    tell(
        f"{report.url}: {counted(report.images, 'image')}, "
        f"{counted(report.versions, 'version')}{read}: "
        f"{counted(len(report.problems), 'problem')}, {counted(notes, 'note')}"
    )


def _show_sweep(planned: Sweep, *, apply: bool) -> None:
    verbs = ("retired", "deleted") if apply else ("to retire", "to delete")
    for verb, steps in zip(verbs, (planned.retire, planned.delete), strict=True):
        for step in steps:
            amount = f"{len(step.objects)} objects, {human_size(step.size)}"
            tell(f"{verb}: {step.build.folder}: {amount}: {step.why}")
        for total in totals(steps):
            of_image = f"{total.name} ({total.arch})"
            amount = f"{total.objects} objects, {human_size(total.bytes)}"
            tell(f"{verb}, in all of {of_image}: {amount}")
    for upload in planned.abort:
        tell(f"{'aborted' if apply else 'to abort'}: the upload of {upload.key}")
    for verb, steps in zip(verbs, (planned.retire, planned.delete), strict=True):
        size = sum(step.size for step in steps)
        tell(f"{verb}: {len(steps)} builds, {human_size(size)}")
