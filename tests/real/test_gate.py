"""The gate refuses broken images: a real Debian, with each fault put into it on purpose.

What the gate tells at once is put into one disk, as every boot costs half a minute.
"""

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lago_images.building.boot.boot_test import (
    Bench,
    Questions,
    Subject,
    boot_test,
    refuse_shared_identity,
)
from lago_images.building.boot.machines import machine_for
from lago_images.errors import BootError
from lago_images.host.process import Runner
from lago_images.specs.logins import Logins
from lago_images.specs.model import Operation
from tests.support.guests import acceleration
from tests.support.images import (
    add_first_boot,
    authorize,
    change_ext4,
    free_blocks,
    read_ext4,
    write_guest,
)
from tests.tools import cannot, need

pytestmark = pytest.mark.real
need("qemu-img", "qemu-system-x86_64", "debugfs", "ssh-keygen")

UNITS = "/etc/systemd/system"
WANTS = f"{UNITS}/multi-user.target.wants"
LEASE = 'default-duid "\\000\\001baked";\nlease {\n  interface "eth0";\n}\n'
SAME = "every machine made of the image would have the same"
ID = "0123456789abcdef0123456789abcdef\n"


def add_unit(disk, name, text, wants=WANTS):
    write_guest(disk, f"{UNITS}/{name}", text)
    change_ext4(disk, f"symlink {wants}/{name} {UNITS}/{name}")


def oneshot(command, **more):
    lines = "\n".join(f"{key}={value}" for key, value in more.items())
    return f"[Unit]\nDescription=Broken on purpose\n{lines}\n[Service]\nType=oneshot\n{command}\n"


@pytest.fixture
def bench(tmp_path):
    return Bench(
        accel=acceleration(),
        timeout=450,
        workdir=tmp_path,
        runner=Runner(log=tmp_path / "log"),
        clock=time.monotonic,
        console_log=tmp_path / "console.log",
        screenshot=tmp_path / "screen.png",
    )


@pytest.fixture
def refused(tmp_path, bench):
    """Return the error by which the gate refuses a raw disk."""

    def refuse(disk, *, timeout=450, firmware="", **more):
        subject = Subject(disk=disk, fmt="raw", arch="x86_64", firmware=firmware)
        with pytest.raises(BootError) as caught:
            boot_test(subject, replace(bench, timeout=timeout), Questions(**more))
        assert (tmp_path / "screen.png").read_bytes().startswith(b"\x89PNG\r\n")
        return caught.value

    return refuse


@pytest.fixture
def disk(debian12, tmp_path):
    return debian12.copy(tmp_path).disk


def test_a_guest_that_is_no_machine_of_its_own_and_lacks_what_it_needs(refused, disk):
    add_unit(disk, "tea.service", oneshot("ExecStart=/bin/sh -c 'echo no tea; exit 3'"))
    # As a machine of somebody's QEMU may have noted it.
    fixed = "auto eth0\niface eth0 inet static\n  address 10.0.2.15/24\n"
    write_guest(disk, "/etc/network/interfaces", f"auto lo\niface lo inet loopback\n{fixed}")
    # Nobody makes its keys.
    change_ext4(disk, f"rm {UNITS}/ssh-host-keys.service")
    write_guest(disk, "/etc/pam.d/common-auth", read_ext4(disk, "/etc/pam.d/common-auth"), 0o664)
    write_guest(disk, "/usr/local/lib/lago-images/grow-root", "#!/bin/sh\n", 0o755)
    write_guest(disk, "/etc/machine-id", ID)
    for name in ("stray", "meant"):
        write_guest(disk, f"/root/{name}.key", "-----BEGIN PRIVATE KEY-----\n", 0o600)
    meant = Operation(name="upload", argument="lab.key:/root/meant.key", line=5)
    error = refused(disk, timeout=60, look_inside=True, operations=(meant,))
    for words in (
        "units: tea.service failed (",
        "network: no IPv4 address of DHCP's on the network card (52:54:00:12:34:01); it has 10.0.2",
        "sshd: sshd is enabled and does not start",
        "root grows: /dev/vda3 ends at 6.0 GiB of a disk of 12.0 GiB, although grow-root.service",
        f"identity: {SAME} /etc/machine-id",
        "private keys or identities, and every machine made of it the same: /root/stray.key; ",
        "permissions: others than root may write to /etc/pam.d/common-auth",
    ):
        assert words in error.message
    assert "tea.service: no tea" in error.tail
    assert "systemctl mask tea.service" in error.hint


def test_a_guest_with_a_full_disk_that_cannot_be_logged_into(refused, disk, tmp_path):
    write_guest(disk, "/full", "x")
    # Some 20 MiB are left, until the file system grows.
    change_ext4(disk, f"fallocate /full 0 {free_blocks(disk) - 5000}")
    authorize(disk, "AAAA")
    write_guest(disk, "/etc/ssh/sshd_config.d/closed.conf", "AllowUsers nobody\n")
    # First-boot commands wait, and nothing makes what they wait for wait.
    add_first_boot(disk)
    change_ext4(disk, f"rm {UNITS}/network-online.target.wants/ifupdown-wait-online.service")
    write_guest(disk, "/var/lib/dhcp/dhclient.eth0.leases", LEASE)
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", key], check=True)
    write_guest(disk, "/etc/ssh/ssh_host_ed25519_key", key.read_text(), 0o600)
    kmsg = "<3>EXT4-fs error (device vdz9): ext4_lookup:1855: inode #2: on purpose"
    add_unit(disk, "says.service", oneshot(f"ExecStart=/bin/sh -c 'echo \"{kmsg}\" >/dev/kmsg'"))
    error = refused(disk, logins=Logins(passwords={"root": "123456"}, keys={"root": ("AAAA",)}))
    for words in (
        "first boot: commands of the first boot may run without a network: network-online.target",
        "password of root: the spec documents it, and the guest does not take it",
        "key of root: the spec documents it, and the guest does not take it",
        f"identity: {SAME} /etc/ssh/ssh_host_ed25519_key, /var/lib/dhcp/dhclient.eth0.leases",
        "room: the root file system is full",
        "console: file system error: EXT4-fs error (device vdz9)",
    ):
        assert words in error.message
    assert "network: no" not in error.message
    assert "ssh_host_rsa_key" not in error.message


def test_a_guest_without_an_init(refused, disk):
    menu = read_ext4(disk, "/boot/grub/grub.cfg")
    # Debian's initrd would look for another init than a missing init=.
    broken = menu.replace(" ro ", " ro rdinit=/nonexistent init=/nonexistent ")
    write_guest(disk, "/boot/grub/grub.cfg", broken)
    error = refused(disk)
    assert "the guest gave up: Kernel panic - not syncing: VFS: Unable to mount" in error.message
    assert error.hint.startswith("kernel panic: ")


def test_a_disk_without_a_boot_loader(refused, disk):
    with disk.open("r+b") as file:
        file.write(bytes(440))
    error = refused(disk, timeout=5)
    assert "no boot loader: Booting from Hard Disk..." in error.message


def test_a_disk_whose_efi_system_partition_is_empty(refused, debian12_cloud, tmp_path):
    need("sfdisk", "mdeltree")
    if not all(Path(file).exists() for file in machine_for("x86_64", "uefi").files):
        cannot("UEFI firmware is not installed (package ovmf)")
    disk = debian12_cloud.copy(tmp_path).disk
    argv = ["sfdisk", "--json", disk]
    table = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    [esp] = [
        each["start"] * 512
        for each in table["partitiontable"]["partitions"]
        if each["type"].startswith("C12A7328")
    ]
    subprocess.run(["mdeltree", "-i", f"{disk}@@{esp}", "::/EFI"], check=True)
    error = refused(disk, firmware="uefi")
    assert "the guest gave up: >>Start PXE over IPv4" in error.message
    assert any("failed to load Boot0001" in line for line in error.tail)
    assert "EFI system partition" in error.hint


skipped_unless_asked_for = pytest.mark.skipif(
    os.environ.get("LAGO_IMAGES_TEST_BOOTS") != "all",
    reason="takes minutes; LAGO_IMAGES_TEST_BOOTS=all runs it",
)


@skipped_unless_asked_for
def test_a_unit_that_never_ends(refused, disk):
    add_unit(disk, "hang.service", oneshot("ExecStart=/bin/sleep infinity"))
    error = refused(disk, timeout=60)
    assert "units: systemd was still starting hang.service" in error.message


HANGS = "ConditionPathExists=/var/lib/was-here\nDefaultDependencies=no\nBefore=sysinit.target"


@skipped_unless_asked_for
def test_a_second_boot_that_hangs(refused, disk):
    add_unit(disk, "was-here.service", oneshot("ExecStart=/usr/bin/touch /var/lib/was-here"))
    write_guest(
        disk,
        f"{UNITS}/hang.service",
        f"[Unit]\n{HANGS}\n[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n",
    )
    change_ext4(disk, f"symlink {UNITS}/sysinit.target.wants/hang.service {UNITS}/hang.service")
    error = refused(disk, timeout=60)
    assert "the guest agent did not answer within" in error.message
    assert "a unit hangs: " in error.message
    assert "Job hang.service/start running" in error.message
    assert error.message.endswith("at the second boot")


DHCLIENT = "/etc/dhcp/dhclient.conf"


@skipped_unless_asked_for
def test_two_machines_that_send_dhcp_servers_the_same(bench, disk):
    """No file that a guest tells of has it: the packets alone do."""
    text = read_ext4(disk, DHCLIENT) + 'send dhcp-client-identifier "template";\n'
    write_guest(disk, DHCLIENT, text)
    one, other = (
        boot_test(
            Subject(disk=disk, fmt="raw", arch="x86_64", number=number),
            bench,
            Questions(again=False),
        )
        for number in (1, 2)
    )
    with pytest.raises(BootError) as caught:
        refuse_shared_identity(one, other)
    same = f"client id {b'template'.hex(':')}"
    assert caught.value.message == (
        f"boot test: clones: two machines made of the image send DHCP servers the same {same}: "
        "they would get one address"
    )
    assert one.identity.sent == other.identity.sent == {same}
