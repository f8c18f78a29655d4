"""Write the files that make a Debian a guest: boot menu, network, first boot."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lago_images.building.bases.bootstrap.layout import Layout
from lago_images.errors import BuildError

# The serial line is the PC's, or the PL011 of QEMU's virt and of most servers of Arm's.
# net.ifnames, biosdevname: lago configures eth0, eth1, … in its guests. no_timer_check: under
# emulation on a busy machine the PC's timer is late, and Linux would panic; Fedora's images have it
# too.
_NAMES = "net.ifnames=0 biosdevname=0"
_KERNEL_OPTIONS = {
    "x86_64": f"console=tty0 console=ttyS0,115200n8 {_NAMES} no_timer_check",
    "aarch64": f"console=tty0 console=ttyAMA0,115200n8 {_NAMES}",
}
_UNITS = "etc/systemd/system"
_GRUB_MODULES = "usr/lib/grub/i386-pc"
_LIB = "usr/local/lib/lago-images"

# vmlinuz and initrd.img are links that kernel packages keep on the newest kernel, so the menu
# outlives updates without GRUB's own package: Debian's in /, Ubuntu's in /boot. UEFI firmware
# writes to the serial line too.
_GRUB_CFG = """\
if [ "$grub_platform" = pc ]; then
  serial --unit=0 --speed=115200
  terminal_input console serial
  terminal_output console serial
fi
set default=0
set timeout=0
menuentry "{title}" {{
  search --no-floppy --fs-uuid --set=root {uuid}
  linux {kernels}/vmlinuz root=UUID={uuid} ro {options}
  initrd {kernels}/initrd.img
}}
"""
_DEFAULT_GRUB = """\
GRUB_DISTRIBUTOR={distribution}
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="{options}"
"""
# With a BIOS GRUB speaks to the serial line itself; the console of UEFI is on it.
_BIOS_GRUB = """\
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
"""
_EFI_GRUB = "GRUB_TERMINAL=console\n"
# By this file grub-cloud-amd64, which Debian's own cloud images have, renews GRUB for BIOS and for
# UEFI when its packages are updated, in a machine whose disk it can see.
_ENABLE_CLOUD = "# grub-cloud-amd64 installs GRUB on this machine's disk, for BIOS and UEFI.\n"
# Where this file is, updates of grub-efi-arm64 renew GRUB on the EFI system partition, as its
# postinst has it. grub-install makes it, which was not run for this disk.
_GRUB_IS_INSTALLED = "boot/grub/arm64-efi/core.efi"
_INTERFACES = """\
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

allow-hotplug eth0
iface eth0 inet dhcp
"""
# cloud-init describes interfaces by the same names, and of two descriptions both are applied: so
# DHCP is a profile of its own, taken where cloud-init has configured nothing.
_CLOUD_INTERFACES = """\
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

allow-hotplug eth0
mapping eth0
  script /usr/local/lib/lago-images/network-profile
iface dhcp inet dhcp
"""
_NETWORK_PROFILE = """\
#!/bin/sh
# Print the profile of an interface: its own where cloud-init configures the network, else DHCP.
if [ -e /etc/network/interfaces.d/50-cloud-init ]; then echo "$1"; else echo dhcp; fi
"""
# In one line: ds-identify, which turns cloud-init off where no source is found, reads no other.
_CLOUD_CONFIG = """\
# Where this image looks for its configuration. Without any, cloud-init is not started.
datasource_list: [ NoCloud, ConfigDrive, OpenStack, Ec2 ]
# The name that it is given resolves.
manage_etc_hosts: localhost
# Else it is en_US.UTF-8, which no guest has: that fails, and with it cloud-config.service.
locale: C.UTF-8
# The network is ifupdown's, also where netplan is installed.
system_info:
  network:
    renderers: [ eni ]
    activators: [ eni ]
"""
_HOSTS = """\
127.0.0.1 localhost
127.0.1.1 {hostname}
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""
_GROW = """\
#!/bin/sh
# Grow the root partition and its file system to the disk's end. Does nothing where they are.
set -eu
partition=$(findmnt --noheadings --raw --output SOURCE /)
entry=/sys/class/block/${partition##*/}
[ -e "$entry/partition" ] || exit 0
number=$(cat "$entry/partition")
parent=$(basename "$(realpath "$entry/..")")
end=$(($(cat "$entry/start") + $(cat "$entry/size")))
if [ $(($(cat "/sys/class/block/$parent/size") - end)) -ge 2048 ]; then
  echo ", +" | sfdisk --quiet --no-reread --no-tell-kernel -N "$number" "/dev/$parent"
  partx --update --nr "$number" "/dev/$parent"
fi
resize2fs "$partition"
"""
_GROW_UNIT = """\
[Unit]
Description=Grow the root file system to the size of the disk
DefaultDependencies=no
After=systemd-remount-fs.service
Before=sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=/usr/local/lib/lago-images/grow-root
"""
# A machine without a network does not keep what waits for one for Debian's five minutes. The time
# counts from when the network may be set up, which is after a first boot has made its keys.
_WAIT_ONLINE = """\
[Unit]
After=network-pre.target

[Service]
TimeoutStartSec=120
"""
# What mmdebstrap copies from the host, leaves of itself, or packages make once for all machines.
_REMOVED = (
    "etc/resolv.conf",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
)
_REMOVED_GLOBS = ("var/cache/ldconfig/*", "var/log/apt/*", "var/log/dpkg.log")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Hold what differs between guests.

    Attributes:
        title: The boot menu's.
        hostname: Without a domain.
        layout: The disk's.
        has_cloud_init: Whether a cloud may configure the guest.
    """

    title: str
    hostname: str
    layout: Layout
    has_cloud_init: bool = False


def remove_traces(rootfs: Path) -> None:
    """Remove what a bootstrap leaves of itself and of the host, such as its settings of apt."""
    for name in _REMOVED:
        (rootfs / name).unlink(missing_ok=True)
    for pattern in _REMOVED_GLOBS:
        for path in rootfs.glob(pattern):
            path.unlink()


def make_guest(rootfs: Path, guest: Guest) -> None:
    """Write the files of a guest into a folder with a Debian or Ubuntu in it."""
    remove_traces(rootfs)
    for name, (text, mode) in _files(guest).items():
        _place(rootfs, name, text, mode)
    if guest.layout.has_uefi:
        # The mount point, by the path of something in it.
        _inside(rootfs, "boot/efi/EFI")
    if guest.layout.has_uefi and guest.layout.has_bios:
        _copy_modules(rootfs)
    _want(rootfs, "sysinit.target", "grow-root.service")
    # Else network-online.target, which waits for nothing without, is no sign of a network.
    wait = "ifupdown-wait-online.service"
    _link(rootfs, f"{_UNITS}/network-online.target.wants/{wait}", f"/lib/systemd/system/{wait}")
    _link(rootfs, "var/lib/dbus/machine-id", "/etc/machine-id")


def _files(guest: Guest) -> dict[str, tuple[str, int]]:
    files = {
        **_menu(guest),
        "etc/fstab": (_fstab(guest.layout), 0o644),
        "etc/hostname": (guest.hostname + "\n", 0o644),
        "etc/hosts": (_HOSTS.format(hostname=guest.hostname), 0o644),
        # Empty, not missing: systemd then makes one at each machine's first boot.
        "etc/machine-id": ("", 0o444),
        "etc/network/interfaces": (_INTERFACES, 0o644),
        f"{_LIB}/grow-root": (_GROW, 0o755),
        f"{_UNITS}/grow-root.service": (_GROW_UNIT, 0o644),
        f"{_UNITS}/ifupdown-wait-online.service.d/lago-images.conf": (_WAIT_ONLINE, 0o644),
    }
    if guest.has_cloud_init:
        files["etc/network/interfaces"] = (_CLOUD_INTERFACES, 0o644)
        files[f"{_LIB}/network-profile"] = (_NETWORK_PROFILE, 0o755)
        # Behind the package's own, 90_dpkg.cfg.
        files["etc/cloud/cloud.cfg.d/95_lago-images.cfg"] = (_CLOUD_CONFIG, 0o644)
    return files


def _menu(guest: Guest) -> dict[str, tuple[str, int]]:
    """Return the boot menu, and what a guest's own GRUB makes others by."""
    layout, options = guest.layout, _KERNEL_OPTIONS[guest.layout.arch]
    kernels = "/boot" if layout.distribution == "Ubuntu" else ""
    cfg = _GRUB_CFG.format(
        title=guest.title, uuid=layout.root_uuid, options=options, kernels=kernels
    )
    default = _DEFAULT_GRUB.format(distribution=layout.distribution, options=options)
    files = {
        "boot/grub/grub.cfg": (cfg, 0o644),
        "etc/default/grub": (default + (_BIOS_GRUB if layout.has_bios else _EFI_GRUB), 0o644),
    }
    if layout.has_uefi and layout.has_bios and layout.distribution == "Debian":
        files["etc/grub.d/enable_cloud"] = (_ENABLE_CLOUD, 0o644)
    if layout.arch == "aarch64":
        files[_GRUB_IS_INSTALLED] = ("", 0o644)
    return files


def _fstab(layout: Layout) -> str:
    root = f"UUID={layout.root_uuid} / ext4 errors=remount-ro 0 1\n"
    # A machine whose firmware is a BIOS starts without it, too.
    esp = f"UUID={layout.esp_uuid} /boot/efi vfat umask=0077,nofail 0 0\n"
    return root + esp if layout.has_uefi else root


def _copy_modules(rootfs: Path) -> None:
    """Put GRUB's modules for a BIOS where the menu that ``update-grub`` writes loads them from."""
    for pattern in ("*.mod", "*.lst"):
        for module in (rootfs / _GRUB_MODULES).glob(pattern):
            copy = _inside(rootfs, f"boot/grub/i386-pc/{module.name}")
            copy.unlink(missing_ok=True)
            copy.write_bytes(module.read_bytes())
            copy.chmod(0o644)


def _want(rootfs: Path, target: str, unit: str) -> None:
    _link(rootfs, f"{_UNITS}/{target}.wants/{unit}", f"/{_UNITS}/{unit}")


def _link(rootfs: Path, name: str, target: str) -> None:
    path = _inside(rootfs, name)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _place(rootfs: Path, name: str, text: str, mode: int) -> None:
    path = _inside(rootfs, name)
    # A package may have made it a link, which would lead out of the folder when followed here.
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _inside(rootfs: Path, name: str) -> Path:
    """Return a file's path in the folder, its parents made; links may not lead out of it."""
    parent = rootfs
    for part in PurePosixPath(name).parent.parts:
        parent = parent / part
        if not parent.resolve().is_relative_to(rootfs.resolve()):
            raise BuildError(f"/{name} would be written outside the guest: {parent} is a link")
        if not parent.is_dir():
            parent.mkdir(mode=0o755)
            parent.chmod(0o755)
    return parent / PurePosixPath(name).name
