"""Look for plain text in what a guest wrote to its serial console."""

import re
from pathlib import Path

# Colours and cursor movements (ECMA-48, 5.4), which may stand within a line of text.
_SEQUENCE = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")


def shows(console: Path, text: str) -> bool:
    """Return whether a console's file has a text, colours left out; false before there is one."""
    try:
        written = console.read_bytes()
    except FileNotFoundError:
        return False
    return text.encode() in _SEQUENCE.sub(b"", written)
