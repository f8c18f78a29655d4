"""Build one image's disk by itself: no boot test, no upload, nothing in the repository."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from lago_images.building.board import Board
from lago_images.building.image import finish, refuse_unbuildable
from lago_images.building.job import Finished, Job
from lago_images.building.model import Context, Request
from lago_images.building.outcome import keep
from lago_images.building.progress import Progress
from lago_images.building.reservations import this_machine
from lago_images.errors import Error
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Children
from lago_images.host.threads import result, side_by_side


def build_disk(
    request: Request, context: Context, *, accel: Acceleration, folder: Path
) -> Finished:
    """Build an image's disk, which is left in ``folder``; whoever calls has looked for the room.

    Raises:
        Error: It could not be built; its log is kept, and named on the console.
    """
    children, name = Children(), request.spec.name
    board = Board(1, context.clock)
    log = folder / "image.log"
    context.console.interrupt = children.check
    try:
        with context.console.live(board.lines), ExitStack() as opened:
            row = opened.enter_context(board.row(name, request.expected))
            console = context.console.metered(row.measure)
            job = Job(
                request=request,
                context=replace(context, console=console),
                accel=accel,
                folder=folder / "work",
                base=request.base,
                children=children,
                machine=this_machine(),
                progress=Progress(
                    name=name, console=console, clock=context.clock, log=log, row=row
                ),
            )
            job.folder.mkdir(parents=True)
            refuse_unbuildable(job)
            # In a thread, for which Ctrl-C waits no more than a moment.
            with side_by_side(1, "alone") as workers:
                finished = result(workers.submit(finish, job))
            return replace(finished, disk=finished.disk.rename(folder / "built.qcow2"))
    except Error:
        if kept := keep(log, f"{name}.log", context):
            context.console.info(f"the log of {name} is {kept}")
        raise
    except BaseException:
        children.end()
        raise
    finally:
        context.console.interrupt = None
