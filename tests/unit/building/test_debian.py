from pathlib import Path

import pytest

from lago_images.building.bases.bootstrap import disk_size
from lago_images.building.bases.debian import Mirrors, find_release, recipe
from lago_images.building.bases.guest import Guest, make_guest
from lago_images.errors import BuildError, SpecError
from tests.support.images import a_spec

HOST = Mirrors.of("http://mirror.example/debian")


def spec(*lines, base="debian-12"):
    properties = ["#name=d", f"#base=bootstrap:{base}", "#arch=x86_64", "#distro=debian", *lines]
    return a_spec("\n".join(properties) + "\n")


@pytest.mark.parametrize("name", ["debian-12", "debian12", "bookworm", "debian-bookworm", "12"])
def test_a_release_has_many_spellings(name):
    release = find_release(name)
    assert release is not None
    assert release.codename == "bookworm"


@pytest.mark.parametrize("name", ["debian-1", "debian-122", "bookworms", "ubuntu-12", ""])
def test_other_names_are_no_release(name):
    assert find_release(name) is None


def test_security_and_updates_come_along():
    assert recipe(spec(), HOST).sources == (
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/debian-security bookworm-security main",
    )


def test_without_a_mirror_of_its_own_mmdebstrap_knows_best():
    assert recipe(spec(), None).sources == ()


def test_the_spec_s_mirror_wins_over_the_host_s():
    sources = recipe(spec("#mirror=http://other.example/x/debian/"), HOST).sources
    assert sources[0] == "deb http://other.example/x/debian bookworm main"
    assert sources[2] == "deb http://other.example/x/debian-security bookworm-security main"


def test_a_snapshot_is_of_both_archives_and_may_be_old():
    wanted = spec("#mirror=http://s.example/archive/debian", "#snapshot=20260131T120000Z")
    assert recipe(wanted, None).sources[2] == (
        "deb [check-valid-until=no] http://s.example/archive/debian-security/20260131T120000Z "
        "bookworm-security main"
    )


def test_a_snapshot_needs_a_mirror_that_has_it():
    with pytest.raises(SpecError, match="image-specs/image:5: snapshot needs a mirror="):
        recipe(spec("#snapshot=20260131T120000Z"), HOST)


def test_more_packages_are_added_to_the_guest_s():
    packages = recipe(spec("#packages=nfs-common, tgt"), HOST).packages
    assert packages[-2:] == ("nfs-common", "tgt")
    assert {"qemu-guest-agent", "openssh-server", "linux-image-cloud-amd64"} <= set(packages)


def test_other_architectures_are_refused():
    wanted = a_spec("#name=d\n#base=bootstrap:debian-12\n#arch=aarch64\n#distro=debian\n")
    with pytest.raises(SpecError, match="image:3: bootstrap: makes disks for x86_64 only"):
        recipe(wanted, HOST)


def test_sizes():
    assert disk_size(spec()) == 6 * 2**30
    assert disk_size(spec("#size=10G")) == 10 * 2**30
    with pytest.raises(SpecError, match="at least 512M"):
        disk_size(spec("#size=100M"))


def test_a_guest_never_gets_written_outside_its_folder(tmp_path: Path):
    rootfs, outside = tmp_path / "rootfs", tmp_path / "outside"
    (rootfs / "boot").mkdir(parents=True)
    outside.mkdir()
    (rootfs / "boot" / "grub").symlink_to(outside)
    with pytest.raises(BuildError, match="outside the guest"):
        make_guest(rootfs, Guest(title="t", hostname="h", uuid="u"))
    assert not list(outside.iterdir())


def test_links_that_packages_made_are_replaced_not_followed(tmp_path: Path):
    rootfs, outside = tmp_path / "rootfs", tmp_path / "outside"
    (rootfs / "etc").mkdir(parents=True)
    outside.write_text("host")
    for name in ("resolv.conf", "hostname", "machine-id"):
        (rootfs / "etc" / name).symlink_to(outside)
    make_guest(rootfs, Guest(title="t", hostname="h", uuid="u"))
    assert outside.read_text() == "host"
    assert (rootfs / "etc/hostname").read_text() == "h\n"
    assert not (rootfs / "etc/resolv.conf").exists()
    assert (rootfs / "etc/machine-id").stat().st_size == 0
