"""Try again what failed: the number of attempts and the pauses between them."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from lago_images.errors import Error

Answer = TypeVar("Answer")

# The attempt whose failure is reported: the other side has been away for some seconds.
_REPORTED = 6
# Longer numbers are no waiting time, and int() refuses the longest.
_MOST_DIGITS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """RetryPolicy sets attempts and the pauses between them: exponential, with jitter.

    Attributes:
        attempts: How often something is tried in all.
        first: How often it is tried while the other side has never answered: a wrong address
            should be reported soon.
        delay: Seconds before the second attempt.
        factor: How much longer each further pause is than the one before.
        longest: No pause is longer, in seconds, but for one that the other side asks for.
        longest_asked: No pause that the other side asks for is longer, in seconds.
        jitter: The share of a pause that chance decides on: 0 for none, 1 for all of it.
        sleep: Waits that many seconds; what it raises ends the waiting.
        chance: Returns a number in [0, 1).
        tell: Called with what has failed several times, once for each request.
    """

    attempts: int = 8
    first: int = 3
    delay: float = 0.2
    factor: float = 2.0
    longest: float = 10.0
    longest_asked: float = 60.0
    # Never less than half a pause: jitter must not undo the back-off.
    jitter: float = 0.5
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    tell: Callable[[str], None] = lambda _text: None

    def wait(self, attempt: int, failure: str = "", *, asked: float = 0.0) -> None:
        """Pause after a failed attempt.

        Args:
            attempt: Its number, counted from 1.
            failure: What went wrong, for ``tell``.
            asked: The seconds that the other side asks to wait (Retry-After).
        """
        if attempt == _REPORTED:
            self.tell(f"{failure}: trying again for some minutes")
        most = min(self.longest, self.delay * self.factor ** (attempt - 1))
        pause = most * (1 - self.jitter + self.jitter * self.chance())
        self.sleep(max(pause, min(asked, self.longest_asked)))

    def call(
        self, function: Callable[[], Answer], again: Callable[[Error], float | None]
    ) -> Answer:
        """Call until it succeeds, or fails as often as may be; returns what it returns.

        ``again`` is asked of a failure while attempts are left: how many seconds must pass at
        least before another one makes sense, None when none does. Raises the last failure.
        """
        attempt = 1
        while True:
            try:
                return function()
            except Error as error:
                asked = None if attempt >= self.attempts else again(error)
                if asked is None:
                    raise
                self.wait(attempt, error.message, asked=asked)
            attempt += 1


def asked_pause(headers: Mapping[str, str]) -> float:
    """Return the seconds of an HTTP answer's ``Retry-After``; 0 where it has none.

    A moment counts from the answer's own ``Date``, so no two clocks are compared. The names in
    ``headers`` are in lower case, or the mapping knows no case.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:_MOST_DIGITS])
    # Else it is an HTTP date (RFC 9110, 10.2.3).
    try:
        pause = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return 0.0
    return max(0.0, pause.total_seconds())
