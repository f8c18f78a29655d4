"""Tell how an image's build ended: its failure in words, and its log where logs are kept."""

import shutil
import traceback
from pathlib import Path

from lago_images.building import kept_logs
from lago_images.building.boot.spec_tests import FailedTestsError
from lago_images.building.model import Context
from lago_images.errors import BuildError, CommandError, Error
from lago_images.repository.records.guest_tests import GuestTestRecord


def described(failure: Exception) -> str:
    """Return a failure in words, with what to do next."""
    if isinstance(failure, Error):
        return failure.message + (f" ({failure.hint})" if failure.hint else "")
    return str(failure) if isinstance(failure, OSError) else f"{type(failure).__name__}: {failure}"


def last_lines(failure: BaseException | None) -> tuple[str, ...]:
    """Return the last lines of the program, or of the guest, whose failure led to this one."""
    while failure is not None:
        if isinstance(failure, CommandError | BuildError) and failure.tail:
            return failure.tail
        failure = failure.__cause__
    return ()


def ended_tests(failure: BaseException | None) -> tuple[GuestTestRecord, ...]:
    """Return how the tests of an image ended that failed by them; empty for another failure."""
    return failure.records if isinstance(failure, FailedTestsError) else ()


def for_the_log(failure: Exception) -> str:
    """Return what an image's log has of a failure: of a fault of ours also the traceback."""
    if isinstance(failure, Error | OSError):
        return f"error: {described(failure)}"
    return "".join(traceback.format_exception(failure))


def keep(log: Path, name: str, context: Context) -> Path | None:
    """Move a log to where logs are kept, whole; return where it is then, if there is one."""
    target = context.logs / name
    part = kept_logs.unfinished(target)
    try:
        target.unlink(missing_ok=True)
        if not log.exists():
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        # Logs may be kept on another file system, where a move is a copy that can break off.
        shutil.move(log, part)
        return part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        context.console.warn(f"the log {target} could not be kept: {error.strerror or error}")
        return None
