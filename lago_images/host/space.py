"""Demand enough disk space for the work before it is begun."""

import os
from pathlib import Path

from lago_images.console import human_size
from lago_images.errors import HostError

GIB = 2**30
HINT = "free some space, or set TMPDIR to a larger file system"


def free(folder: Path) -> int:
    """Return the bytes that this user may still write where ``folder`` is, or will be made."""
    while not folder.exists():
        folder = folder.parent
    # f_bavail, not f_bfree: ext4 keeps 5 % for root.
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def device(folder: Path) -> int:
    """Return the number of the file system that ``folder`` is on, or will be."""
    while not folder.exists():
        folder = folder.parent
    return folder.stat().st_dev


def demand(folder: Path, needed: int, purpose: str) -> None:
    """Let only work begin that there is room for.

    Args:
        folder: Where the work writes.
        needed: Bytes.
        purpose: What the room is for.

    Raises:
        HostError: There is less; names the folder, the bytes needed and the bytes free.
    """
    available = free(folder)
    if available < needed:
        raise HostError(
            f"{purpose} needs {shown(needed)} in {folder}, where {shown(available)} are free",
            hint=HINT,
        )


def shown(amount: int) -> str:
    """Return bytes for people, and exactly."""
    return f"{human_size(amount)} ({amount} bytes)"
