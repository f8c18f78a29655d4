"""Make work directories that are removed after success, failure and Ctrl-C.

What a SIGKILL leaves is found by the next run.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lago_images.console import Console
from lago_images.errors import Error, HostError
from lago_images.host.files import abandoned, locked
from lago_images.host.process import Runner
from lago_images.host.threads import undo

_PREFIX = "lago-images-"


def default_scratch(environ: Mapping[str, str]) -> Path:
    """Return ``$TMPDIR``, else ``/var/tmp``, else the system's temporary folder."""
    # /tmp is in memory on many hosts, and disks are large.
    folder = environ.get("TMPDIR")
    if folder:
        return Path(folder)
    return Path("/var/tmp") if Path("/var/tmp").is_dir() else Path(tempfile.gettempdir())  # noqa: S108


@contextmanager
def workdir(scratch: Path, console: Console) -> Generator[Path]:
    """Make a directory for this user alone, removed with all that is in it when the block ends.

    Where Ctrl-C ends the program, its removal has a moment: what it leaves, and what killed runs
    of this user left in ``scratch``, is removed first by the next.

    Raises:
        HostError: It cannot be made.
    """
    remove_leftovers(scratch, console)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        folder, lock, handle = locked(scratch, _PREFIX)
    except OSError as error:
        raise HostError(
            f"no work directory can be made in {scratch}: {error.strerror}",
            hint="set TMPDIR to a folder that this user may write",
        ) from error

    held = os.fdopen(handle)

    def remove() -> None:
        _remove(folder, console)
        # Last: as long as the lock is held, no other run takes the folder for a leftover.
        lock.unlink(missing_ok=True)
        held.close()

    try:
        folder.mkdir(mode=0o700)
        try:
            yield folder
        except Exception:
            remove()
            raise
        remove()
    except BaseException as error:
        # Once more, where Ctrl-C came while it was removed.
        if not undo(error, remove):
            console.warn("a work directory is left, which the next run removes")
        raise


def remove_leftovers(scratch: Path, console: Console) -> None:
    """Remove this user's work directories whose owners are dead."""
    for folder in abandoned(scratch, _PREFIX):
        console.info(f"removing what a killed run left: {folder}")
        _remove(folder, console)


def _remove(folder: Path, console: Console) -> None:
    while folder.exists():
        try:
            shutil.rmtree(folder, onerror=_open_up)
            break
        except FileNotFoundError:
            # A program that is ending removes files of its own, while they are listed.
            continue
        except OSError:
            _remove_as_root(folder, console)
            break


def _remove_as_root(folder: Path, console: Console) -> None:
    # An unpacked guest has files of other users, who exist in a user namespace of ours only.
    root = ("unshare", "--map-root-user", "--map-auto")
    try:
        Runner().run([*root, "rm", "-rf", "--", str(folder)])
    except Error as error:
        console.warn(f"{folder} could not be removed: {error.message}: remove it by hand")


def _open_up(function: Callable[..., Any], path: str, info: Any) -> None:  # noqa: ANN401 -- shutil's
    """Try again what a folder without write permission refused."""
    # An unpacked guest has folders in which not even their owner may remove anything.
    if not isinstance(info[1], PermissionError):
        raise info[1]
    for folder in (Path(path).parent, Path(path)):
        with suppress(OSError):
            if folder.is_dir() and not folder.is_symlink():
                folder.chmod(0o700)
    if function in {os.scandir, os.open, os.listdir}:
        shutil.rmtree(path)
    else:
        function(path)
