"""Show a run's images at work: a line each, at any width."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from lago_images.building.model import Phase
from lago_images.console import Advance, clipped
from lago_images.meter import Meter, minutes

# As few letters of a name say which image it is.
_LEAST_NAME = 8
# To as few a name gives way before the rate or the bytes do.
_SHORT_NAME = 24


@dataclass(slots=True, kw_only=True)
class Row:
    """An image at work.

    Attributes:
        number: Such as ``3 of 12``: of the images of the run, in the order in which they began.
        expected: Seconds that its published build took; None without one.
        clock: Seconds.
        start_time: When it began, by that clock.
    """

    name: str
    number: str
    expected: float | None
    clock: Callable[[], float]
    start_time: float
    phases: list[Phase] = field(default_factory=list)
    meter: Meter | None = None
    metered: Phase | None = None

    @contextmanager
    def under_way(self, phase: Phase) -> Iterator[None]:
        """Show a phase while the block lasts."""
        self.phases.append(phase)
        try:
            yield
        finally:
            self.phases.remove(phase)
            if self.metered is phase:
                self.meter = self.metered = None

    def measure(self, total: int | None) -> Advance:
        """Show bytes of a total, which the phase beside the boot test moves."""
        beside = (Phase.BOOT, Phase.ALSO)
        self.metered = next((each for each in self.phases if each not in beside), None)
        self.meter = Meter(clock=self.clock, total=total)
        return self.meter.advance


class Board:
    """The rows of a run of ``count`` images; ``clock`` returns seconds."""

    def __init__(self, count: int, clock: Callable[[], float]) -> None:
        self._count = count
        self._clock = clock
        self._began = 0
        self._rows: list[Row] = []
        self._lock = Lock()

    @contextmanager
    def row(self, name: str, expected: float | None) -> Iterator[Row]:
        """Show an image while the block lasts."""
        with self._lock:
            self._began += 1
            row = Row(
                name=name,
                number=f"{self._began} of {self._count}",
                expected=expected,
                clock=self._clock,
                start_time=self._clock(),
            )
            self._rows.append(row)
        try:
            yield row
        finally:
            with self._lock:
                self._rows.remove(row)

    def skip(self) -> None:
        """Count an image that is not tried."""
        with self._lock:
            self._began += 1

    def lines(self, width: int | None) -> list[str]:
        """Return a line for each image at work, all in one form; None for a log's."""
        with self._lock:
            rows = list(self._rows)
        if width is None:
            return [_sentence(row) for row in rows]
        number = max((len(row.number) for row in rows), default=0)
        whole = max((len(row.name) for row in rows), default=0)
        for form, least in _FORMS:
            facts = [" ".join(form(row)) for row in rows]
            name = min(whole, width - number - max(map(len, facts), default=0) - 2)
            if name >= min(whole, least):
                return [
                    f"{row.number:>{number}} {clipped(row.name, name):{name}} {each}"
                    for row, each in zip(rows, facts, strict=True)
                ]
        return [_narrow(row, width) for row in rows]


def _sentence(row: Row) -> str:
    return f"{row.number} {row.name}: {', '.join(_spelled_facts(row))}"


def _spelled_facts(row: Row) -> list[str]:
    parts = [_phases(row), _time(row, " of about ")]
    # Read once: whoever ends the phase takes it away.
    if meter := row.meter:
        parts += [meter.amount(" of "), f"{meter.rate} {meter.unit}/s"]
    return parts


def _spelled(row: Row) -> list[str]:
    phases, time, *facts = _spelled_facts(row)
    return [phases, time, ", ".join(facts)] if facts else [phases, time]


def _all_phases(row: Row) -> list[str]:
    return [_phases(row), _time(row), *_facts(row, has_rate=True)]


def _metered_phase(row: Row) -> list[str]:
    return [row.metered or _phases(row), _time(row), *_facts(row, has_rate=True)]


def _no_rate(row: Row) -> list[str]:
    return [row.metered or _phases(row), _time(row), *_facts(row, has_rate=False)]


def _no_bytes(row: Row) -> list[str]:
    return [_phases(row), _time(row)]


def _facts(row: Row, *, has_rate: bool) -> list[str]:
    meter = row.meter
    if meter is None:
        return []
    return [meter.amount("/"), *([f"{meter.rate}/s"] if has_rate else [])]


# Of what there is room for, the first: with names of at least so many letters, or whole ones.
_FORMS: Sequence[tuple[Callable[[Row], list[str]], float]] = (
    (_spelled, math.inf),
    (_all_phases, math.inf),
    (_metered_phase, _SHORT_NAME),
    (_no_rate, _SHORT_NAME),
    (_no_bytes, _SHORT_NAME),
)


def _narrow(row: Row, width: int) -> str:
    """Return a row whose name gives way; of two phases the one that bytes are counted of stays."""
    facts = f"{row.metered or _phases(row)} {_time(row)}"
    if width - len(row.number) - len(facts) - 2 < _LEAST_NAME:
        facts = _time(row)
    return f"{row.number} {clipped(row.name, width - len(row.number) - len(facts) - 2)} {facts}"


def _phases(row: Row) -> str:
    return "+".join(sorted(set(row.phases))) or "waiting"


def _time(row: Row, between: str = "/") -> str:
    expected = "" if row.expected is None else f"{between}{minutes(row.expected)}"
    return minutes(row.clock() - row.start_time) + expected
