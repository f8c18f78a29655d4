"""What ``lago-images run`` starts."""

from dataclasses import replace

import pytest

from lago_images.jobs.trial import tested_firmware as firmware_of
from tests.support.builders import manifest


def booted_with(firmware):
    made = manifest("one")
    return replace(made, boot=replace(made.boot, firmware=firmware))


@pytest.mark.parametrize(
    ("firmware", "started"),
    [({"uefi": 5.0, "bios": 4.0}, "bios"), ({"uefi": 5.0}, "uefi"), ({}, "")],
)
def test_an_image_is_started_with_a_firmware_that_it_was_tested_with(firmware, started):
    assert firmware_of(booted_with(firmware)) == started
