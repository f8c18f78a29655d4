"""Report the steps of an image's build on the console and in its log."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lago_images.console import Console

_WORTH_SHOWING = 1.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """The steps of one image's build; ``step`` is the one that is, or was last, under way."""

    name: str
    console: Console
    clock: Callable[[], float]
    log: Path
    step: str = ""

    @contextmanager
    def doing(self, step: str) -> Generator[None]:
        """Report a step, with its duration when it ends well."""
        self.step = step
        start_time = self.clock()
        self.console.info(f"{self.name}: {step}")
        self.note(f"== {step}")
        yield
        seconds = self.clock() - start_time
        self.note(f"== done in {seconds:.1f} s")
        if seconds >= _WORTH_SHOWING:
            self.console.info(f"{self.name}: {step}: done in {seconds:.1f} s")

    def note(self, text: str) -> None:
        """Add lines to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(text.rstrip("\n") + "\n")
