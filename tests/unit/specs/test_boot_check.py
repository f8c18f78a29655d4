"""What a spec says of its boot test."""

import pytest

from lago_images.specs.boot_check import NO_REASON, BootCheck, boot_check, is_boot_check
from lago_images.specs.properties import value_problem


@pytest.mark.parametrize(
    ("value", "check"),
    [
        (None, BootCheck()),
        ("yes", BootCheck()),
        ("no: no agent in CirrOS", BootCheck(is_off=True, reason="no agent in CirrOS")),
        ("no:short", BootCheck(is_off=True, reason="short")),
        ("console: login:", BootCheck(pattern="login:")),
        ("console:a.*b", BootCheck(pattern="a.*b")),
    ],
)
def test_a_spec_says_how_its_image_is_judged(value, check):
    assert boot_check({} if value is None else {"boot-test": value}) == check
    assert value is None or is_boot_check(value)


def test_the_agent_is_asked_unless_something_else_is_said():
    assert boot_check({}).has_agent
    assert not boot_check({"boot-test": "console:login:"}).has_agent
    assert not boot_check({"boot-test": "no: why not"}).has_agent


def test_a_record_of_an_older_spec_may_say_no_without_a_reason():
    assert boot_check({"boot-test": "no"}) == BootCheck(is_off=True)


@pytest.mark.parametrize("value", ["no", "no:", "no: "])
def test_no_boot_test_needs_a_reason(value):
    assert value_problem("boot-test", value) == NO_REASON


@pytest.mark.parametrize("value", ["", "maybe", "console", "console:", "yes: sure", "No: x"])
def test_other_values_are_refused_with_what_may_stand_there(value):
    found = value_problem("boot-test", value)
    assert found is not None
    assert "must be yes, no: REASON, or console:TEXT" in found
