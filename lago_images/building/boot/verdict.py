"""Decide what a failure of a boot or a test means: a failed image, or a warning for now. Pure."""

from collections.abc import Iterator, Sequence
from datetime import date

from lago_images.building.boot.spec_tests import FailedTestsError
from lago_images.errors import BootError
from lago_images.repository.records.guest_tests import BOOT, GuestTestRecord, QuarantinedFailure
from lago_images.specs.quarantine import Quarantine, QuarantineEntry, ending

_TAIL = 20
# Characters of a record's text that a guest has a part in.
_LONGEST = 2000


def of_tests(
    records: Sequence[GuestTestRecord], image: str, quarantine: Quarantine, today: date
) -> tuple[QuarantinedFailure, ...]:
    """Return the failures of an image's tests, if all of them are held back.

    Raises:
        FailedTestsError: Some are not; with the last lines of the first of those.
    """
    held, failed = [], []
    for record in records:
        if record.has_passed:
            continue
        if entry := quarantine.holding(image, record.name, today):
            held.append(_held(record.name, str(record), entry))
        else:
            failed.append(record)
    if failed:
        told = [f"{each.name}: {each}{_lately(quarantine, image, each, today)}" for each in failed]
        tail = failed[0].output.splitlines()[-_TAIL:]
        raise FailedTestsError(f"tests failed: {'; '.join(told)}", records, tail=tail)
    return tuple(held)


def of_boot(
    error: BootError, image: str, quarantine: Quarantine, today: date
) -> QuarantinedFailure | None:
    """Return a boot test's failure, if it is held back."""
    entry = quarantine.holding(image, None, today)
    return _held(BOOT, error.message, entry) if entry else None


def warnings(
    held: Sequence[QuarantinedFailure], image: str, quarantine: Quarantine, today: date
) -> Iterator[str]:
    """Yield a line for each failure that is held back, which says so if that ends soon."""
    for failure in held:
        test = None if failure.what == BOOT else failure.what
        entry = quarantine.holding(image, test, today)
        end = ending(entry.until, today) if entry else ""
        yield f"{failure}" + (f"; the quarantine {end}" if end else "")


def _held(what: str, problem: str, entry: QuarantineEntry) -> QuarantinedFailure:
    until = entry.until.isoformat()
    return QuarantinedFailure(what=what, problem=problem[:_LONGEST], issue=entry.issue, until=until)


def _lately(quarantine: Quarantine, image: str, record: GuestTestRecord, today: date) -> str:
    ended = quarantine.ended(image, record.name, today)
    return f" (its quarantine ended on {ended.until}: {ended.issue})" if ended else ""
