"""A machine made from the published repository by each client, which then really boots."""

import os
import subprocess

import pytest

from tests.clients import lago
from tests.clients.pages import blocks
from tests.support.guests import overlay, started
from tests.support.images import read_ext4, root_size

# The first of them waits for the tutorial's build, too.
pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]
ALL = os.environ.get("LAGO_IMAGES_TEST_BOOTS") == "all"


@pytest.fixture
def server(machines):
    with machines.serve() as server:
        yield server


@pytest.fixture
def boots(tmp_path):
    """Start a raw disk of a machine, whose identity is its own, until its guest agent answers."""

    def boots(disk, *firmwares):
        for firmware in firmwares:
            above = overlay(disk, tmp_path / f"boots-{firmware}.qcow2")
            with started(above, tmp_path / "console.log", firmware=firmware) as guest:
                if guest.run("echo it answers") != "it answers\n":
                    return False
        return True

    return boots


def test_virt_builder_builds_a_machine_with_signature_checks(
    machines, server, user, boots, tmp_path
):
    machine = tmp_path / "machine.img"
    # A larger size lets virt-resize copy every partition, and grow the one that the index names.
    options = f"--check-signature --hostname built-here --no-network --size 7G --output {machine}"
    commands = blocks(machines.folder / "catalogue/my-debian-12.html")["virt-builder"]
    user.paste(f"{commands} {options} --format raw")
    assert read_ext4(machine, "/etc/hostname") == "built-here\n"
    assert machine.stat().st_size == 7 * 2**30
    # Less what ext4 keeps for itself.
    assert root_size(machine) > 6.8 * 2**30
    assert boots(machine, "uefi", *(["bios"] if ALL else []))


def test_virt_builder_builds_a_machine_unsigned(server, user, tmp_path):
    user.add_source("tests", f"{server.url}/index")
    machine = tmp_path / "machine.img"
    user.build("my-debian-12", machine, "--write", "/etc/motd:from the index\n", "--no-network")
    assert read_ext4(machine, "/etc/motd") == "from the index\n"


def test_lago_downloads_checks_and_converts_a_machine(machines, server, boots, tmp_path):
    metadata = f"{server.url}/repo.metadata"
    got = lago.converted().download(metadata, tmp_path / "store", "my-debian-12")
    assert got["metadata"]["distro"] == "debian"
    with (tmp_path / "unpacked.qcow2").open("wb") as unpacked:
        unpack = ["xz", "--decompress", "--stdout", machines.only("images/**/*.xz")]
        subprocess.run(unpack, stdout=unpacked, check=True, timeout=300)
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", got["path"], unpacked.name]
    subprocess.run(compare, check=True, capture_output=True, timeout=300)
    (tmp_path / "machine.img").hardlink_to(got["path"])
    assert boots(tmp_path / "machine.img", "bios")
