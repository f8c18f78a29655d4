"""The lines and the progress that a person or a CI log sees of long work.

Data goes to stdout by ``cli``; everything here goes to stderr. The library talks to a
``Console`` and never knows whether a terminal, a plain log or GitHub's log is behind it.
"""

import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock
from typing import Protocol, TextIO

from lago_images.meter import Meter
from lago_images.screen import Screen, Ticker, View, terminal_size, ticking
from lago_images.secret_text import without_keys

# Everything below U+0020 but the tab, DEL and the C1 controls: what can move a cursor, colour a
# terminal or end a line. U+2028 and U+2029 end lines for some log viewers. The others are seen by
# nobody: they turn the direction of text, or hide a command from who looks for its characters and
# not from GitHub's runner, which compares strings as .NET's cultures do, and so passes over them.
_CONTROLS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]"
    r"|[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
# What Python makes of bytes that are no UTF-8: git's subjects and files' names may have them.
_SURROGATES = re.compile("[\ud800-\udfff]")
PLAIN_SECONDS = 15.0
HEARTBEAT_SECONDS = 30.0
_KIB = 1024
# Below this a column of text is no longer read but spelled.
LEAST_WIDTH = 24
_PROGRAM = "lago-images "


class Mode(StrEnum):
    """The kind of place that the console writes to."""

    TERMINAL = "terminal"
    PLAIN = "plain"
    GITHUB = "github"


def human_size(count: int) -> str:
    """Return bytes as a person reads them: ``97.5 MiB``, in powers of 1024, as ``size=`` counts."""
    amount, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= _KIB - 0.05 and len(units) > 1:
        amount /= _KIB
        units.pop(0)
    return f"{amount:.{0 if units[0] == 'B' else 1}f} {units[0]}"


def counted(count: int, thing: str) -> str:
    """Return a number of things: ``1 image``, ``2 images``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def first_of(texts: Sequence[str], most: int, count: int | None = None) -> str:
    """Return the first texts in a line, and how many more there are: ``a, b and 3 more``.

    Args:
        texts: All of them, or as many as are known.
        most: How many are shown.
        count: How many there are; None for as many as ``texts``.
    """
    shown = texts[:most]
    more = (len(texts) if count is None else count) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def whole(text: str) -> str:
    """Return text that can be written as UTF-8: U+FFFD stands for bytes that were not."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def clean(text: str) -> str:
    """Return one ``whole`` line without escape sequences, control or invisible characters."""
    return _CONTROLS.sub("", whole(text))


def clipped(text: str, width: int) -> str:
    """Return as much of a text as fits; an ellipsis stands for the rest."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def wrapped(text: str, width: int | None, *, indent: str = "") -> list[str]:
    """Return one line's text in lines of at most ``width``, the later ones indented.

    A command of ours at its end is kept whole, in a line of its own, where it fits in one.
    """
    if width is None or len(text) <= width:
        return [text]
    start = text.find(_PROGRAM)
    # With the quote that opens before it.
    start -= text[start - 1 : start] == "'"
    if text[: max(start, 0)].strip() and len(indent) + len(text) - start <= width:
        return [*wrapped(text[:start].rstrip(), width, indent=indent), indent + text[start:]]
    # Names and URLs are copied by people: they are not cut, however long. Blanks before one that is
    # too long would be taken for an empty line, and left out.
    words = text.lstrip()
    return textwrap.wrap(
        words,
        max(width, LEAST_WIDTH),
        initial_indent=text.removesuffix(words),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def inert(text: str) -> str:
    """Return one line that GitHub's runner does not read as a workflow command.

    The runner reads ``::name::`` at the start of a line (after blanks) and ``##[name]`` anywhere:
    https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
    """
    shown = clean(text).replace("##[", "# #[")
    return shown.replace("::", ": :", 1) if shown.lstrip().startswith("::") else shown


class Advance(Protocol):
    """A progress callback: takes how many bytes (or steps) more are done."""

    def __call__(self, amount: int, /) -> None: ...


@dataclass(slots=True)
class Console:
    """Prints lines and progress; safe to use from several threads.

    Attributes:
        quiet: Print warnings and failures only.
        verbose: Print details, too.
        interrupt: Called with every progress; raises to end the work that reports it: so Ctrl-C
            reaches threads.
        paint: Colours a line of a kind, ``warning`` or ``error``.
        completed: Gives the commands that a warning, failure or hint names the options of the call.
        moment: Returns the time that each line begins with; None for lines without one.
        meter: Takes the progress of so many bytes, where a ``live`` view shows it.
        ticker: Lets what changes be drawn, or told, every so many seconds.
    """

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    mode: Mode = Mode.PLAIN
    clock: Callable[[], float] = time.monotonic
    quiet: bool = False
    verbose: bool = False
    interrupt: Callable[[], None] | None = None
    paint: Callable[[str, str], str] = lambda line, _kind: line
    completed: Callable[[str], str] = lambda text: text
    moment: Callable[[], str] | None = None
    meter: Callable[[int | None], Advance] | None = None
    ticker: Ticker = ticking
    _lock: Lock = field(default_factory=Lock)
    _screen: Screen = field(init=False)

    def __post_init__(self) -> None:
        self._screen = Screen(stream=self.stream, ticker=self.ticker)

    def metered(self, meter: Callable[[int | None], Advance]) -> "Console":
        """Return this console, with what is reported of progress handed to ``meter``."""
        part = copy(self)
        part.meter = meter
        return part

    def info(self, text: str) -> None:
        """Print a fact about the work, a line."""
        if not self.quiet:
            self._line(text)

    def detail(self, text: str) -> None:
        """Print what only who looks for a reason wants to know, a line."""
        if self.verbose:
            self._line(text)

    def warn(self, text: str) -> None:
        """Print what a person should know of, though the work goes on."""
        text = self.completed(without_keys(text))
        if self.mode is Mode.GITHUB:
            self._screen.write(f"::warning::{_data(text)}")
        else:
            self._line(f"warning: {text}", kind="warning")

    def error(self, text: str) -> None:
        """Print a failure, which may have several lines."""
        text = self.completed(text)
        if self.mode is Mode.GITHUB:
            # GitHub puts the word "Error:" before an annotation by itself.
            self._screen.write(f"::error::{_data(text.removeprefix('error: '))}")
            return
        for line in text.splitlines():
            self._line(line, kind="error")

    def hint(self, text: str) -> None:
        """Print what to do about a failure, a line."""
        self.info(f"hint: {self.completed(text)}")

    def problem(self, path: str, line: int | None, message: str) -> None:
        """Print a problem at a place in a file: an annotation on GitHub, else a plain line."""
        where = path if line is None else f"{path}:{line}"
        if self.mode is Mode.GITHUB:
            at = f"file={_property(path)}" + ("" if line is None else f",line={line}")
            self._screen.write(f"::error {at}::{_data(message)}")
        else:
            self._line(f"{where}: {message}")

    def output(self, text: str) -> None:
        """Print one line of a program's output, which is never trusted."""
        if not self.quiet:
            # As it is, in columns or not: the terminal wraps it.
            self._line(text, is_wrapped=False)

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Put the lines of the block together; folded in GitHub's log."""
        is_folded = self.mode is Mode.GITHUB and not self.quiet
        if is_folded:
            self._screen.write(f"::group::{_data(title)}")
        else:
            self.info(f"== {title}")
        try:
            yield
        finally:
            if is_folded:
                self._screen.write("::endgroup::")

    @contextmanager
    def progress(self, label: str, total: int | None, *, of: str = "") -> Iterator[Advance]:
        """Show progress of ``total`` bytes: a bar on a terminal, else a line now and then.

        ``of`` names what is counted when it is not bytes, such as ``builds``: no bar then.
        """
        if self.meter is not None and not of:
            yield self._interruptible(self.meter(total))
        elif self.mode is Mode.TERMINAL and not (self.quiet or of):
            meter = Meter(clock=self.clock, total=total)
            with self._screen.showing(lambda width: [_bar(clean(label), meter, width or 0)]):
                yield self._interruptible(meter.advance)
        else:
            yield self._interruptible(self._plain_progress(label, total, of))

    @contextmanager
    def live(self, view: View) -> Iterator[None]:
        """Show lines that change: on a terminal all the time, else as a heartbeat."""
        if self.quiet:
            yield
        elif self.mode is Mode.TERMINAL:
            with self._screen.showing(lambda width: [clean(line) for line in view(width)]):
                yield
        else:
            with self.ticker(HEARTBEAT_SECONDS, lambda: self._tell(view(None))):
                yield

    def leave_live(self) -> bool:
        """Let what is live stay above what comes, for a signal handler; return if anything is."""
        return self._screen.leave()

    def _tell(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.info(line)

    def _interruptible(self, advance: Advance) -> Advance:
        def report(amount: int) -> None:
            advance(amount)
            if self.interrupt is not None:
                self.interrupt()

        return report

    def _plain_progress(self, label: str, total: int | None, of: str) -> Advance:
        done, last = 0, self.clock()

        def advance(amount: int) -> None:
            nonlocal done, last
            with self._lock:
                done += amount
                so_far, now = done, self.clock()
                due = now - last >= PLAIN_SECONDS
                last = now if due else last
            if due:
                self.info(f"{label}: {_share(so_far, total, of)}")

        return advance

    def _line(self, text: str, *, kind: str = "", is_wrapped: bool = True) -> None:
        shown = inert(text) if self.mode is Mode.GITHUB else clean(text)
        # A log is for grep, and read at other widths.
        is_wrapped &= self.mode is Mode.TERMINAL
        width = terminal_size(self.stream)[0] if is_wrapped else None
        # Cleaned first: what a guest prints colours nothing. A workflow command must begin its
        # line, and GitHub's log has a time of its own for each line: see ``Invocation``.
        lines = [
            self.paint(line, kind) if kind else line for line in wrapped(shown, width, indent="  ")
        ]
        lines = [f"{self.moment()} {line}" if self.moment else line for line in lines]
        self._screen.write("\n".join(lines))


def _share(done: int, total: int | None, of: str) -> str:
    """Return how much is done of bytes, or of what else is counted: ``3 of 12 MiB (25 %)``."""
    unit, each = (of, 1) if of else ("MiB", 2**20)
    if not total:
        return f"{done / each:.0f} {unit}"
    return f"{done / each:.0f} of {total / each:.0f} {unit} ({100 * done // total} %)"


def _data(text: str) -> str:
    # The runner's own escapes for the text of a workflow command.
    kept = "\n".join(clean(line) for line in text.splitlines())
    return kept.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _bar(label: str, meter: Meter, width: int) -> str:
    """Return a label and how far the work is; the label gives way where there is little room."""
    full = f"{meter.amount('/')} {meter.rate} {meter.unit}/s"
    short = meter.share or meter.amount("/")
    facts = full if len(label) + 1 + len(full) <= width else short
    return f"{clipped(label, width - len(facts) - 1)} {facts}"
