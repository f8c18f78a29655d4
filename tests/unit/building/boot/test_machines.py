"""The machines of boot tests: an architecture's, with a kind of firmware."""

from dataclasses import replace

import pytest

from lago_images.building.boot.machines import accelerator, machine_for, processor, refuse_missing
from lago_images.errors import BootError, ToolMissingError
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


def test_what_a_machine_lacks_here_is_named_with_its_package(tmp_path):
    emulator = tmp_path / "qemu-system-x86_64"
    firmware = tmp_path / "OVMF.fd"
    machine = replace(machine_for("x86_64", "uefi"), files=(str(firmware),))
    environ = {"PATH": str(tmp_path)}
    with pytest.raises(ToolMissingError, match="qemu-system-x86_64 is not installed") as refused:
        refuse_missing(machine, environ)
    assert refused.value.hint == "apt-get install qemu-system-x86 ovmf"
    emulator.touch(0o755)
    with pytest.raises(ToolMissingError, match=r"OVMF\.fd is missing") as refused:
        refuse_missing(machine, environ)
    assert refused.value.hint == "apt-get install qemu-system-x86 ovmf"
    firmware.touch()
    refuse_missing(machine, environ)
