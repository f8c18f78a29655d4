"""A Debian for aarch64: what Debian has for it, its programs on this host, and its boot."""

import os
import platform
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lago_images.building.bases.bootstrap import package_cache
from lago_images.building.bases.bootstrap.apt import read_archives
from lago_images.building.bases.bootstrap.debian import host_mirrors, recipe
from lago_images.building.bases.bootstrap.disk import esp_files
from lago_images.building.boot.boot_test import Bench, Questions, Subject, boot_test
from lago_images.building.boot.machines import machine_for
from lago_images.building.customise.engine import customise
from lago_images.errors import CommandError, HostError
from lago_images.host import foreign
from lago_images.host.process import Runner
from lago_images.specs.logins import Logins
from tests.support import images
from tests.support.builders import lines
from tests.support.guests import acceleration, overlay, started
from tests.tools import cannot, need

pytestmark = pytest.mark.real
CACHE = images.cache()


@pytest.mark.parametrize("release", ["debian-12", "debian-13"])
def test_debian_has_every_package_and_the_boot_loaders_files(release, tmp_path):
    need("apt-get", "dpkg-deb")
    runner = Runner()
    todo = recipe(lines(base=f"bootstrap:{release}", arch="aarch64"), host_mirrors(runner))
    apt = read_archives(todo, tmp_path / "apt", runner)
    resolved = {each.name: each for each in apt.bootstrap(todo)}
    assert {each.arch for each in resolved.values()} == {"arm64", "all"}
    names = ("grub-efi-arm64-signed", "shim-signed", "shim-helpers-arm64-signed", "shim-unsigned")
    loaders = [resolved[name] for name in names]
    (tmp_path / "debs").mkdir()
    package_cache.provide(apt, loaders, tmp_path / "debs", CACHE / "packages-of-aarch64")
    files = set()
    for each in loaders:
        argv = ["dpkg-deb", "--contents", tmp_path / "debs" / each.file]
        listed = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
        files |= {line.split()[5].removeprefix("./") for line in listed.splitlines()}
    assert set(esp_files("Debian", "aarch64").values()) <= files


def test_programs_of_this_host_run_without_a_proof():
    foreign.demand(platform.machine(), Path("/nonexistent"), Runner())


def test_what_cannot_be_tried_is_not_blamed_on_the_emulator(tmp_path):
    with pytest.raises(CommandError, match="running a program of") as failure:
        foreign.demand(other(), tmp_path, Runner(), prefix=("false",))
    assert failure.value.returncode == 1


def test_programs_of_another_architecture_run_here(tmp_path):
    need_emulation(tmp_path)
    foreign.demand(other(), tmp_path, Runner(), prefix=ROOT)
    assert not list(tmp_path.iterdir())


def test_a_host_that_cannot_run_them_is_told_what_to_install(tmp_path, monkeypatch):
    # No machine has this number: the kernel knows nobody who would run it.
    unknown = replace(foreign._PROGRAMS[other()], number=0x4C41)
    monkeypatch.setitem(foreign._PROGRAMS, other(), unknown)
    with pytest.raises(HostError, match=f"programs of {other()} do not run on this host") as caught:
        foreign.demand(other(), tmp_path, Runner(), prefix=ROOT)
    assert "qemu-user-static" in caught.value.hint
    assert not list(tmp_path.iterdir())


def other() -> str:
    """An architecture that this host is not."""
    return "x86_64" if platform.machine() == "aarch64" else "aarch64"


ROOT = () if os.geteuid() == 0 else ("unshare", "--map-root-user", "--map-auto", "--mount")


def need_emulation(folder: Path) -> None:
    """Skip where no program of another architecture runs, and fail for that in CI."""
    try:
        foreign.demand(other(), folder, Runner(), prefix=ROOT)
    except HostError as error:
        cannot(str(error))


CHECKS = (
    *("console", "network", "units", "sshd", "password of root", "ssh", "identity"),
    *("permissions", "room", "root grows", "shutdown", "second boot"),
)
skipped_unless_asked_for = pytest.mark.skipif(
    os.environ.get("LAGO_IMAGES_TEST_BOOTS") != "all",
    reason="takes a quarter of an hour; LAGO_IMAGES_TEST_BOOTS=all runs it",
)


def boots(test):
    """A test of the bootstrapped disk, whose emulated package scripts take as long as they take."""
    return pytest.mark.timeout(4 * 3600)(skipped_unless_asked_for(test))


@pytest.fixture(scope="module")
def debian(tmp_path_factory) -> images.Image:
    """A bootstrapped Debian 13."""
    need("mmdebstrap", "mkfs.vfat", "mcopy", "qemu-system-aarch64", "qemu-img")
    if not all(Path(file).exists() for file in machine_for("aarch64").files):
        cannot("UEFI firmware is not installed (package qemu-efi-aarch64)")
    if platform.machine() != "aarch64":
        need_emulation(tmp_path_factory.mktemp("emulation"))
    return images.debian13_arm()


@boots
def test_a_debian_is_bootstrapped_and_boots_under_uefi(debian, tmp_path):
    assert {each.arch for each in debian.packages} == {"arm64", "all"}
    work = tmp_path / "work"
    work.mkdir()
    spec = images.a_spec(images.DEBIAN13_ARM + "root-password password:s3cret\n")
    runner, accel = Runner(log=tmp_path / "log"), acceleration()
    context = images.a_context(tmp_path)
    done = customise(spec, debian.copy(tmp_path), work, context, runner, accel=accel)
    assert done.engine is not None
    assert (done.engine.name == "namespace") == (platform.machine() == "aarch64")
    bench = Bench(
        accel=accel,
        timeout=900,
        workdir=work,
        runner=runner,
        clock=time.monotonic,
        console_log=tmp_path / "console.log",
    )
    booted = boot_test(
        Subject(disk=done.prepared.disk, fmt="raw", arch="aarch64"),
        bench,
        Questions(look_inside=True, logins=Logins(passwords={"root": "s3cret"})),
    )
    assert set(booted.test.firmware) == {"uefi"}
    assert booted.test.checks == CHECKS
    assert booted.packages == debian.packages
    assert booted.boot_files is not None
    # GRUB's own unit writes it at each start. Where the guest was so slow that systemd gave up
    # waiting for the EFI system partition, that is unread, too.
    assert booted.boot_files.unread == ("/boot/grub/grubenv",)
    assert booted.boot_files.files == debian.boot_files.files
    assert booted.secrets == ()


# What an update of GRUB does, on an EFI system partition from which all is lost.
RENEW = """
exec 2>&1
rm -r /boot/efi/EFI
DEBIAN_FRONTEND=noninteractive dpkg-reconfigure grub-efi-arm64
cmp /boot/efi/EFI/BOOT/BOOTAA64.EFI /usr/lib/shim/shimaa64.efi.signed
cmp /boot/efi/EFI/BOOT/grubaa64.efi /usr/lib/grub/arm64-efi-signed/grubaa64.efi.signed
cat /boot/grub/grub.cfg
sync
"""


@boots
def test_its_boot_loader_is_renewed_by_updates_and_starts_it(debian, tmp_path):
    disk = overlay(debian.disk, tmp_path / "disk.qcow2")
    console = tmp_path / "console.log"
    with started(disk, console, arch="aarch64", firmware="uefi") as guest:
        renewed = guest.run(RENEW)
    assert "Installation finished. No error reported." in renewed
    assert "differ" not in renewed
    assert "### BEGIN /etc/grub.d/10_linux ###" in renewed
    with started(disk, console, arch="aarch64", firmware="uefi") as guest:
        assert guest.run("uname -m").strip() == "aarch64"
