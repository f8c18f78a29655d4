"""A bootstrapped Debian: what is in it; how it starts is in test_firmware.py."""

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
from contextlib import contextmanager

import pytest

from lago_images.building.bases.bootstrap import build
from lago_images.building.bases.bootstrap.disk import write_disk
from lago_images.building.bases.bootstrap.layout import Layout
from lago_images.errors import BuildError, CommandError
from lago_images.host.process import Runner
from tests.support.images import (
    DEBIAN12,
    a_context,
    a_spec,
    allocated,
    built_debian12,
    list_ext4,
    read_ext4,
    stat_ext4,
)
from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.server_threads import in_thread
from tests.tools import need

pytestmark = pytest.mark.real
need("mmdebstrap", "qemu-img", "qemu-system-x86_64", "debugfs")


def test_the_disk_is_sparse_and_has_the_specs_size(debian12):
    assert debian12.disk.stat().st_size == 6 * 2**30
    assert allocated(debian12.disk) < 700 * 2**20


def test_the_required_packages_are_installed(debian12):
    names = {package.name for package in debian12.packages}
    assert {"openssh-server", "qemu-guest-agent", "ifupdown", "systemd-sysv"} <= names


def test_the_files_of_the_boot_folder_are_listed_as_they_are_on_the_disk(debian12):
    listed = {each.path: each for each in debian12.boot_files.files}
    assert debian12.boot_files.unread == ()
    menu = read_ext4(debian12.disk, "/boot/grub/grub.cfg").encode()
    assert listed["/boot/grub/grub.cfg"].size == len(menu)
    assert listed["/boot/grub/grub.cfg"].sha256 == hashlib.sha256(menu).hexdigest()
    starts = {path.rpartition("/")[2].partition("-")[0] for path in listed}
    assert {"vmlinuz", "initrd.img", "shimx64.efi"} <= starts


def test_the_guest_is_set_up_for_lago_and_a_serial_console(debian12):
    grub = read_ext4(debian12.disk, "/boot/grub/grub.cfg")
    uuid = re.search(r"root=UUID=(\S+)", grub)
    assert uuid
    assert "net.ifnames=0 biosdevname=0" in grub
    assert "console=ttyS0" in grub
    assert read_ext4(debian12.disk, "/etc/fstab").startswith(f"UUID={uuid[1]} / ext4 ")
    assert "iface eth0 inet dhcp" in read_ext4(debian12.disk, "/etc/network/interfaces")


@pytest.mark.parametrize(
    "path",
    [
        "/etc/resolv.conf",
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/apt/apt.conf.d/99mmdebstrap",
        "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
        "/var/cache/apt/pkgcache.bin",
    ],
)
def test_the_disk_has_no_files_of_the_host_or_the_bootstrap(debian12, path):
    with pytest.raises(FileNotFoundError):
        read_ext4(debian12.disk, path)


def test_network_online_target_waits_for_the_network(debian12):
    wants = list_ext4(debian12.disk, "/etc/systemd/system/network-online.target.wants")
    assert "ifupdown-wait-online.service" in wants


@pytest.mark.parametrize(
    ("folder", "gone"),
    [
        ("/etc/iscsi", "initiatorname.iscsi"),
        ("/etc/nvme", "hostnqn"),
        ("/etc/nvme", "hostid"),
        ("/etc/dropbear", "dropbear_rsa_host_key"),
        ("/etc/ssl/private", "ssl-cert-snakeoil.key"),
        ("/etc/bind", "rndc.key"),
        ("/etc/ssh", "ssh_host_ed25519_key"),
    ],
)
def test_identities_generated_by_package_scripts_are_removed(debian13_bios, folder, gone):
    names = list_ext4(debian13_bios.image.disk, folder)
    assert gone not in names
    wants = list_ext4(debian13_bios.image.disk, "/etc/systemd/system/sysinit.target.wants")
    assert "renew-identities.service" in wants
    assert "ssh-host-keys.service" in list_ext4(
        debian13_bios.image.disk, "/etc/systemd/system/multi-user.target.wants"
    )


def test_no_private_key_is_left(debian13_bios):
    assert debian13_bios.secrets == ()


def test_package_scripts_see_the_guests_host_name(debian13_bios):
    assert "\nmyhostname = my-image\n" in read_ext4(
        debian13_bios.image.disk, "/etc/postfix/main.cf"
    )
    assert socket.gethostname() not in read_ext4(debian13_bios.image.disk, "/etc/hosts").split()


@pytest.mark.parametrize("path", ["/etc", "/etc/pam.d/common-auth", "/usr/bin/sudo", "/"])
def test_the_scratch_folders_permissions_are_not_the_guests(debian13_bios, path):
    facts = stat_ext4(debian13_bios.image.disk, path)
    mode = int(re.search(r"Mode:\s+(\d+)", facts)[1], 8)
    assert mode & 0o022 == 0
    assert re.search(r"User:\s+0\s+Group:\s+0\b", facts)
    assert "acl" not in facts
    assert mode & 0o2000 == 0


def test_a_disk_for_a_bios_alone_has_one_partition_and_no_efi_files(debian13_bios):
    table = subprocess.run(
        ["sfdisk", "--json", debian13_bios.image.disk], capture_output=True, check=True
    )
    found = json.loads(table.stdout)["partitiontable"]
    assert found["label"] == "dos"
    assert [each["start"] for each in found["partitions"]] == [2048]
    assert "/boot/efi" not in read_ext4(debian13_bios.image.disk, "/etc/fstab")
    assert "efi" not in list_ext4(debian13_bios.image.disk, "/boot")


def test_equal_packages_give_equal_bytes_also_from_the_cache(debian12, tmp_path, monkeypatch):
    """Whoever builds, wherever and when."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    cache = tmp_path / "cache"
    old = os.umask(0o077)
    try:
        first, again = debian12, built_debian12(tmp_path / "again, elsewhere", cache)
    finally:
        os.umask(old)
    if again.packages != first.packages:
        # The archive has moved on since the kept disk was made.
        first, again = again, built_debian12(tmp_path / "anew")
    check_same(first, again)
    check_same(again, built_debian12(tmp_path / "cached", cache))
    log = (tmp_path / "cached/log").read_text()
    assert ("tar --extract" in log, "mmdebstrap --mode" in log) == (True, False)


def check_same(first, again):
    assert again.packages == first.packages
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "raw", first.disk, again.disk]
    done = subprocess.run(compare, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "Images are identical."


def test_updates_and_security_archives_are_configured(debian12):
    sources = read_ext4(debian12.disk, "/etc/apt/sources.list")
    for suite in ("bookworm", "bookworm-updates", "bookworm-security"):
        assert f" {suite} main" in sources


def test_a_missing_mirror_fails_and_leaves_no_files(tmp_path):
    spec = a_spec(DEBIAN12 + "#mirror=http://127.0.0.1:1/debian\n")
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(BuildError, match=r"bootstrapping Debian 12 \(bookworm\) failed"):
        build.prepare(spec, "tests", work, a_context(tmp_path), Runner(environ=os.environ))
    assert not list(work.iterdir())


@contextmanager
def a_proxy():
    """A proxy that has nothing: its port, and the users that were told to it."""
    users = set()

    class Handler(QuietHandler):
        def do_GET(self):
            users.add(self.headers.get("Proxy-Authorization"))
            self.send_error(404)

    with LoopbackServer(Handler) as server, in_thread(server):
        yield server.server_port, users


def program(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


@pytest.mark.parametrize("told", ["apt", "environment"])
def test_a_proxys_password_reaches_the_proxy_only(tmp_path, told):
    spec = a_spec(DEBIAN12 + "#mirror=http://mirror.invalid/debian\n")
    work = tmp_path / "work"
    work.mkdir()
    environ = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    program(
        tmp_path / "bin/mmdebstrap",
        'for a; do case $a in --aptopt=*) stat -c %a "${a#*=}" >> "$0.modes";; esac; done\n'
        'exec /usr/bin/mmdebstrap "$@"\n',
    )
    with a_proxy() as (port, users):
        url = f"http://me:s3cret@127.0.0.1:{port}/"
        if told == "apt":
            setting = f'Acquire::http::Proxy "{url}";'
            program(
                tmp_path / "bin/apt-config",
                f'[ "$1" != dump ] || exec echo \'{setting}\'\nexec /usr/bin/apt-config "$@"\n',
            )
        else:
            environ["http_proxy"] = url
        runner = Runner(environ=environ, log=tmp_path / "log")
        with pytest.raises(BuildError) as caught:
            build.prepare(spec, "tests", work, a_context(tmp_path), runner)
    assert users == {"Basic " + base64.b64encode(b"me:s3cret").decode()}
    log = (tmp_path / "log").read_text()
    assert "mirror.invalid" in log
    assert isinstance(caught.value.__cause__, CommandError)
    assert "s3cret" not in log + caught.value.message + "".join(caught.value.__cause__.tail)
    assert (tmp_path / "bin/mmdebstrap.modes").read_text() == "600\n"
    assert not list(work.iterdir())


def test_debian_is_bootstrapped_where_the_hosts_apt_lacks_its_keys(tmp_path):
    """Ubuntu is one: its debian-archive-keyring puts nothing into trusted.gpg.d."""
    spec = a_spec(DEBIAN12 + "#packages=no-such-package\n")
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "trusted.gpg.d").mkdir()
    program(
        tmp_path / "bin/apt-config",
        f"exec /usr/bin/apt-config -o Dir::Etc::trusted={tmp_path}/trusted.gpg "
        f'-o Dir::Etc::trustedparts={tmp_path}/trusted.gpg.d "$@"\n',
    )
    environ = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    # The signatures have been checked by then.
    with pytest.raises(BuildError, match="Unable to locate package no-such-package"):
        build.prepare(spec, "tests", work, a_context(tmp_path), Runner(environ=environ))


def test_a_disk_that_is_too_small_is_reported_as_such(tmp_path):
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    (rootfs / "large").write_bytes(os.urandom(20 * 2**20))
    layout = Layout(size=16 * 2**20, has_uefi=False, identity="tests")
    with pytest.raises(BuildError, match="could not be made") as caught:
        write_disk(rootfs, tmp_path / "disk", layout, tmp_path, Runner(), epoch=0)
    assert "size=" in caught.value.hint
