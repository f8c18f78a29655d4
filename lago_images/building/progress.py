"""Report the steps of an image's build on the console and in its log."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lago_images.console import Console

_WORTH_SHOWING = 1.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """The steps of one image's build, of which two may be under way at once.

    ``step`` is the one that began last, or that failed first.
    """

    name: str
    console: Console
    clock: Callable[[], float]
    log: Path
    step: str = ""
    _has_failed: bool = False

    @contextmanager
    def doing(self, step: str) -> Generator[None]:
        """Report a step, with its duration when it ends well."""
        if not self._has_failed:
            self.step = step
        start_time = self.clock()
        self.console.info(f"{self.name}: {step}")
        self.note(f"== {step}")
        try:
            yield
        except BaseException:
            if not self._has_failed:
                self.step, self._has_failed = step, True
            raise
        seconds = self.clock() - start_time
        self.note(f"== done in {seconds:.1f} s")
        if seconds >= _WORTH_SHOWING:
            self.console.info(f"{self.name}: {step}: done in {seconds:.1f} s")

    def note(self, text: str) -> None:
        """Add lines to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(text.rstrip("\n") + "\n")
