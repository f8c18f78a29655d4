"""What a failed boot or test means, with a quarantine and without."""

from datetime import date

import pytest

from lago_images.building.boot import verdict
from lago_images.building.boot.spec_tests import FailedTestsError
from lago_images.errors import BootError
from lago_images.repository.records.guest_tests import GuestTestRecord
from lago_images.specs.quarantine import NONE, Quarantine, QuarantineEntry

ISSUE = "https://example.org/1"
TODAY = date(2026, 12, 1)
GOOD = GuestTestRecord(name="a.test", exit_code=0, seconds=2)
BAD = GuestTestRecord(name="a.tests/nfs", exit_code=1, seconds=3, output="one\ntwo")
LATE = GuestTestRecord(name="a.tests/late", problem="it took longer than 5 s", output="three")


def holding(until=date(2026, 12, 31), **patterns):
    return Quarantine(entries=(QuarantineEntry(issue=ISSUE, until=until, **patterns),))


def test_tests_that_pass_hold_nothing_back():
    assert verdict.of_tests([GOOD], "a", NONE, TODAY) == ()


def test_every_test_that_failed_is_named_with_the_output_of_the_first():
    with pytest.raises(FailedTestsError) as caught:
        verdict.of_tests([GOOD, BAD, LATE], "a", NONE, TODAY)
    assert caught.value.message == (
        "tests failed: a.tests/nfs: exit 1 after 3 s; a.tests/late: it took longer than 5 s"
    )
    assert caught.value.tail == ("one", "two")
    assert caught.value.records == (GOOD, BAD, LATE)


def test_a_quarantined_test_is_no_failure_and_the_others_are():
    held = holding(test="*/nfs")
    [failure] = verdict.of_tests([GOOD, BAD], "a", held, TODAY)
    assert str(failure) == (
        f"a.tests/nfs: exit 1 after 3 s (quarantined until 2026-12-31: {ISSUE})"
    )
    with pytest.raises(FailedTestsError, match=r"^tests failed: a.tests/late: it took longer"):
        verdict.of_tests([BAD, LATE], "a", held, TODAY)
    with pytest.raises(FailedTestsError):
        verdict.of_tests([BAD], "a", holding(test="*/nfs", image="b"), TODAY)


def test_past_its_day_it_fails_and_says_that_it_was_quarantined():
    held = holding(test="*/nfs", until=date(2026, 11, 30))
    with pytest.raises(FailedTestsError, match=r"its quarantine ended on 2026-11-30: https://exa"):
        verdict.of_tests([BAD], "a", held, TODAY)


def test_a_boot_is_held_back_by_an_entry_of_its_image_alone():
    error = BootError("boot test: the guest gave up")
    failure = verdict.of_boot(error, "a", holding(image="a"), TODAY)
    assert failure is not None
    assert (failure.what, failure.problem) == ("boot test", error.message)
    assert verdict.of_boot(error, "a", holding(image="a", test="*"), TODAY) is None
    assert verdict.of_boot(error, "b", holding(image="a"), TODAY) is None
    assert verdict.of_boot(error, "a", holding(image="a"), date(2027, 1, 1)) is None


def test_the_end_of_a_quarantine_is_told_in_its_last_week():
    held = holding(test="*/nfs")
    failures = verdict.of_tests([BAD], "a", held, TODAY)
    [line] = verdict.warnings(failures, "a", held, TODAY)
    assert line == str(failures[0])
    [line] = verdict.warnings(failures, "a", held, date(2026, 12, 30))
    assert line.endswith("ends tomorrow, on 2026-12-31: what it holds back will fail images again")
