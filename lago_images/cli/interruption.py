"""Say what a person does next who ended a run with Ctrl-C: only what is true of that run."""

from collections.abc import Iterator
from contextlib import contextmanager

from lago_images.jobs.workspace import Workspace
from lago_images.planning.model import Plan
from lago_images.planning.plan import ANEW

PUBLISH_AGAIN = "next: the same command publishes the rest; what is released stays released"
BUILD_AGAIN = (
    "next: the same command builds again; downloads and bootstraps that were complete are kept for "
    "it, and what is released stays released"
)


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Let the command line end with an advice if the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(advice)
        raise


def after_rebuild(workspace: Workspace, plan: Plan) -> str:
    """Return what is true when a run that builds and publishes what a plan says was interrupted.

    What was finished waits in ``builds/``, and the next plan promotes it: unless settings forbid
    that, it is of no commit, or what is asked for is a new build.
    """
    is_anew = any(reason.kind in ANEW for image in plan.images for reason in image.reasons)
    if is_anew or plan.dirty or not workspace.is_promoting:
        return BUILD_AGAIN
    return (
        "next: the same command goes on from here; images that were finished are not built again, "
        "and what is released stays released"
    )
