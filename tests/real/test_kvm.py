"""The proof of KVM, with the real QEMU."""

import os
import re
from pathlib import Path

import pytest

from lago_images.errors import HostError
from lago_images.host import kvm
from lago_images.host.process import Runner
from tests.tools import need

pytestmark = pytest.mark.real


def test_kvm_is_proven_by_a_firmware_that_ends_qemu():
    need("qemu-system-x86_64")
    assert kvm._run(Runner(), kvm._X86, "tcg") == ""


def test_the_arm_firmware_ends_qemu():
    need("qemu-system-aarch64")
    assert kvm._run(Runner(), kvm._ARM, "tcg") == ""


def test_a_firmware_that_hangs_is_no_proof(tmp_path):
    from dataclasses import replace

    need("qemu-system-x86_64")
    # jmp to itself: what a kernel does on a KVM that is broken.
    stuck = replace(kvm._X86, firmware=b"\xeb\xfe".ljust(0xFFF0) + kvm._X86.firmware[-16:])
    assert "3 s" in kvm._run(Runner(), stuck, "tcg")


def test_the_decision_for_this_host_has_a_reason():
    need("qemu-system-x86_64")
    accel = kvm.detect(Runner())
    assert accel.kvm or accel.why
    if accel.kvm:
        kvm.demand(accel)
    else:
        with pytest.raises(HostError, match=re.escape(accel.why)) as caught:
            kvm.demand(accel)
        assert caught.value.hint


def test_a_missing_kvm_device_is_reported(tmp_path):
    accel = kvm.detect(Runner(), device=tmp_path / "kvm")
    assert not accel.kvm
    assert "missing" in accel.why
    assert "firmware" in kvm.hint(accel)


def test_a_kvm_device_without_permission_is_reported():
    accel = kvm.Acceleration(name="tcg", why="/dev/kvm may not be opened by this user")
    assert kvm.UDEV_RULE in kvm.hint(accel)


def test_a_host_without_qemu_has_no_kvm(tmp_path):
    accel = kvm.detect(
        Runner(environ={"PATH": str(tmp_path)}), device=Path(os.devnull), machine="x86_64"
    )
    assert "not installed" in accel.why
    assert "apt-get" in kvm.hint(accel)


def test_what_a_qemu_that_crashes_leaves_is_not_left_among_the_specs(tmp_path, monkeypatch):
    specs, programs = tmp_path / "specs", tmp_path / "bin"
    specs.mkdir()
    programs.mkdir()
    monkeypatch.chdir(specs)
    qemu = programs / "qemu-system-x86_64"
    qemu.write_text("#!/bin/sh\necho memory >core\nkill -ABRT $$\n")
    qemu.chmod(0o755)
    accel = kvm.detect(
        Runner(environ={"PATH": f"{programs}:/usr/bin:/bin"}),
        device=Path(os.devnull),
        machine="x86_64",
    )
    assert not accel.kvm
    assert list(specs.iterdir()) == []


def test_kvm_is_not_used_for_another_architecture():
    accel = kvm.detect(Runner(), machine="s390x")
    assert not accel.kvm
    assert "s390x" in accel.why
