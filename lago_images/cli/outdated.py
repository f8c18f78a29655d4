"""``--outdated`` of the commands that render: what is outdated is asked for first, and recorded."""

from collections.abc import Callable

import click

from lago_images.cli.invocation import Invocation

RECORD = click.option(
    "--outdated",
    is_flag=True,
    help="Also ask outside what a build of each image would get otherwise today, and record it: "
    "the catalogue and images.json show it.",
)


def recorder(invocation: Invocation) -> Callable[[], bool]:
    """Return what asks and records, of the specs that are checked out here.

    Raises ``SpecError`` when these are wrong, and ``UsageError`` when there are none.
    """
    # They import what prepares bases, and git.
    from lago_images.jobs.outdated import record_outdated  # noqa: PLC0415
    from lago_images.jobs.plan import tree_of  # noqa: PLC0415

    workspace = invocation.workspace()
    tree = tree_of(workspace)
    return lambda: record_outdated(workspace, tree)
