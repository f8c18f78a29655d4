"""Name the machines that boot tests emulate."""

import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lago_images.errors import BootError, ToolMissingError
from lago_images.host.firmware import UEFI
from lago_images.host.kvm import Acceleration
from lago_images.host.process import search_path

_HOSTS = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The emulator of an architecture with one kind of firmware.

    Attributes:
        firmware: The kind, as boot records and the property ``firmware`` name it.
        program: The emulator.
        package: The Debian packages that bring it and its firmware.
        options: What makes it that machine.
        emulated: The processor where KVM does not run it; with KVM it is the host's.
        screen: Its graphics card, whose picture tells more than a silent serial console.
        files: The firmware's own files on this host.
        hosts: The architectures whose KVM can run it.
    """

    firmware: str
    program: str
    package: str
    options: tuple[str, ...]
    emulated: str = "max"
    screen: str = ""
    files: tuple[str, ...] = ()
    hosts: tuple[str, ...]


_OVMF, _AAVMF = UEFI["x86_64"], UEFI["aarch64"]
_OVMF_CODE, _OVMF_VARS = _OVMF.files
# Without its ROM the network card is nothing to boot from.
_NO_ROM = ("-global", "virtio-net-pci.romfile=")
_X86_BIOS = Machine(
    firmware="bios",
    program="qemu-system-x86_64",
    package="qemu-system-x86",
    # Without graphics the firmware talks to the serial console: it may find nothing to boot.
    options=("-machine", "pc,graphics=off", *_NO_ROM),
    screen="VGA",
    hosts=("x86_64",),
)
# Only in system management mode may the keys be written, so Secure Boot means something (QEMU,
# docs of OVMF: README, "SMM_REQUIRE"). What the guest writes to the variables is thrown away.
_X86_UEFI = Machine(
    firmware="uefi",
    program="qemu-system-x86_64",
    package=f"qemu-system-x86 {_OVMF.package}",
    options=(
        "-machine", "q35,smm=on,graphics=off",
        "-global", "driver=cfi.pflash01,property=secure,value=on",
        "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_OVMF_CODE}",
        "-drive", f"if=pflash,unit=1,format=raw,snapshot=on,file={_OVMF_VARS}",
        *_NO_ROM,
    ),
    screen="VGA",
    files=_OVMF.files,
    hosts=("x86_64",),
)  # fmt: skip
# The first is what an image boots with whose spec does not say otherwise.
_MACHINES: Mapping[str, tuple[Machine, ...]] = {
    "x86_64": (_X86_BIOS, _X86_UEFI),
    "i686": (_X86_BIOS,),
    "aarch64": (
        Machine(
            firmware="uefi",
            program="qemu-system-aarch64",
            package=f"qemu-system-arm {_AAVMF.package}",
            # gic-version: else KVM refuses the usual one on hosts that have a newer.
            options=("-machine", "virt,gic-version=max", "-bios", *_AAVMF.files, *_NO_ROM),
            # Else every function's return costs an emulated cipher (QEMU, docs/system/arm,
            # "TCG VCPU Features").
            emulated="max,pauth-impdef=on",
            screen="virtio-gpu-pci",
            files=_AAVMF.files,
            hosts=("aarch64",),
        ),
    ),
    "ppc64le": (
        Machine(
            firmware="slof",
            program="qemu-system-ppc64",
            package="qemu-system-ppc",
            options=("-machine", "pseries"),
            screen="VGA",
            hosts=("ppc64le",),
        ),
    ),
    "s390x": (
        Machine(
            firmware="s390-ccw",
            program="qemu-system-s390x",
            package="qemu-system-misc",
            options=("-machine", "s390-ccw-virtio"),
            hosts=("s390x",),
        ),
    ),
}


def machine_for(arch: str, firmware: str = "") -> Machine:
    """Return an architecture's machine, with a kind of firmware or its usual one.

    Raises:
        BootError: There is none.
    """
    machines = _MACHINES.get(arch, ())
    for machine in machines:
        if firmware in {"", machine.firmware}:
            return machine
    if machines:
        raise BootError(
            f"boot test: no machine for {arch} has the firmware {firmware!r}",
            hint="#firmware= in the spec may name "
            + " and ".join(machine.firmware for machine in machines),
        )
    raise BootError(
        f"boot test: no machine is known for {arch}",
        hint="say why it is not booted, with #boot-test=no: REASON in the spec; known are "
        + ", ".join(_MACHINES),
    )


def refuse_missing(machine: Machine, environ: Mapping[str, str]) -> None:
    """Refuse a machine whose emulator or firmware is not installed here.

    Args:
        machine: What is to be started.
        environ: The environment variables of the run, for the folders of programs.

    Raises:
        ToolMissingError: Names what is missing, and its package.
    """
    hint = f"apt-get install {machine.package}"
    if shutil.which(machine.program, path=search_path(environ)) is None:
        raise ToolMissingError(f"{machine.program} is not installed", hint=hint)
    for file in machine.files:
        if not Path(file).exists():
            raise ToolMissingError(f"the firmware {file} is missing", hint=hint)


def accelerator(machine: Machine, accel: Acceleration) -> str:
    """Return what runs a machine here: ``kvm``, or ``tcg`` where this host's KVM cannot run it."""
    return "kvm" if accel.kvm and host() in machine.hosts else "tcg"


def processor(machine: Machine, accel: str) -> str:
    """Return what QEMU's option ``-cpu`` takes for a machine that runs on ``kvm`` or ``tcg``."""
    return "max" if accel == "kvm" else machine.emulated


def host() -> str:
    """Return this host's architecture, as images name theirs."""
    return _HOSTS.get(platform.machine(), platform.machine())
