"""Define the records of a spec's own tests, and of failures that are held back for a while."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from lago_images.repository.records.parsing import Seconds, Text, matching

# What a failure is of that is not of one test.
BOOT = "boot test"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestTestRecord:
    """Record how a test of a spec's own ended.

    Attributes:
        name: Its path below the specs' folder: ``NAME.test`` or ``NAME.tests/FILE``.
        seconds: For which it ran.
        exit_code: As a shell has it, 128 and the signal's number included; None where it has none:
            it was not run, or was ended.
        output: The last of what it printed, as lines without control characters.
        problem: Why it has no exit code, or has not passed for all that it has 0; else empty.
    """

    name: Text
    seconds: Seconds = 0.0
    exit_code: int | None = None
    output: Text = ""
    problem: Text = ""

    @property
    def has_passed(self) -> bool:
        return self.exit_code == 0 and not self.problem

    def __str__(self) -> str:
        """Return in few words how it ended."""
        if self.has_passed:
            return f"passed in {self.seconds:.0f} s"
        return self.problem or f"exit {self.exit_code} after {self.seconds:.0f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedFailure:
    """Record a failure that a quarantine held back, so that the image was released all the same.

    Attributes:
        what: The test's name, or ``boot test``.
        problem: How it failed.
        issue: The URL of what is being done about it.
        until: The last day that the quarantine holds, as ``2026-12-31``.
    """

    what: Text
    problem: Text
    issue: Text
    until: Annotated[str, matching("[0-9]{4}-[0-9]{2}-[0-9]{2}", "a date such as 2026-12-31")]

    def __str__(self) -> str:
        """Return what failed, how, and until when that is held back."""
        return f"{self.what}: {self.problem} (quarantined until {self.until}: {self.issue})"


def tally(tests: Sequence[GuestTestRecord], held: Iterable[QuarantinedFailure] = ()) -> str:
    """Return how many tests passed, failed, and failed but were held back; empty for no tests."""
    quarantined = {failure.what for failure in held}
    failures = [test.name in quarantined for test in tests if not test.has_passed]
    counts = {
        "passed": len(tests) - len(failures),
        "failed": failures.count(False),
        "quarantined": failures.count(True),
    }
    told = ", ".join(f"{count} {how}" for how, count in counts.items() if count)
    return f"tests: {told}" if told else ""
