"""A machine made from the published repository by each client, which then really boots."""

import subprocess

import pytest

from tests.clients import lago
from tests.support.guests import overlay, started
from tests.support.images import read_ext4, root_size

# One worker, so that the repository is made once.
pytestmark = pytest.mark.real


@pytest.fixture
def server(machines):
    with machines.serve() as server:
        yield server


@pytest.fixture
def boots(tmp_path):
    """Start a raw disk of a machine, whose identity is its own, until its guest agent answers."""

    def boots(disk, firmware):
        above = overlay(disk, tmp_path / "boots.qcow2")
        with started(above, tmp_path / "console.log", firmware=firmware) as guest:
            return guest.run("echo it answers") == "it answers\n"

    return boots


def test_virt_builder_builds_a_machine_with_signature_checks(server, user, key, boots, tmp_path):
    user.add_source("tests", f"{server.url}/index.asc", key.public)
    machine = tmp_path / "machine.img"
    # A larger size lets virt-resize copy every partition, and grow the one that the index names.
    options = ["--check-signature", "--hostname", "built-here", "--no-network", "--size", "7G"]
    user.build("debian", machine, *options)
    assert read_ext4(machine, "/etc/hostname") == "built-here\n"
    assert machine.stat().st_size == 7 * 2**30
    # Less what ext4 keeps for itself.
    assert root_size(machine) > 6.8 * 2**30
    assert boots(machine, "bios")


def test_virt_builder_builds_a_machine_unsigned(server, user, tmp_path):
    user.add_source("tests", f"{server.url}/index")
    machine = tmp_path / "machine.img"
    user.build("debian", machine, "--write", "/etc/motd:from the index\n", "--no-network")
    assert read_ext4(machine, "/etc/motd") == "from the index\n"


def test_lago_downloads_checks_and_converts_a_machine(server, boots, layer, tmp_path):
    got = lago.converted().download(f"{server.url}/repo.metadata", tmp_path / "store", "debian")
    assert got["metadata"]["distro"] == "debian"
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "raw", got["path"], layer.prepared.disk]
    subprocess.run(compare, check=True, capture_output=True, timeout=300)
    (tmp_path / "machine.img").hardlink_to(got["path"])
    assert boots(tmp_path / "machine.img", "uefi")
