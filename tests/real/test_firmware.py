"""A bootstrapped Debian with cloud-init, under UEFI and BIOS: three boots of one disk.

``LAGO_IMAGES_TEST_BOOTS=all`` adds four of others: one for each further source of cloud-init's, and
one of a Debian 13.
"""

import json
import os
import re
import shlex
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from lago_images.building.boot.machines import machine_for
from tests.servers.processes import free_port
from tests.support import clouds
from tests.support.guests import overlay, started
from tests.support.images import list_ext4
from tests.tools import cannot, need

pytestmark = pytest.mark.real
need("qemu-img", "qemu-system-x86_64", "mkfs.vfat", "mcopy", "ssh", "ssh-keygen")
if not all(Path(file).exists() for file in machine_for("x86_64", "uefi").files):
    cannot("UEFI firmware is not installed (package ovmf)")
ALL = pytest.mark.skipif(
    os.environ.get("LAGO_IMAGES_TEST_BOOTS") != "all",
    reason="is one more boot; LAGO_IMAGES_TEST_BOOTS=all runs it",
)

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
    nameservers:
      addresses: [10.0.2.3]
"""
# As OpenStack's metadata has it.
INSTANCE = {
    "uuid": "1c9b2d7e-6b0c-4b9e-9d5e-1f6a3c5d7e90",
    "hostname": "seeded",
    "name": "seeded",
}
USERS = """\
#cloud-config
users:
  - default
  - name: tester
    sudo: ALL=(ALL) NOPASSWD:ALL
    ssh_authorized_keys: ["{key}"]
"""


# What cloud-init says when it has done all, and what the metadata service answers then.
SERVED = """
import json, subprocess
from http.client import HTTPConnection

def out(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout.strip()

out("cloud-init", "status", "--wait")
result = json.load(open("/run/cloud-init/result.json"))["v1"]
service = HTTPConnection("169.254.169.254")
service.request("GET", "/latest/meta-data/hostname")
print(json.dumps({
    "source": out("cloud-id") + " " + result["datasource"],
    "problems": result["errors"] + out("systemctl", "--failed", "--no-legend").splitlines(),
    "asked again": str(service.getresponse().status),
    "lease": out("ps", "-o", "comm=", "-C", "dhclient"),
}))
"""
ASKED = """
hostname
sudo -n id -un
ip -4 -o address show dev eth0
ip -4 route show default
grep ^nameserver /etc/resolv.conf
getent hosts seeded
"""


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
def public(key):
    """The key's public part."""
    return key.with_suffix(".pub").read_text().strip()


@pytest.fixture
def users(public):
    """A user, and their key, beside the image's own."""
    return USERS.format(key=public)


def network_data(net):
    """As OpenStack's metadata has it, of the network card that guests are started with."""
    route = {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": f"{net}.2"}
    return {
        "links": [{"id": "eth0", "type": "phy", "ethernet_mac_address": clouds.MAC}],
        "networks": [
            {
                "id": "one",
                "link": "eth0",
                "type": "ipv4",
                "ip_address": f"{net}.77",
                "netmask": "255.255.255.0",
                "routes": [route],
            }
        ],
        "services": [{"type": "dns", "address": f"{net}.3"}],
    }


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


def nocloud(folder, users):
    """A seed of cloud-init's own source."""
    meta = "instance-id: one\nlocal-hostname: seeded\n"
    texts = {"user-data": users, "meta-data": meta, "network-config": NETWORK}
    return seed(folder, "CIDATA", texts)


def test_a_seed_gives_it_a_name_a_user_and_a_network(renewed, key, users, tmp_path):
    is_configured(renewed[0], nocloud(tmp_path, users), key, tmp_path)


@ALL
def test_a_seed_gives_a_debian_13_the_same(debian13_cloud, key, users, tmp_path):
    disk = overlay(debian13_cloud.disk, tmp_path / "machine.qcow2")
    is_configured(disk, nocloud(tmp_path, users), key, tmp_path)


@ALL
def test_a_config_drive_gives_it_the_same(debian12_cloud, key, users, tmp_path):
    texts = {
        "openstack/latest/user_data": users,
        "openstack/latest/meta_data.json": json.dumps(INSTANCE),
        "openstack/latest/network_data.json": json.dumps(network_data("10.0.2")),
    }
    disk = overlay(debian12_cloud.disk, tmp_path / "machine.qcow2")
    is_configured(disk, seed(tmp_path, "CONFIG-2", texts), key, tmp_path)


@ALL
def test_openstacks_service_gives_it_the_same(debian12_cloud, key, users, public, tmp_path):
    texts = {
        "user_data": users,
        "meta_data.json": json.dumps(INSTANCE),
        "network_data.json": json.dumps(network_data(clouds.NET)),
    }
    cloud = clouds.openstack(tmp_path, texts, {"tests": public})
    disk = overlay(debian12_cloud.disk, tmp_path / "machine.qcow2")
    facts = is_served(disk, cloud, f"{clouds.NET}.77/24", key, tmp_path)
    assert facts["source"] == "openstack DataSourceOpenStackLocal [net,ver=2]"
    assert facts["asked again"] == "200"
    assert "200 GET /openstack/2018-08-27/user_data" in cloud.requests()


@ALL
def test_ec2s_service_gives_it_the_same_but_dhcp(debian12_cloud, key, users, public, tmp_path):
    cloud = clouds.ec2(tmp_path, "seeded", users, {"tests": public})
    disk = overlay(debian12_cloud.disk, tmp_path / "machine.qcow2")
    facts = is_served(disk, cloud, f"{clouds.LEASED}/4", key, tmp_path)
    assert facts["source"] == "aws DataSourceEc2Local"
    assert facts["lease"] == "dhclient"
    # It has no token.
    assert facts["asked again"] == "401"
    assert "200 GET /2021-03-23/user-data" in cloud.requests()


def is_served(disk, cloud, address, key, tmp_path):
    """Start a disk in a cloud that names a user and gives the image's own a key."""
    with logins(disk, address, key, tmp_path, cloud.options) as login:
        knows_its_place(login("tester", ASKED).splitlines(), address)
        facts = json.loads(login("tester", f"sudo -n python3 -c {shlex.quote(SERVED)}"))
        assert login("debian", "sudo -n id -un") == "root\n"
    assert facts["problems"] == []
    return facts


def is_configured(disk, seed, key, tmp_path):
    drive = ("-drive", f"file={seed},format=raw,if=virtio,readonly=on")
    with logins(disk, "10.0.2.77/24", key, tmp_path, drive) as login:
        knows_its_place(login("tester", ASKED).splitlines(), "10.0.2.77/24")


def knows_its_place(answers, address):
    """Look at a guest's answers to what it is asked, whose address has the length of its prefix."""
    net = address.rpartition(".")[0]
    name, user, addresses, route, server, resolved = answers
    assert (name, user) == ("seeded", "root")
    assert f" {address} " in addresses
    assert f" via {net}.2 dev eth0 " in f"{route} "
    assert server.split() == ["nameserver", f"{net}.3"]
    assert resolved.startswith("127.0.1.1 ")


@contextmanager
def logins(disk, address, key, tmp_path, options):
    """Start a disk that will have an address; give what runs a script there as a user."""
    port = free_port()
    client = [
        "ssh", "-i", key, "-p", str(port), "-o", "StrictHostKeyChecking=no",
        "-o", f"UserKnownHostsFile={tmp_path}/known", "-o", "ConnectTimeout=20",
    ]  # fmt: skip

    def login(user, script):
        argv = [*client, f"{user}@127.0.0.1", script]
        deadline = time.monotonic() + 1800
        while True:
            ran = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
            # That is ssh's own: nobody is let in yet.
            if ran.returncode != 255 or time.monotonic() > deadline:
                break
            time.sleep(2)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    forward = f"tcp:127.0.0.1:{port}-{address.partition('/')[0]}:22"
    with started(disk, tmp_path / "console.log", forward=forward, more=options):
        yield login


def test_renewed_boot_loaders_start_under_secure_boot(renewed, tmp_path):
    with started(renewed[0], tmp_path / "console.log", firmware="uefi") as guest:
        secure = guest.run("od -An -tu1 /sys/firmware/efi/efivars/SecureBoot-*")
    assert secure.split()[-1] == "1"
