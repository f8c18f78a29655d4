"""What is recorded of the boots of one disk."""

import pytest

from lago_images.building.boot.boot_test import Booted, refuse_shared_identity
from lago_images.building.boot.inspection import NOBODY, Identity
from lago_images.building.gate import together
from lago_images.errors import BootError
from lago_images.repository.records.manifest import BootTest

ONE, OTHER = (Identity(machine_id=name, host_keys=frozenset({name})) for name in "ab")


def booted(firmware, seconds, *, identity=NOBODY, checks=("console",), again=None):
    test = BootTest(
        seconds=seconds, accel="tcg", firmware={firmware: seconds}, again=again, checks=checks
    )
    return Booted(test=test, identity=identity)


def test_the_record_has_every_firmware_and_all_that_was_judged():
    first = booted("bios", 20.0, identity=ONE, checks=("console", "second boot"), again=15.0)
    record = together([first, booted("uefi", 30.0, identity=OTHER, checks=("console", "units"))])
    assert record.firmware == {"bios": 20.0, "uefi": 30.0}
    assert (record.seconds, record.again) == (30.0, 15.0)
    assert record.checks == ("console", "second boot", "units", "clones")


@pytest.mark.parametrize(("first", "other"), [(NOBODY, NOBODY), (ONE, NOBODY)])
def test_machines_that_told_nothing_of_themselves_were_not_compared(first, other):
    record = together([booted("bios", 1, identity=first), booted("uefi", 2, identity=other)])
    assert record.checks == ("console",)


def test_two_machines_under_one_firmware_are_compared_and_the_first_is_recorded():
    first, other = booted("bios", 20.0, identity=ONE), booted("bios", 30.0, identity=OTHER)
    record = together([first, other])
    assert (record.firmware, record.seconds) == ({"bios": 20.0}, 30.0)
    assert record.checks == ("console", "clones")


def test_one_boot_has_no_clone():
    assert together([booted("bios", 1, identity=ONE)]).checks == ("console",)


def test_machines_that_pass_for_one_are_refused():
    refuse_shared_identity(booted("bios", 1, identity=ONE), booted("uefi", 1, identity=OTHER))
    with pytest.raises(BootError, match=r"clones: .* the same machine id; clones: .* host keys"):
        refuse_shared_identity(booted("bios", 1, identity=ONE), booted("uefi", 1, identity=ONE))
