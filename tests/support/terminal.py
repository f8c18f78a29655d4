"""A terminal of a given size, and what a person sees on it."""

import fcntl
import os
import re
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

_UP = re.compile(r"\[(\d+)A")
_CLEAR = "[J"
# What does not move the cursor.
_OTHER = re.compile(r"\[[0-9;?]*[A-Za-z]")


@dataclass(slots=True)
class Terminal:
    """The screen's side of a terminal; a program writes to ``stream``."""

    stream: TextIO
    columns: int
    _screen: int
    _seen: str = ""

    def lines(self) -> list[str]:
        """Return what stands on the terminal after all that was written, long lines wrapped."""
        mark = "\x1b[99m"
        self.stream.write(mark)
        self.stream.flush()
        while mark not in self._seen:
            self._seen += os.read(self._screen, 65536).decode()
        self._seen = self._seen.replace(mark, "")
        return shown(self._seen, self.columns)


@contextmanager
def terminal(columns: int, lines: int = 24) -> Iterator[Terminal]:
    """Open a terminal of that size."""
    screen, program = os.openpty()
    size = struct.pack("HHHH", lines, columns, 0, 0)
    fcntl.ioctl(program, termios.TIOCSWINSZ, size)
    with os.fdopen(program, "w", encoding="utf-8") as stream:
        try:
            yield Terminal(stream=stream, columns=columns, _screen=screen)
        finally:
            os.close(screen)


def shown(text: str, columns: int) -> list[str]:
    """Return the lines that a terminal of so many columns shows of what a program wrote."""
    rows, row, column = [""], 0, 0
    pieces = iter(re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|[\r\n])", text))
    for piece in pieces:
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif piece.startswith("\x1b"):
            rows, row = _controlled(piece[1:], rows, row, column)
        else:
            for letter in piece:
                if column == columns:
                    row, column = row + 1, 0
                    rows += [""] * (row + 1 - len(rows))
                rows[row] = rows[row][:column].ljust(column) + letter + rows[row][column + 1 :]
                column += 1
    return rows


def _controlled(code: str, rows: list[str], row: int, column: int) -> tuple[list[str], int]:
    if up := _UP.fullmatch(code):
        return rows, max(0, row - int(up[1]))
    if code == _CLEAR:
        return [*rows[:row], rows[row][:column]], row
    assert _OTHER.fullmatch(code), code
    return rows, row
