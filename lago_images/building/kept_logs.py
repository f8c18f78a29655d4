"""Keep the logs of builds on this machine, in a folder a run, within bounds.

It is beside the caches, and imports nothing that downloads: every command names its logs.
"""

import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

# Below the folder of the caches.
FOLDER = "logs"
# The runs whose logs are kept. A published build's log is in the repository, too.
RUNS = 50
# Bytes of all of them.
LIMIT = 2**30
_PART = ".part"


def new_logs(cache: Path) -> Path:
    """Name a folder for this run's logs, and make room for them among those of earlier runs."""
    folder = cache / FOLDER
    runs = sorted(run for run in folder.iterdir() if run.is_dir()) if folder.is_dir() else []
    size = 0
    for count, run in enumerate(reversed(runs), start=1):
        size += _size(run)
        # The last run's are what somebody looks for now. Another run may remove the same ones.
        if count >= RUNS or (size > LIMIT and count > 1):
            shutil.rmtree(run, ignore_errors=True)
    # Two runs may begin in one second; and sorted by name they are sorted by time.
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return folder / f"{moment}-{secrets.token_hex(4)}"


def unfinished(log: Path) -> Path:
    """Return where a log is while it is moved to its place."""
    return log.with_name(f".{secrets.token_hex(8)}{_PART}")


def is_unfinished(path: Path) -> bool:
    """Return whether a file is a log that was not in its place yet."""
    return path.name.startswith(".") and path.suffix == _PART


def _size(folder: Path) -> int:
    size = 0
    for path in folder.glob("*"):
        with suppress(OSError):
            size += path.stat().st_size
    return size
