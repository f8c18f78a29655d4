"""Run a program with a folder on a file system of a few bytes, which it soon fills."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_MOUNT = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'


def run_in_small_filesystem(
    folder: Path, size: str, code: str, *args: str, timeout: float = 120
) -> str:
    """Return what Python code prints that has ``folder``, of that size, as its first argument.

    Skips the test where this user may not mount anything in a namespace of its own.
    """
    folder.mkdir()
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, size]
    tried = subprocess.run(
        [*inside, str(folder), "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"nothing can be mounted here: {tried.stderr.strip()}")
    done = subprocess.run(
        [*inside, str(folder), sys.executable, "-c", textwrap.dedent(code), str(folder), *args],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout
