"""``repo accept-loss``: give up release records that no copy is left of, on record."""

import click

from lago_images.cli.answers import LossAcceptance
from lago_images.cli.completion import published_names
from lago_images.cli.documents import FORMAT, document
from lago_images.cli.invocation import Invocation, finish
from lago_images.cli.tables import tell
from lago_images.cli.values import REVISION
from lago_images.cli.withdrawals import carry_out, is_terminal
from lago_images.console import clean
from lago_images.repository.publishing import losses
from lago_images.repository.publishing.publisher import Publisher
from lago_images.repository.records.loss import AcceptedLoss
from lago_images.repository.records.release import Released


@click.command("accept-loss")
@click.argument("name", shell_complete=published_names)
@click.option(
    "--revision",
    "revisions",
    type=REVISION,
    multiple=True,
    help="Of what is lost, this alone; by default all that the image has lost.",
)
@click.option("--reason", required=True, help="Why; it is kept in the repository.")
@click.option("--arch", default="", help="Of an image with several architectures.")
@click.option("--dry-run", is_flag=True, help="Only show what is lost.")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@FORMAT
@click.pass_obj
def accept_loss(
    invocation: Invocation,
    name: str,
    revisions: tuple[int, ...],
    reason: str,
    arch: str,
    dry_run: bool,
    yes: bool,
    form: str,
) -> None:
    """Accept that release records of an image are lost for good.

    For records that are missing or cannot be read and that no copy is left of. It deletes nothing
    and brings nothing back: the revisions before them stay unoffered, for what is lost may have
    withdrawn them. Who accepted it, when and why is kept in the repository, where repo verify tells
    it as a note from then on.
    """
    if not reason.strip():
        raise click.BadParameter("say why", param_hint="--reason")
    lost = losses.look_at_losses(invocation.store(), name, arch=arch, revisions=revisions)
    is_json = form == "json"
    asked = is_terminal() and not yes
    for each in lost:
        tell(f"lost: {each.what}", err=is_json)
    if asked and not dry_run:
        finish(succeeded=click.confirm("accept that they are lost?", err=True))
    accepted = () if dry_run else _accept(invocation, lost, clean(" ".join(reason.split())))
    if is_json:
        every = tuple(each.what for each in lost)
        click.echo(document(LossAcceptance(lost=every, accepted=accepted)))
    for key in () if is_json else accepted:
        tell(f"accepted: {key}")


def _accept(invocation: Invocation, lost: tuple[losses.Lost, ...], reason: str) -> tuple[str, ...]:
    """Record the acceptance; return the records' keys."""

    def accept(publisher: Publisher, by: Released) -> tuple[AcceptedLoss, ...]:
        return losses.accept(publisher, lost, reason=reason, by=by)

    return tuple(str(record.key) for record in carry_out(invocation, accept))
