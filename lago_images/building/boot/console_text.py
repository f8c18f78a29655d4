"""Look for plain text in what a guest wrote to its serial console."""

import re
from pathlib import Path

# Colours and cursor movements (ECMA-48, 5.4), which may stand within a line of text.
_SEQUENCE = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")
_LARGEST = 2**20


def shows(console: Path, text: str) -> bool:
    """Return whether a console's file has a text, colours left out; false before there is one.

    Of a guest that writes more than that between two looks, the last ``_LARGEST`` bytes count.
    """
    try:
        with console.open("rb") as file:
            file.seek(max(0, console.stat().st_size - _LARGEST))
            written = file.read(_LARGEST)
    except FileNotFoundError:
        return False
    return text.encode() in _SEQUENCE.sub(b"", written)
