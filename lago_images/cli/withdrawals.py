"""Define ``repo yank`` and ``rollback``, which show what they touch before a person confirms it."""

import sys
from collections.abc import Callable, Iterable
from typing import TypedDict, TypeVar, Unpack

import click

from lago_images.cli.answers import Withdrawal, WithdrawalPreview
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation, finish
from lago_images.cli.repo import publishing_from
from lago_images.cli.tables import tell
from lago_images.cli.values import REVISION
from lago_images.console import clean
from lago_images.repository.publishing import withdrawals
from lago_images.repository.publishing.publisher import Publisher
from lago_images.repository.publishing.withdrawals import Affected, HistoryChange
from lago_images.repository.records.release import NO_COMMIT, Release, Released
from lago_images.repository.verifying.findings import yank as yank_command

_T = TypeVar("_T")
# Makes the change, with what a release records of who asked for it.
_Change = Callable[[Publisher, Released], _T]
# What would be done to a release; empty where nothing can be.
_Action = Callable[[Release], str]


class _Options(TypedDict):
    """Hold what both commands are given; ``arch`` is empty for an image of one architecture."""

    arch: str
    with_layers: bool
    dry_run: bool
    yes: bool
    form: str


def _shared(command: Callable[..., _T]) -> Callable[..., _T]:
    """Give a command the options of both."""
    for option in (
        click.pass_obj,
        FORMAT,
        click.option("--yes", is_flag=True, help="Do not ask on a terminal."),
        click.option("--dry-run", is_flag=True, help="Only show what would be done."),
        click.option("--with-layers", is_flag=True, help="Also the layers that contain it."),
        click.option("--arch", default="", help="Of an image with several architectures."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("name")
@click.option("--revision", type=REVISION, help="By default the newest one offered.")
@click.option("--reason", required=True, help="Why; it is kept in the repository.")
@_shared
def yank(
    invocation: Invocation,
    name: str,
    revision: int | None,
    reason: str,
    **options: Unpack[_Options],
) -> None:
    """Withdraw a revision of an image, and all others of the same build.

    Clients are then offered what was offered before. Layers that contain the build are named.
    """
    if not reason.strip():
        raise click.BadParameter("say why", param_hint="--reason")
    arch, with_layers = options["arch"], options["with_layers"]
    affected = withdrawals.look_at_yank(invocation.store(), name, revision=revision, arch=arch)
    revision = affected.target.revision

    def change(publisher: Publisher, released: Released) -> HistoryChange:
        return withdrawals.yank(
            publisher,
            name,
            reason=clean(" ".join(reason.split())),
            released=released,
            revision=revision,
            arch=arch,
            with_layers=with_layers,
        )

    def action(release: Release) -> str:
        others = affected.withdrawn[1:] if release is affected.target else ()
        return f"withdraw revision {release.revision} of {release.name}{_same_build(others)}"

    if _is_agreed(affected, action, options):
        changed = carry_out(invocation, change)
        _show(invocation, changed, _withdrawn(changed), options["form"])


@click.command()
@click.argument("name")
@click.option("--to", type=REVISION, help="By default the build before the current.")
@click.option("--reason", default="", help="Why; it is kept in the repository.")
@_shared
def rollback(
    invocation: Invocation, name: str, to: int | None, reason: str, **options: Unpack[_Options]
) -> None:
    """Publish the build of an older revision of an image again, under a new revision."""
    arch, with_layers = options["arch"], options["with_layers"]
    affected = withdrawals.look_at_rollback(invocation.store(), name, to=to, arch=arch)
    to = affected.target.revision

    def change(publisher: Publisher, released: Released) -> HistoryChange:
        return withdrawals.rollback(
            publisher,
            name,
            released=released,
            reason=clean(" ".join(reason.split())),
            to=to,
            arch=arch,
            with_layers=with_layers,
        )

    def action(release: Release) -> str:
        older: Release | None = release
        if release in affected.layers:
            older = withdrawals.older_without(affected.state, release, affected.build)
        return f"go back to the build of revision {older.revision} of {older.name}" if older else ""

    if _is_agreed(affected, action, options):
        changed = carry_out(invocation, change)
        _show(invocation, changed, f"back to the build of revision {to}", options["form"])


def carry_out(invocation: Invocation, change: _Change[_T]) -> _T:
    """Open the publisher and make a change, as of the commit that is checked out."""
    with publishing_from(invocation) as publisher:
        commit = (invocation.git and invocation.git.head()) or NO_COMMIT
        return change(publisher, publisher.author.of(commit, dirty=False))


def _same_build(others: Iterable[int]) -> str:
    return "".join(f", and revision {number} of the same build" for number in others)


def _is_agreed(affected: Affected, action: _Action, options: _Options) -> bool:
    """Show what would be done, and ask on a terminal; tell whether to go on.

    ``action`` is of the target, and of each layer. Ends the command when the person says no.
    """
    dry_run, is_json = options["dry_run"], options["form"] == "json"
    if dry_run and is_json:
        click.echo(document(WithdrawalPreview.of(affected)))
        return False
    asked = is_terminal() and not options["yes"]
    if dry_run or asked:
        # Beside a document, stdout has nothing else.
        tell(f"to do: {action(affected.target)}", err=is_json)
        tell(_clients(affected.target, affected.current, "would get", "would be "), err=is_json)
        for layer in affected.layers:
            tell(_of_layer(layer, action(layer), options), err=is_json)
    if asked and not dry_run:
        # On stderr: stdout may be a file, which gets the answer of the command.
        finish(succeeded=click.confirm("go on?", err=True))
    return not dry_run


def _of_layer(layer: Release, action: str, options: _Options) -> str:
    """Return what would become of a layer; without an ``action`` nothing can be done to it."""
    contains = f"{layer.name} ({layer.arch}) {layer.revision} contains it"
    if not options["with_layers"]:
        return f"{contains}, and stays: --with-layers takes it too"
    if not action:
        return f"{contains}, and stays: it has no older build without it"
    return f"to do: {action}: {contains}"


def is_terminal() -> bool:
    """Return whether somebody is there to answer a question."""
    # In a CI's job nobody is there to answer: click would end the command as aborted.
    return sys.stdin.isatty()


def _withdrawn(changed: HistoryChange) -> str:
    first, *others = changed.withdrawn or (None,)
    if first is None:
        return f"revision {changed.about} was withdrawn already"
    return f"revision {first} withdrawn{_same_build(others)}"


def _clients(image: Release | HistoryChange, revision: int | None, get: str, be: str) -> str:
    """Return what clients get of an image, ``get`` and ``be`` saying when."""
    gets = f"clients {get} revision {revision}" if revision is not None else f"{be}offered no more"
    return f"{image.name} ({image.arch}): {gets}"


def _show(invocation: Invocation, changed: HistoryChange, message: str, form: str) -> None:
    if form == "json":
        click.echo(document(Withdrawal.of(changed)))
        return
    tell(f"{changed.name} ({changed.arch}): {message}")
    tell(_clients(changed, changed.current.revision if changed.current else None, "get", ""))
    for release in changed.taken:
        about = f"revision {release.withdraws} withdrawn" if release.withdraws else release.reason
        tell(f"{release.name} ({release.arch}): {about}")
    for layer in changed.layers:
        image = f"{layer.name} ({layer.arch}) {layer.revision}"
        yank = yank_command(layer.name, layer.arch, layer.revision, reason="its base was withdrawn")
        invocation.console.warn(
            f"{image} is offered, and contains what was taken back; withdraw it too: {yank}"
        )
