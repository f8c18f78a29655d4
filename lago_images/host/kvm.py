"""Prove by a small guest that KVM really works here.

``/dev/kvm`` proves nothing: where virtualisation is nested or emulated it can be opened, a
machine can be made, and then a kernel hangs or QEMU aborts ("failed to set MSR 0x10a" with
``-cpu max``), and ``accel=kvm:tcg`` does not fall back. So a guest is run: a firmware that counts
down from ten million, with the processor that libguestfs uses, and then ends QEMU.
"""

import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lago_images.errors import CommandError, HostError, ToolMissingError
from lago_images.host.process import Runner

UDEV_RULE = 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"'
# Seconds. A guest that hangs on a broken KVM never ends.
LIMIT = 3.0
_DOING = "starting a guest by KVM"
_DEVICE = Path("/dev/kvm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """Acceleration names what guests run on, ``kvm`` or ``tcg``, and why KVM is not used.

    Of a run that starts no guest nobody asked why.
    """

    name: str
    why: str = ""

    @property
    def kvm(self) -> bool:
        return self.name == "kvm"


# Of a run that starts no guest: a KVM that hangs takes seconds to find out.
UNASKED = Acceleration(name="tcg")


@dataclass(frozen=True, slots=True, kw_only=True)
class _CountingGuest:
    """A firmware that counts to ten million, and QEMU's exit code when it has."""

    program: str
    machine: tuple[str, ...]
    firmware: bytes
    exit_code: int


# In 16-bit mode: mov ecx, 10000000; again: dec ecx; jnz again; mov al, 16; out 0xf4, al; hlt.
# The processor starts 16 bytes below the end: jmp f000:0000. isa-debug-exit ends QEMU with
# 2 * 16 + 1.
_X86_CODE = bytes.fromhex("66b980969800 6649 75fc b010 e6f4 f4")
_X86 = _CountingGuest(
    program="qemu-system-x86_64",
    machine=("-machine", "pc", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
    firmware=_X86_CODE.ljust(0xFFF0, b"\x90") + bytes.fromhex("ea000000f0").ljust(16, b"\x90"),
    exit_code=33,
)
# mov w1, #10000000; again: subs w1, w1, #1; b.ne again; mov w0, #0x84000008; hvc #0, which is
# PSCI's SYSTEM_OFF.
_ARM_CODE = "01d29252 0113a072 21040071 e1ffff54 00018052 0080b072 020000d4"
_ARM = _CountingGuest(
    program="qemu-system-aarch64",
    # Of the kinds of its interrupt controller KVM has the host's alone.
    machine=("-machine", "virt,gic-version=max"),
    firmware=bytes.fromhex(_ARM_CODE).ljust(2**16, b"\0"),
    exit_code=0,
)
_GUESTS: Mapping[str, _CountingGuest] = {"x86_64": _X86, "aarch64": _ARM}


def detect(runner: Runner, *, device: Path = _DEVICE, machine: str | None = None) -> Acceleration:
    """Choose what guests run on here: KVM if it is proven to work, else TCG and why.

    Args:
        runner: What QEMU is started with.
        device: KVM's.
        machine: The host's architecture; this one's by default.
    """
    machine = machine or platform.machine()
    guest = _GUESTS.get(machine)
    if guest is None:
        why = f"a working KVM cannot be proven on {machine}"
    elif not device.exists():
        why = f"{device} is missing"
    # Group kvm may have it, or the udev rule of the distribution everybody.
    elif not os.access(device, os.R_OK | os.W_OK):
        why = f"{device} may not be opened by this user"
    else:
        why = _run(runner, guest, "kvm")
    return Acceleration(name="tcg", why=why) if why else Acceleration(name="kvm")


def demand(accel: Acceleration) -> None:
    """Raise ``HostError``, which says how to get KVM, when there is none that works."""
    if not accel.kvm:
        raise HostError(f"KVM does not work here: {accel.why}", hint=hint(accel))


def hint(accel: Acceleration) -> str:
    """Return what to do to get a working KVM."""
    if "may not be opened" in accel.why:
        return (
            f"as root: echo '{UDEV_RULE}' > /etc/udev/rules.d/99-kvm.rules && "
            "udevadm control --reload-rules && udevadm trigger --name-match=kvm"
        )
    if "is missing" in accel.why:
        return "turn on virtualisation in the firmware (or nesting in the hypervisor), modprobe kvm"
    if "is not installed" in accel.why:
        return "apt-get install qemu-system-x86 (qemu-system-arm on aarch64)"
    return (
        "use a host whose processor and hypervisor give it hardware virtualisation; "
        "docs/without-kvm.md tells what is slower without"
    )


def _run(runner: Runner, guest: _CountingGuest, accel: str) -> str:
    """Run the firmware; return what went wrong, empty when all went well."""
    with tempfile.TemporaryDirectory(prefix="lago-images-kvm-") as folder:
        firmware = Path(folder) / "firmware"
        firmware.write_bytes(guest.firmware)
        argv = [
            guest.program,
            *guest.machine,
            "-accel", accel,
            "-cpu", "max",
            "-m", "64",
            "-bios", str(firmware),
            "-nodefaults",
            "-no-reboot",
            "-display", "none",
        ]  # fmt: skip
        try:
            # A QEMU that crashes may leave its memory where it runs: not among somebody's specs.
            runner.run(argv, cwd=Path(folder), timeout=LIMIT, doing=_DOING)
            code, reason = 0, ""
        except ToolMissingError as error:
            return error.message
        except CommandError as error:
            # isa-debug-exit cannot end QEMU with 0, so a success comes as a failure here.
            code = error.returncode
            reason = error.last_words.removeprefix(f"{_DOING}: ").removeprefix(f"{guest.program}: ")
    return "" if code == guest.exit_code else f"a small guest did not run on it: {reason}"
