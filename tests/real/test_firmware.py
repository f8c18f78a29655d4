"""A bootstrapped Debian with cloud-init, under UEFI and BIOS: three boots of one disk."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from lago_images.building.boot.machines import machine_for
from tests.servers.processes import free_port
from tests.support.guests import overlay, started
from tests.support.images import list_ext4
from tests.tools import cannot, need

pytestmark = pytest.mark.real
need("qemu-img", "qemu-system-x86_64", "mkfs.vfat", "mcopy", "ssh", "ssh-keygen")
if not all(Path(file).exists() for file in machine_for("x86_64", "uefi").files):
    cannot("UEFI firmware is not installed (package ovmf)")

# What a kernel's update calls, and what updates of GRUB and shim do.
RENEW = """
exec 2>&1
run-parts --arg="$(uname -r)" --regex=grub /etc/kernel/postinst.d
sh /var/lib/dpkg/info/grub-cloud-amd64.postinst triggered
sync
"""
NETWORK = """\
version: 2
ethernets:
  eth0:
    addresses: [10.0.2.77/24]
    gateway4: 10.0.2.2
"""
# As OpenStack's metadata has it, of the network card that guests are started with.
NETWORK_DATA = {
    "links": [{"id": "eth0", "type": "phy", "ethernet_mac_address": "52:54:00:12:34:56"}],
    "networks": [
        {
            "id": "one",
            "link": "eth0",
            "type": "ipv4",
            "ip_address": "10.0.2.77",
            "netmask": "255.255.255.0",
            "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.2.2"}],
        }
    ],
    "services": [],
}
USERS = """\
#cloud-config
users:
  - name: tester
    sudo: ALL=(ALL) NOPASSWD:ALL
    ssh_authorized_keys: ["{key}"]
"""


ASKED = "hostname; sudo -n id -un; ip -4 -o address show dev eth0; getent hosts seeded"


@pytest.fixture(scope="module")
def renewed(debian12_cloud, tmp_path_factory):
    """A larger disk that started under UEFI and renewed its boot loaders; and what it said."""
    folder = tmp_path_factory.mktemp("renewed")
    disk = overlay(debian12_cloud.disk, folder / "grown.qcow2", "9G")
    with started(disk, folder / "console.log", firmware="uefi") as guest:
        filesystems = guest.ask("guest-get-fsinfo")
        interfaces = guest.ask("guest-network-get-interfaces")
        facts = {
            "root": next(fs for fs in filesystems if fs["mountpoint"] == "/"),
            "interfaces": {each["name"] for each in interfaces},
            "secure boot": guest.run("od -An -tu1 /sys/firmware/efi/efivars/SecureBoot-*"),
            # The agent answers before the network is up.
            "profile": guest.run("until ifquery --state eth0; do sleep 1; done"),
            "cloud-init": guest.run("systemctl list-units --all --no-legend 'cloud-*'"),
            "renewed": guest.run(RENEW),
            "menu": guest.run("cat /boot/grub/grub.cfg"),
            "serial": guest.console.read_text(errors="replace"),
        }
    return disk, facts


def test_it_starts_under_secure_boot_and_uses_all_of_a_larger_disk(renewed):
    facts = renewed[1]
    assert facts["secure boot"].split()[-1] == "1"
    assert facts["root"]["total-bytes"] > 8 * 2**30
    assert facts["interfaces"] == {"lo", "eth0"}
    assert "Linux version" in facts["serial"]


def test_without_a_seed_cloud_init_is_not_started_and_dhcp_is_used(renewed):
    facts = renewed[1]
    assert facts["profile"].strip() == "eth0=dhcp"
    assert " active" not in facts["cloud-init"]
    assert "cloud-init" not in facts["serial"]


def test_the_modules_that_debians_menu_loads_are_on_the_disk(renewed, debian12_cloud):
    menu = renewed[1]["menu"]
    assert "### BEGIN /etc/grub.d/10_linux ###" in menu
    loaded = set(re.findall(r"^\s*insmod (\w+)$", menu, re.MULTILINE))
    assert {"gzio", "part_gpt", "ext2"} <= loaded
    # It names those of other platforms too, behind conditions.
    packaged = set(list_ext4(debian12_cloud.disk, "/usr/lib/grub/i386-pc"))
    wanted = {f"{name}.mod" for name in loaded} & packaged
    assert {"gzio.mod", "all_video.mod"} <= wanted
    assert wanted <= set(list_ext4(debian12_cloud.disk, "/boot/grub/i386-pc"))


def test_both_boot_loaders_were_renewed_inside(renewed):
    assert renewed[1]["renewed"].count("Installation finished. No error reported.") == 2


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "key"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", path]
    subprocess.run(argv, check=True, timeout=60)
    return path


@pytest.fixture
def users(key):
    """A user, and their key."""
    return USERS.format(key=key.with_suffix(".pub").read_text().strip())


def seed(folder, label, texts):
    """A disk with a label and files, which may be in folders of the first one's."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    disk = folder / "seed.img"
    subprocess.run(["mkfs.vfat", "-n", label, "-C", disk, "1024"], check=True, timeout=60)
    names = {name.partition("/")[0] for name in texts}
    copy = ["mcopy", "-s", "-i", disk, *(folder / name for name in sorted(names)), "::/"]
    subprocess.run(copy, check=True, timeout=60)
    return disk


def test_a_seed_gives_it_a_name_a_user_and_a_network(renewed, key, users, tmp_path):
    meta = "instance-id: one\nlocal-hostname: seeded\n"
    texts = {"user-data": users, "meta-data": meta, "network-config": NETWORK}
    is_configured(renewed[0], seed(tmp_path, "CIDATA", texts), key, tmp_path)


@pytest.mark.skipif(
    os.environ.get("LAGO_IMAGES_TEST_BOOTS") != "all",
    reason="is one more boot; LAGO_IMAGES_TEST_BOOTS=all runs it",
)
def test_a_config_drive_gives_it_the_same(debian12_cloud, key, users, tmp_path):
    meta = {"uuid": "1c9b2d7e-6b0c-4b9e-9d5e-1f6a3c5d7e90", "hostname": "seeded", "name": "seeded"}
    texts = {
        "openstack/latest/user_data": users,
        "openstack/latest/meta_data.json": json.dumps(meta),
        "openstack/latest/network_data.json": json.dumps(NETWORK_DATA),
    }
    disk = overlay(debian12_cloud.disk, tmp_path / "machine.qcow2")
    is_configured(disk, seed(tmp_path, "CONFIG-2", texts), key, tmp_path)


def is_configured(disk, seed, key, tmp_path):
    port = free_port()
    drive = ("-drive", f"file={seed},format=raw,if=virtio,readonly=on")
    login = [
        "ssh", "-i", key, "-p", str(port), "-o", "StrictHostKeyChecking=no",
        "-o", f"UserKnownHostsFile={tmp_path}/known", "-o", "ConnectTimeout=20",
        "tester@127.0.0.1", ASKED,
    ]  # fmt: skip
    forward = f"tcp:127.0.0.1:{port}-10.0.2.77:22"
    with started(disk, tmp_path / "console.log", forward=forward, more=drive):
        deadline = time.monotonic() + 1800
        while True:
            ran = subprocess.run(login, capture_output=True, text=True, timeout=600, check=False)
            if ran.returncode == 0 or time.monotonic() > deadline:
                break
            time.sleep(2)
    name, user, address, resolved = ran.stdout.splitlines()
    assert (name, user) == ("seeded", "root")
    assert " 10.0.2.77/24 " in address
    assert resolved.startswith("127.0.1.1 ")


def test_renewed_boot_loaders_start_under_secure_boot(renewed, tmp_path):
    with started(renewed[0], tmp_path / "console.log", firmware="uefi") as guest:
        secure = guest.run("od -An -tu1 /sys/firmware/efi/efivars/SecureBoot-*")
    assert secure.split()[-1] == "1"
