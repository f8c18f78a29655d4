"""Downloads that outlive a run: bounded, and never found half-made under their own names."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

LIMIT = 20 * 2**30


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold a lock beside ``path``; other runs and threads wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prune(folder: Path, *, limit: int = LIMIT, keep: Path | None = None) -> None:
    """Remove what was used longest ago until at most ``limit`` bytes are left.

    Who reads a file that is removed reads it to its end all the same.
    """
    files = [path for path in folder.glob("*") if path.is_file() and path != keep]
    used = {path: path.stat() for path in files if path.suffix != ".lock"}
    total = sum(status.st_size for status in used.values())
    for path, status in sorted(used.items(), key=lambda item: item[1].st_mtime):
        if total <= limit:
            return
        with suppress(OSError):
            path.unlink()
        total -= status.st_size


def touch(path: Path) -> None:
    """Note that a file was used now."""
    with suppress(OSError):
        os.utime(path)
