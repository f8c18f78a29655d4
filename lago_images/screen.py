"""Keep lines that change at the bottom of a terminal, below the lines that stay."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import Event, RLock, Thread
from typing import TextIO

# Returns lines for a terminal of so many columns, or for a log when that is None.
View = Callable[[int | None], Sequence[str]]
# Calls something every so many seconds, for a ``with`` block.
Ticker = Callable[[float, Callable[[], None]], AbstractContextManager[None]]

REFRESH_SECONDS = 0.25
# What a signal's handler waits for another thread's drawing, seconds.
_MOMENT = 1.0
_COLUMNS, _LINES = 80, 24


@contextmanager
def ticking(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Call a function every so many seconds, from a thread that ends with the block."""
    is_over = Event()

    def tick() -> None:
        while not is_over.wait(seconds):
            call()

    thread = Thread(target=tick, name="ticker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@dataclass(slots=True)
class Screen:
    """Write lines, and draw the views that are shown below them; safe from several threads."""

    stream: TextIO
    ticker: Ticker = ticking
    _lock: RLock = field(default_factory=RLock)
    _views: list[View] = field(default_factory=list)
    _drawn: int = 0
    _is_left: bool = False

    def write(self, line: str) -> None:
        """Write a line that stays."""
        with self._lock:
            self._draw(f"{line}\n")

    @contextmanager
    def showing(self, view: View) -> Iterator[None]:
        """Draw a view, and draw it anew several times a second, while the block lasts."""
        with self.ticker(REFRESH_SECONDS, self.redraw):
            with self._lock:
                self._views.append(view)
            self.redraw()
            try:
                yield
            finally:
                with self._lock:
                    self._views.remove(view)
                self.redraw()

    def leave(self) -> bool:
        """Let what is drawn stay above what comes, and draw no more; return whether anything is.

        For a signal's handler: the thread that it interrupted may hold the lock, and takes it
        again; another one ends what it draws.
        """
        is_locked = self._lock.acquire(timeout=_MOMENT)
        try:
            is_drawn, self._drawn, self._is_left = bool(self._drawn), 0, True
            return is_drawn
        finally:
            if is_locked:
                self._lock.release()

    def redraw(self) -> None:
        """Draw the views as they are now."""
        with self._lock:
            self._draw("")

    def _draw(self, text: str) -> None:
        """Clear what is drawn, write a text, and draw what the views show now."""
        lines = [] if self._is_left else self._lines()
        # The cursor stands in the last line that is drawn.
        up = f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else ""
        cleared = f"\r{up}\x1b[J" if self._drawn else ""
        # As long as a signal may find the lines of before or those of now, it finds some.
        self._drawn = max(self._drawn, len(lines))
        self.stream.write(f"{cleared}{text}" + "\n".join(lines))
        self.stream.flush()
        self._drawn = len(lines)

    def _lines(self) -> list[str]:
        columns, rows = terminal_size(self.stream)
        lines = [line[:columns] for view in self._views for line in view(columns)]
        # A line that the terminal wraps or scrolls away cannot be cleared.
        return lines[: rows - 1]


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Return the columns and lines of a terminal; 80 and 24 where it does not know them."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, lines = 0, 0
    # COLUMNS wins, as in other programs.
    given = os.environ.get("COLUMNS", "")
    columns = int(given) if given.isdecimal() else columns
    return columns or _COLUMNS, lines or _LINES
