"""What is being done for an image, told as it begins and ends."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from lago_images.console import Console


@dataclass(slots=True, kw_only=True)
class Progress:
    """The steps of one image's build; ``step`` is the one that is, or was last, under way."""

    name: str
    console: Console
    clock: Callable[[], float]
    step: str = ""

    @contextmanager
    def doing(self, step: str) -> Generator[None]:
        """One step, with its duration when it ends well."""
        self.step = step
        begun = self.clock()
        self.console.info(f"{self.name}: {step}")
        yield
        self.console.info(f"{self.name}: {step}: done in {self.clock() - begun:.1f} s")
