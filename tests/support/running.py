"""Find the programs that run on this machine by what they were started with."""

import time
from pathlib import Path

# Seconds after which a killed program is taken for one that was not killed.
_ENDS = 30


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
