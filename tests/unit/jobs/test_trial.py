"""What ``lago-images run`` starts."""

from dataclasses import replace

import pytest

from lago_images.building.boot.machines import machine_for, refuse_missing_firmware
from lago_images.errors import ToolMissingError
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


def test_firmware_that_is_not_installed_is_named_with_its_package(tmp_path):
    machine = replace(machine_for("x86_64", "uefi"), files=(str(tmp_path / "OVMF.fd"),))
    with pytest.raises(ToolMissingError, match=r"OVMF\.fd is missing") as refused:
        refuse_missing_firmware(machine)
    assert refused.value.hint == "apt-get install qemu-system-x86 ovmf"
