"""How long a failing store is waited for."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

# The failure that is told of: the store has been away for some seconds.
_TOLD = 6


def _tell_nobody(_text: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Attempts and the pauses between them: exponential, with full jitter.

    Attributes:
        attempts: How often a request is tried in all.
        first: How often one is tried while the store has never answered: a wrong endpoint should
            be told soon.
        pause: Seconds before the second attempt; each further one is twice as long.
        longest: No pause is longer, in seconds.
        sleep: Waits that many seconds; what it raises ends the waiting.
        chance: A number in [0, 1).
        tell: Told of a store that has failed several times, once for each request.
    """

    attempts: int = 8
    first: int = 3
    pause: float = 0.2
    longest: float = 10.0
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    tell: Callable[[str], None] = _tell_nobody

    def wait(self, attempt: int, failure: str) -> None:
        """Pause after the attempt of that number, counted from 1, which failed so."""
        if attempt == _TOLD:
            self.tell(f"{failure}: trying again for some minutes")
        most = min(self.longest, self.pause * 2 ** (attempt - 1))
        # Never less than half: jitter must not undo the back-off.
        self.sleep(most * (1 + self.chance()) / 2)
