"""Keep what a scratch folder is, its rights and mount options, out of what is built in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lago_images.errors import HostError

_ACLS = ("system.posix_acl_default", "system.posix_acl_access")
_HINT = "set TMPDIR to a folder on a file system without that option"


@contextmanager
def private(folder: Path) -> Iterator[Path]:
    """Make a folder of our own, whose files inherit nothing: no ACL, no group, no mode.

    The caller empties it; it is removed where that was done.
    """
    folder.mkdir(mode=0o700)
    try:
        for name in _ACLS:
            # There is none, or the file system knows none.
            with suppress(OSError):
                os.removexattr(folder, name)
        os.chown(folder, -1, os.getegid())
        # Again: mkdir leaves out what the umask says, and takes over a parent's set-group-ID bit.
        folder.chmod(0o700)
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


def refuse_noexec(folder: Path) -> None:
    """Refuse a folder in which no program can be started; raises ``HostError``."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        message = f"the file system of {folder} is mounted noexec: no program in it can be started"
        raise HostError(message, hint=_HINT)


def refuse_nodev(folder: Path) -> None:
    """Refuse a folder in which no device works, once that may have been the reason of a failure.

    Raises:
        HostError: Its file system is mounted nodev.
    """
    if os.statvfs(folder).f_flag & os.ST_NODEV:
        message = f"the file system of {folder} is mounted nodev: no /dev/null in it works"
        raise HostError(message, hint=_HINT)
