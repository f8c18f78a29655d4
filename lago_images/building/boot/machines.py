"""Name the machines that boot tests emulate."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from lago_images.errors import BootError

_HOSTS = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The emulator of an architecture; ``hosts`` are those whose KVM can run it."""

    program: str
    package: str
    options: tuple[str, ...]
    hosts: tuple[str, ...]


# Without graphics the firmware talks to the serial console: it may find nothing to boot. Without
# its ROM the network card is nothing to boot from.
_X86 = Machine(
    program="qemu-system-x86_64",
    package="qemu-system-x86",
    options=("-machine", "pc,graphics=off", "-global", "virtio-net-pci.romfile="),
    hosts=("x86_64",),
)
_MACHINES: Mapping[str, Machine] = {
    "x86_64": _X86,
    "i686": _X86,
    "aarch64": Machine(
        program="qemu-system-aarch64",
        package="qemu-system-arm qemu-efi-aarch64",
        options=("-machine", "virt", "-bios", "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"),
        hosts=("aarch64",),
    ),
    "ppc64le": Machine(
        program="qemu-system-ppc64",
        package="qemu-system-ppc",
        options=("-machine", "pseries"),
        hosts=("ppc64le",),
    ),
    "s390x": Machine(
        program="qemu-system-s390x",
        package="qemu-system-misc",
        options=("-machine", "s390-ccw-virtio"),
        hosts=("s390x",),
    ),
}


def machine_for(arch: str) -> Machine:
    """Return an architecture's machine; raises ``BootError`` where there is none."""
    if arch in _MACHINES:
        return _MACHINES[arch]
    raise BootError(
        f"boot test: no machine is known for {arch}",
        hint="set #boot-test=no in the spec; known are " + ", ".join(_MACHINES),
    )


def host() -> str:
    """Return this host's architecture, as images name theirs."""
    return _HOSTS.get(platform.machine(), platform.machine())
