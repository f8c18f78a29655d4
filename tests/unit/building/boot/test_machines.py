"""The machines of boot tests: an architecture's, with a kind of firmware."""

import pytest

from lago_images.building.boot.machines import accelerator, machine_for, processor
from lago_images.errors import BootError
from lago_images.host.kvm import Acceleration


def test_an_architecture_has_a_usual_firmware():
    assert machine_for("x86_64").firmware == "bios"
    assert machine_for("aarch64").firmware == "uefi"


def test_uefi_has_secure_boot_and_names_what_it_needs():
    machine = machine_for("x86_64", "uefi")
    options = " ".join(machine.options)
    assert "smm=on" in options
    assert "property=secure,value=on" in options
    assert all(file in options for file in machine.files)
    assert "ovmf" in machine.package


def test_kvm_has_the_hosts_processor_whatever_is_emulated_without():
    arm = machine_for("aarch64")
    assert processor(arm, "kvm") == processor(machine_for("x86_64"), "tcg") == "max"
    assert processor(arm, "tcg").startswith("max,")


def test_kvm_runs_no_machine_of_another_architecture(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    has_kvm, lacks_kvm = Acceleration(name="kvm"), Acceleration(name="tcg")
    assert accelerator(machine_for("aarch64"), has_kvm) == "kvm"
    assert accelerator(machine_for("aarch64"), lacks_kvm) == "tcg"
    assert accelerator(machine_for("x86_64"), has_kvm) == "tcg"


@pytest.mark.parametrize(("arch", "firmware"), [("aarch64", "bios"), ("i686", "uefi")])
def test_a_firmware_that_an_architecture_lacks(arch, firmware):
    with pytest.raises(BootError, match=f"no machine for {arch} has the firmware '{firmware}'"):
        machine_for(arch, firmware)
