"""Measure how far work is: bytes, their rate, and time, in units that stay the same."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

_MIB, _GIB = 2**20, 2**30
# From this size on bytes are counted in GiB.
_LARGE = 10 * _GIB
# The rate is that of the last seconds: a store that has become slow shows.
_SAMPLES = 10


@dataclass(slots=True, kw_only=True)
class Meter:
    """Count bytes as they are done; safe from several threads.

    Attributes:
        clock: Seconds.
        total: Bytes in all; None where that is not known.
    """

    clock: Callable[[], float]
    total: int | None
    _done: int = 0
    _samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._samples.append((self.clock(), 0))

    def advance(self, amount: int) -> None:
        """Count so many bytes more."""
        with self._lock:
            self._done += amount
            now = self.clock()
            if now - self._samples[-1][0] >= 1:
                self._samples.append((now, self._done))

    def amount(self, between: str) -> str:
        """Return what is done of the total, such as ``105/421 MiB``; ``between`` is the ``/``."""
        unit, digits, name = self._unit
        total = f"{between}{self.total / unit:.{digits}f}" if self.total else ""
        return f"{self._done / unit:.{digits}f}{total} {name}"

    @property
    def rate(self) -> str:
        """Return what is done in a second, in the unit of ``amount`` and without it."""
        unit, digits, _ = self._unit
        with self._lock:
            then, before = self._samples[0]
            seconds = self.clock() - then
            done = self._done - before
        return f"{done / seconds / unit:.{digits}f}" if seconds >= 1 else "0"

    @property
    def share(self) -> str:
        """Return the percentage that is done; empty where the total is not known."""
        return f"{100 * self._done // self.total} %" if self.total else ""

    @property
    def unit(self) -> str:
        return self._unit[2]

    @property
    def _unit(self) -> tuple[int, int, str]:
        size = self.total or self._done
        return (_GIB, 2, "GiB") if size >= _LARGE else (_MIB, 0, "MiB")


def minutes(seconds: float) -> str:
    """Return a duration as ``1:23``, or ``1:02:03`` from an hour on."""
    total_minutes, rest = divmod(int(seconds), 60)
    hours, left = divmod(total_minutes, 60)
    return f"{hours}:{left:02}:{rest:02}" if hours else f"{left}:{rest:02}"
