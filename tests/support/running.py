"""Start the command line, and find programs that run here by what they were started with."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Seconds after which a killed program is taken for one that was not killed.
_ENDS = 30


@contextmanager
def command_line(
    *args: str,
    folder: Path,
    environ: Mapping[str, str],
    longest: float,
    stdout: int = subprocess.PIPE,
) -> "Iterator[subprocess.Popen[str]]":
    """Run the command line in a process of its own, which is killed after so many seconds."""
    with subprocess.Popen(
        [sys.executable, "-m", "lago_images", *args],
        cwd=folder,
        env=environ,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        hang = threading.Timer(longest, run.kill)
        hang.start()
        try:
            yield run
        finally:
            hang.cancel()
            run.kill()


def programs_of(text: str) -> list[str]:
    """Return the command lines of programs with a text in them, or in what they call TMPDIR."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environ = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile, or is another's
        folders = [value for value in environ if value.startswith(b"TMPDIR=")]
        if any(text.encode() in value for value in [command, *folders]):
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def left_running(text: str) -> list[str]:
    """Return those that do not end: one that was sent SIGKILL is seen for a moment more."""
    limit = time.monotonic() + _ENDS
    while (found := programs_of(text)) and time.monotonic() < limit:
        time.sleep(0.05)
    return found
