"""Report the phases of an image's build on the console, in its log and in its row of the board."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lago_images.building.board import Row
from lago_images.building.model import Phase, PhaseTime
from lago_images.console import Console, Mode

_WORTH_SHOWING = 1.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """The phases of one image's build, of which three may be under way at once.

    ``step`` is the one that began last, or that failed first.
    """

    name: str
    console: Console
    clock: Callable[[], float]
    log: Path
    row: Row
    step: str = ""
    times: list[PhaseTime] = field(default_factory=list)
    _has_failed: bool = False

    @contextmanager
    def doing(self, step: str, phase: Phase) -> Generator[None]:
        """Report a step of a phase, with its duration when it ends well."""
        if not self._has_failed:
            self.step = step
        start_time = self.clock()
        self._tell(f"{self.name}: {step}")
        self.note(f"== {step}")
        try:
            with self.row.under_way(phase):
                yield
        except BaseException:
            if not self._has_failed:
                self.step, self._has_failed = step, True
            raise
        finally:
            seconds = self.clock() - start_time
            self.times.append(PhaseTime(phase=phase, start_time=start_time, seconds=seconds))
        self.note(f"== done in {seconds:.1f} s")
        if seconds >= _WORTH_SHOWING:
            self._tell(f"{self.name}: {step}: done in {seconds:.1f} s")

    def _tell(self, text: str) -> None:
        # On a terminal the row has it.
        if self.console.mode is Mode.TERMINAL:
            self.console.detail(text)
        else:
            self.console.info(text)

    def note(self, text: str) -> None:
        """Add lines to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(text.rstrip("\n") + "\n")
