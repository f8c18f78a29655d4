"""What doctor finds on machines that are made for it."""

import os

import pytest

from lago_images.building.boot.machines import machine_for
from lago_images.host import doctor
from lago_images.host.doctor import State
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner


def test_missing_programs_come_with_one_install_command(tmp_path, monkeypatch):
    monkeypatch.setattr("lago_images.host.process._ADMIN", ())
    check = doctor._tools({"PATH": str(tmp_path)})
    assert check.state is State.MISSING
    assert "qemu-img (disk images)" in check.found
    assert check.do.count("guestfs-tools") == 1
    assert check.do.startswith("as root: apt-get install ")


@pytest.mark.parametrize(
    ("program", "package", "cost"),
    [("7zz", "7zip", "liblzma"), ("ssh", "openssh-client", "by its file in the guest")],
)
def test_a_missing_optional_tool_is_a_warning_with_its_cost(
    tmp_path, monkeypatch, program, package, cost
):
    monkeypatch.setattr("lago_images.host.process._ADMIN", ())
    environ = {"PATH": str(tmp_path)}
    checks = {check.name: check for check in doctor._optional_tools(environ)}
    check = checks.pop(program)
    assert check.state is State.WARNING
    assert cost in check.found
    assert check.do == f"as root: apt-get install {package}"
    assert program not in doctor._tools(environ).found
    (tmp_path / program).touch(mode=0o755)
    assert [each.name for each in doctor._optional_tools(environ)] == list(checks)


def test_no_kvm_is_a_warning_unless_it_is_required():
    none = Acceleration(name="tcg", why="/dev/kvm is missing")
    assert doctor._kvm(none, require_kvm=False).state is State.WARNING
    assert doctor._kvm(none, require_kvm=True).state is State.MISSING
    assert doctor._kvm(Acceleration(name="kvm"), require_kvm=True).state is State.OK


def test_a_missing_or_unreadable_kernel_is_reported(tmp_path, monkeypatch):
    (tmp_path / "boot").mkdir()
    assert "linux-image" in doctor._kernel(tmp_path).do
    (tmp_path / "boot/vmlinuz-6").touch()
    assert doctor._kernel(tmp_path).state is State.OK
    # Root reads everything, so the answer of the system for a user is put in its place.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "chmod 0644" in doctor._kernel(tmp_path).do


def test_uefi_firmware_must_be_there_with_its_keys(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    [check] = doctor._firmware(tmp_path)
    assert check.state is State.MISSING
    assert check.do == "as root: apt-get install ovmf"
    folder = tmp_path / "usr/share/OVMF"
    folder.mkdir(parents=True)
    machine = machine_for("x86_64", "uefi")
    for file in machine.files:
        (tmp_path / file.lstrip("/")).touch()
    assert [check.state for check in doctor._firmware(tmp_path)] == [State.OK]
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    assert list(doctor._firmware(tmp_path)) == []


def test_an_arm_host_needs_its_own_emulator_firmware_and_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr("lago_images.host.process._ADMIN", ())
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    tools = doctor._tools({"PATH": str(tmp_path)})
    assert "qemu-system-aarch64 (boot tests)" in tools.found
    assert " qemu-system-arm " in f"{tools.do} "
    assert not any(word in tools.do + tools.found for word in ("x86", "grub"))
    [firmware] = doctor._firmware(tmp_path)
    assert firmware.do == "as root: apt-get install qemu-efi-aarch64"
    for file in machine_for("aarch64").files:
        (tmp_path / file.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.lstrip("/")).touch()
    assert [check.state for check in doctor._firmware(tmp_path)] == [State.OK]
    assert "linux-image-arm64" in doctor._kernel(tmp_path).do


@pytest.mark.parametrize(
    ("system", "disabled", "states"),
    [
        ("ID=ubuntu", False, [State.WARNING]),
        ("ID=ubuntu", True, [State.OK]),
        ("ID=debian", False, []),
    ],
)
def test_the_apparmor_profile_of_passt_is_warned_of_on_ubuntu(tmp_path, system, disabled, states):
    (tmp_path / "etc/apparmor.d/disable").mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text(f'NAME="x"\n{system}\n')
    (tmp_path / "etc/apparmor.d/usr.bin.passt").touch()
    if disabled:
        (tmp_path / "etc/apparmor.d/disable/usr.bin.passt").symlink_to("/etc/nowhere")
    assert [check.state for check in doctor._passt(tmp_path)] == states


def test_a_machine_without_passt_has_no_check_of_it(tmp_path):
    assert list(doctor._passt(tmp_path)) == []


def test_user_namespaces_are_tested_by_making_one(tmp_path):
    (tmp_path / "unshare").write_text(
        "#!/bin/sh\necho 'unshare: no line in /etc/subuid' >&2\nexit 1\n"
    )
    (tmp_path / "unshare").chmod(0o755)
    check = doctor._user_namespaces(Runner(environ={"PATH": f"{tmp_path}:/usr/bin:/bin"}))
    assert check.state is State.MISSING
    assert "no line in /etc/subuid" in check.found


def test_user_namespaces_are_tested_as_they_are_used(tmp_path):
    """Ubuntu lets a user make one, and then mount nothing in it."""
    (tmp_path / "unshare").write_text(
        "#!/bin/sh\n"
        "case $* in *--mount*) echo 'unshare: cannot change root propagation' >&2; exit 1;; esac\n"
    )
    (tmp_path / "unshare").chmod(0o755)
    check = doctor._user_namespaces(Runner(environ={"PATH": f"{tmp_path}:/usr/bin:/bin"}))
    assert check.state is State.MISSING
    assert "cannot change root propagation" in check.found


def test_free_disk_space_sets_the_state(tmp_path, monkeypatch):
    for there, state in ((100, State.OK), (5, State.WARNING), (1, State.MISSING)):
        monkeypatch.setattr(
            "lago_images.host.space.free", lambda _folder, there=there: there * 2**30
        )
        assert doctor._space(tmp_path).state is state
