import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lago_images.building.bases.bootstrap.build import disk_size
from lago_images.building.bases.bootstrap.debian import Mirrors, find_release, recipe, recipe_again
from lago_images.building.bases.bootstrap.disk import esp_files
from lago_images.building.bases.bootstrap.guest_files import Guest, make_guest
from lago_images.building.bases.bootstrap.layout import Layout
from lago_images.errors import BuildError
from lago_images.specs.names import ARCHITECTURES
from lago_images.specs.parse import parse
from tests.support.builders import lines

GUEST = Guest(
    title="t", hostname="h", layout=Layout(size=2**30, has_uefi=True, identity="sha256:1")
)
HOST = Mirrors.of("http://mirror.example/debian")


def spec(*more, base="debian-12", arch="x86_64"):
    return lines(*more, base=f"bootstrap:{base}", arch=arch)


@pytest.mark.parametrize("name", ["debian-12", "debian12", "bookworm", "debian-bookworm", "12"])
def test_a_release_is_found_by_any_spelling(name):
    release = find_release(name)
    assert release is not None
    assert release.codename == "bookworm"


@pytest.mark.parametrize(
    "name", ["debian-1", "debian-122", "bookworms", "ubuntu-12", "ubuntu-24x04", "debian-noble", ""]
)
def test_unknown_release_names_are_refused(name):
    assert find_release(name) is None


def test_sources_include_security_and_updates():
    assert recipe(spec(), HOST).sources == (
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/debian-security bookworm-security main",
    )


def test_mmdebstraps_default_mirror_is_used_without_a_mirror():
    assert recipe(spec(), None).sources == ()


def test_the_specs_mirror_takes_precedence_over_the_hosts():
    sources = recipe(spec("#mirror=http://other.example/x/debian/"), HOST).sources
    assert sources[0] == "deb http://other.example/x/debian bookworm main"
    assert sources[2] == "deb http://other.example/x/debian-security bookworm-security main"


def test_a_snapshot_is_of_both_archives_and_may_be_old():
    wanted = spec("#mirror=http://s.example/archive/debian", "#snapshot=20260131T120000Z")
    assert recipe(wanted, None).sources[2] == (
        "deb [check-valid-until=no] http://s.example/archive/debian-security/20260131T120000Z "
        "bookworm-security main"
    )


@pytest.mark.parametrize(
    ("more", "host"),
    [
        ((), HOST),
        ((), Mirrors.of("http://m.example/debian", "http://other.example/security")),
        ((), None),
        (("#mirror=http://s.example/archive/debian", "#snapshot=20260131T120000Z"), None),
    ],
)
def test_a_recipe_is_decided_again_by_what_a_manifest_has_of_it(more, host):
    first = recipe(spec(*more), host)
    assert recipe_again(spec(*more), first.detail) == first


@pytest.mark.parametrize(
    "detail",
    [
        "deb [trusted=yes] http://m.example/debian bookworm main",
        "deb http://m.example/debian bookworm main; deb http://x.example/evil sid main",
        "deb http://user:pw@m.example/debian bookworm main",
        "file:/etc/passwd",
        "",
    ],
)
def test_mirrors_that_no_recipe_would_have_are_refused(detail):
    with pytest.raises(BuildError, match="its spec does not say so"):
        recipe_again(spec(), detail)


def test_a_mirror_may_have_its_security_archive_anywhere():
    mirrors = "#mirror=http://s.example/main/ http://s.example/updates"
    assert recipe(spec(mirrors, "#snapshot=20260131T120000Z"), HOST).sources == (
        "deb [check-valid-until=no] http://s.example/main/20260131T120000Z bookworm main",
        "deb [check-valid-until=no] http://s.example/main/20260131T120000Z bookworm-updates main",
        (
            "deb [check-valid-until=no] http://s.example/updates/20260131T120000Z "
            "bookworm-security main"
        ),
    )


@pytest.mark.parametrize(
    ("main", "security"),
    [
        ("http://debian/debian", "http://debian/debian-security"),
        ("http://m/debian/x/debian", "http://m/debian/x/debian-security"),
        ("http://debian", "http://debian"),
        ("http://m/debian/all", "http://m/debian/all"),
    ],
)
def test_the_security_archive_is_derived_from_the_mirror(main, security):
    assert Mirrors.of(main).security == security


def test_an_ubuntu_comes_from_ubuntus_archive_whatever_the_host_uses():
    made = recipe(spec(base="ubuntu-24.04"), HOST)
    assert made.release.title == "Ubuntu 24.04 (noble)"
    assert made.sources == (
        "deb http://archive.ubuntu.com/ubuntu noble main universe",
        "deb http://archive.ubuntu.com/ubuntu noble-updates main universe",
        "deb http://security.ubuntu.com/ubuntu noble-security main universe",
    )
    packages = set(made.packages)
    assert {"linux-image-virtual", "initramfs-tools", "shim-signed", "grub-pc"} <= packages
    assert not packages & {"linux-image-cloud-amd64", "grub-cloud-amd64", "isc-dhcp-client"}


def test_an_ubuntu_is_decided_again_from_what_its_build_recorded():
    wanted = spec("#mirror=http://m.example/ubuntu", base="ubuntu-24.04")
    for each in (wanted, spec(base="ubuntu-24.04")):
        made = recipe(each, HOST)
        assert recipe_again(each, made.detail) == made


def test_an_ubuntu_mirror_has_its_security_updates_too():
    read, problems = parse(
        "#base=bootstrap:ubuntu-26.04\n#arch=x86_64\n#distro=ubuntu\n#mirror=http://m.example/ubuntu",
        name="u",
        path="image-specs/u",
    )
    assert problems == []
    assert read is not None
    assert recipe(read, HOST).sources[2] == (
        "deb http://m.example/ubuntu resolute-security main universe"
    )


def test_an_ubuntu_guest_boots_its_own_kernel_and_is_named_ubuntu(tmp_path: Path):
    layout = replace(GUEST.layout, distribution="Ubuntu")
    folder = made(tmp_path / "guest", replace(GUEST, layout=layout))
    assert "  linux /boot/vmlinuz root=" in (folder / "boot/grub/grub.cfg").read_text()
    assert "GRUB_DISTRIBUTOR=Ubuntu\n" in (folder / "etc/default/grub").read_text()
    assert not (folder / "etc/grub.d/enable_cloud").exists()


def test_the_efi_partition_has_the_distributions_own_folder():
    debian = esp_files("Debian", "x86_64")
    assert debian["EFI/debian/shimx64.efi"] == "usr/lib/shim/shimx64.efi.signed"
    ubuntu = esp_files("Ubuntu", "x86_64")
    assert ubuntu["EFI/ubuntu/shimx64.efi"] == "usr/lib/shim/shimx64.efi.signed.latest"
    assert not [name for name in ubuntu if "debian" in name]


def test_the_efi_partition_of_an_arm_machine_has_its_programs_alone():
    files = esp_files("Debian", "aarch64")
    grub = "usr/lib/grub/arm64-efi-signed/grubaa64.efi.signed"
    assert files["EFI/BOOT/BOOTAA64.EFI"] == "usr/lib/shim/shimaa64.efi.signed"
    assert files["EFI/BOOT/grubaa64.efi"] == files["EFI/debian/grubaa64.efi"] == grub
    assert not [name for pair in files.items() for name in pair if "x64" in name.lower()]
    assert len(files) == len(esp_files("Debian", "x86_64"))


def test_an_arm_guest_has_no_boot_loader_for_a_bios():
    made = recipe(spec(base="debian-13", arch="aarch64"), HOST)
    assert made.arch == "arm64"
    assert {"linux-image-cloud-arm64", "grub-efi-arm64-signed", "shim-signed"} <= set(made.packages)
    assert not [name for name in made.packages if "amd64" in name or "grub-cloud" in name]
    assert any("force_efi_extra_removable boolean true" in line for line in made.answers)
    assert recipe(spec(), HOST).answers == ()


def test_an_arm_guest_speaks_on_its_own_serial_line(tmp_path: Path):
    layout = replace(GUEST.layout, arch="aarch64")
    folder = made(tmp_path / "guest", replace(GUEST, layout=layout))
    menu = (folder / "boot/grub/grub.cfg").read_text()
    assert " console=ttyAMA0,115200n8 " in menu
    assert "ttyS0" not in menu
    assert "serial" not in (folder / "etc/default/grub").read_text()
    assert (folder / "boot/grub/arm64-efi/core.efi").exists()
    assert not (folder / "etc/grub.d/enable_cloud").exists()
    assert (folder / "boot/efi").is_dir()


def test_the_specs_packages_are_added_to_the_guests():
    packages = recipe(spec("#packages=nfs-common, tgt"), HOST).packages
    assert packages[-2:] == ("nfs-common", "tgt")
    assert {"qemu-guest-agent", "openssh-server", "linux-image-cloud-amd64"} <= set(packages)


def test_a_requested_kernel_replaces_the_cloud_kernel():
    packages = recipe(spec("#packages=linux-image-amd64 tgt"), HOST).packages
    assert [name for name in packages if name.startswith("linux-image-")] == ["linux-image-amd64"]


def test_boot_loaders_and_cloud_init_come_as_the_spec_says():
    assert "grub-cloud-amd64" in recipe(spec(), HOST).packages
    assert "grub-cloud-amd64" in recipe(spec("#firmware=uefi"), HOST).packages
    assert "grub-cloud-amd64" not in recipe(spec("#firmware=bios"), HOST).packages
    cloud = {"cloud-init", "net-tools", "openresolv"}
    assert cloud <= set(recipe(spec("#cloud-init=yes"), HOST).packages)
    assert not cloud & set(recipe(spec("#cloud-init=no"), HOST).packages)


def test_the_disk_size_is_6_gib_or_the_specs():
    assert disk_size(spec()) == 6 * 2**30
    assert disk_size(spec("#size=10G")) == 10 * 2**30


_VALUES = {
    "arch": st.sampled_from(sorted(ARCHITECTURES)),
    "base": st.sampled_from([f"bootstrap:{name}" for name in ("debian-11", "debian-13", "x")]),
    "size": st.from_regex(r"[0-9]{1,12}[KMGT]?", fullmatch=True),
    "mirror": st.lists(
        st.sampled_from(
            ["http", "HTTP://", "https://", "[::1]", "m", "/debian", "?", "/", "{x}", " "]
        )
    ).map("".join),
    "snapshot": st.sampled_from(["20260131T120000Z", "20260131", ""]),
    "packages": st.text("ab-+. ,:=", max_size=12),
}


@given(st.fixed_dictionaries({}, optional=_VALUES), st.booleans())
@settings(max_examples=500)
@example({"arch": "aarch64"}, False)
@example({"arch": "aarch64", "base": "bootstrap:debian-11"}, False)
@example({"size": "100M"}, False)
@example({"size": "1073741825"}, False)
@example({"snapshot": "20260131T120000Z"}, True)
@example({"mirror": "http://m/debian http://m/security"}, True)
def test_every_spec_without_problems_has_a_recipe(properties, known):
    lines = {"base": "bootstrap:debian-12", "arch": "x86_64", "distro": "debian", **properties}
    text = "".join(f"#{key}={value}\n" for key, value in lines.items())
    made, problems = parse(text, name="image", path="image-specs/image")
    if made is None or problems:
        return
    assert disk_size(made) % 2**20 == 0
    assert disk_size(made) >= 2**29
    for line in recipe(made, HOST if known else None).sources:
        assert re.fullmatch(
            r"deb (\[check-valid-until=no\] )?https?://[^\s\[\]]+ [a-z-]+ main", line
        )


def test_guest_files_are_never_written_outside_the_guests_folder(tmp_path: Path):
    rootfs, outside = tmp_path / "rootfs", tmp_path / "outside"
    (rootfs / "boot").mkdir(parents=True)
    outside.mkdir()
    (rootfs / "boot" / "grub").symlink_to(outside)
    with pytest.raises(BuildError, match="outside the guest"):
        make_guest(rootfs, GUEST)
    assert not list(outside.iterdir())


def made(folder: Path, guest: Guest) -> Path:
    folder.mkdir()
    make_guest(folder, guest)
    return folder


def test_a_guest_for_a_bios_alone_knows_no_efi_partition(tmp_path: Path):
    layout = replace(GUEST.layout, has_uefi=False)
    both, bios = made(tmp_path / "both", GUEST), tmp_path / "bios"
    made(bios, replace(GUEST, layout=layout))
    assert f"UUID={GUEST.layout.esp_uuid} /boot/efi vfat" in (both / "etc/fstab").read_text()
    assert (both / "etc/grub.d/enable_cloud").exists()
    assert (both / "boot/efi").is_dir()
    assert "/boot/efi" not in (bios / "etc/fstab").read_text()
    assert not (bios / "etc/grub.d").exists()


def test_a_guest_with_cloud_init_leaves_the_network_to_it(tmp_path: Path):
    plain = made(tmp_path / "plain", GUEST)
    cloud = made(tmp_path / "cloud", replace(GUEST, has_cloud_init=True))
    assert "iface eth0 inet dhcp" in (plain / "etc/network/interfaces").read_text()
    assert "iface eth0 " not in (cloud / "etc/network/interfaces").read_text()
    script = cloud / "usr/local/lib/lago-images/network-profile"
    assert (
        f"script /{script.relative_to(cloud)}\n" in (cloud / "etc/network/interfaces").read_text()
    )
    assert script.stat().st_mode & 0o777 == 0o755
    config = (cloud / "etc/cloud/cloud.cfg.d/95_lago-images.cfg").read_text()
    assert "datasource_list: [ NoCloud, ConfigDrive, OpenStack, Ec2 ]\n" in config
    assert "locale: C.UTF-8\n" in config
    assert "renderers: [ eni ]\n" in config
    assert not (plain / "etc/cloud").exists()


def test_links_made_by_packages_are_replaced_and_not_followed(tmp_path: Path):
    rootfs, outside = tmp_path / "rootfs", tmp_path / "outside"
    (rootfs / "etc").mkdir(parents=True)
    outside.write_text("host")
    for name in ("resolv.conf", "hostname", "machine-id"):
        (rootfs / "etc" / name).symlink_to(outside)
    make_guest(rootfs, GUEST)
    assert outside.read_text() == "host"
    assert (rootfs / "etc/hostname").read_text() == "h\n"
    assert not (rootfs / "etc/resolv.conf").exists()
    assert (rootfs / "etc/machine-id").stat().st_size == 0
