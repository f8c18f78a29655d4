"""Lay out tables for terminals of any width, and texts for files and pipes."""

import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

import click

from lago_images.console import LEAST_WIDTH, clean, wrapped

_GAP = "  "


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Return the columns of the terminal that a stream is, by default stdout; None for a file."""
    # Lines in a file are for grep and for other widths: they are not wrapped. COLUMNS wins, as
    # in other programs; and a terminal that does not know its width has 80.
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def tell(text: str, *, indent: str = "  ", err: bool = False) -> None:
    """Print one line of text; on a terminal in lines of its width, the later ones indented."""
    width = terminal_width(sys.stderr if err else sys.stdout)
    click.echo("\n".join(wrapped(clean(text), width, indent=indent)), err=err)


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None,
    spare: Sequence[str] = (),
) -> list[str]:
    """Return a table's lines, the first of which has the heads.

    Where a row has no room in one line, each of its cells has a line of its own.

    Args:
        heads: Of the columns.
        rows: Of as many cells each; the last one may be long, and is wrapped at words.
        width: What a line may have; None for any.
        spare: The heads of columns to leave out, the first one first, where that makes room.
    """
    lines = [list(heads), *([clean(cell) for cell in row] for row in rows)]
    fewer = lines
    for head in spare:
        if _fits(fewer, width):
            break
        place = fewer[0].index(head)
        fewer = [line[:place] + line[place + 1 :] for line in fewer]
    if width is None or _fits(fewer, width):
        return list(_side_by_side(fewer, width))
    return list(_stacked(lines, width))


def _fits(lines: Sequence[Sequence[str]], width: int | None) -> bool:
    return width is None or len(lines[0]) == 1 or _needed(lines) <= width


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]


def _needed(lines: Sequence[Sequence[str]]) -> int:
    """Return the least width of a table: the last column may be wrapped."""
    longest = max(len(line[-1]) for line in lines)
    word = max((len(word) for line in lines for word in line[-1].split()), default=0)
    gaps = len(_GAP) * (len(lines[0]) - 1)
    return sum(_widths(lines)) + gaps + min(longest, max(word, LEAST_WIDTH))


def _side_by_side(lines: Sequence[Sequence[str]], width: int | None) -> list[str]:
    widths = _widths(lines)
    before = sum(widths) + len(_GAP) * len(widths)
    shown = []
    for line in lines:
        *cells, last = line
        start = "".join(cell.ljust(wide) + _GAP for cell, wide in zip(cells, widths, strict=True))
        rest = None if width is None else width - before
        first, *more = wrapped(last, rest) or [""]
        shown += [(start + first).rstrip(), *(" " * before + part for part in more)]
    return shown


def _stacked(lines: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lay out a row as its first cell, and the others below it, for a narrow terminal."""
    heads, *rows = lines
    shown = []
    for first, *cells in rows:
        if first:
            shown += wrapped(first, width)
        for head, cell in zip(heads[1:], cells, strict=True):
            if cell:
                text = f"{head.lower()}: {cell}"
                shown += [f"  {part}" for part in wrapped(text, width - 2, indent="  ")]
    return shown
