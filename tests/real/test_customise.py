"""One launch of the real appliance: what it leaves in the disk, and what it does not."""

import io
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lago_images.building.bases.prepared import Prepared
from lago_images.building.customise import sysprep
from lago_images.building.customise.sysprep import customise
from lago_images.console import Console
from lago_images.errors import BuildError, CommandError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.repository.records.boot_files import compare
from lago_images.settings import Settings
from tests.support.images import (
    Image,
    a_context,
    a_spec,
    allocated,
    list_ext4,
    read_ext4,
    write_ext4,
)
from tests.tools import need

pytestmark = pytest.mark.real
need("virt-sysprep", "debugfs")

HEAD = "#name=c\n#base=layer:debian-12\n#arch=x86_64\n#distro=debian\n"
OPERATIONS = r"""root-password password:123456
hostname made-by-test
write /etc/motd:hello\
two
edit /etc/motd:s/hello/bye/
upload files/hello:/etc/hello
copy-in files/folder:/srv
run files/script.sh
link /etc/motd:/etc/linked
run-command env > /etc/env-seen; ls /sys/class/net > /etc/nets-seen
run-command echo left > /var/log/left.log; echo left > /tmp/left; echo 1 > /var/lib/apt/lists/left
firstboot-command echo first
firstboot-command echo first
run-command echo '# made by a test' >> /boot/grub/grub.cfg
run-command (echo '-----BEGIN PRIVATE KEY-----'; echo x) > /etc/made.key
run-command mkdir /etc/nvme; cd /etc/nvme; echo x > hostid; echo x > /etc/ssh/ssh_host_rsa_key
run-command dd if=/dev/urandom of=/var/big bs=1M count=120 && sync && rm /var/big
"""
FAILING = """run-command true
write /etc/motd:hello
run-command echo the reason >&2; exit 7
run-command true
"""
SECRET = "not for guests"
PROXY = "http://me:not-for-guests@proxy.example:3128"


@dataclass(frozen=True)
class Done:
    prepared: Prepared
    before: int
    work: Path
    log: str
    warned: str


def work_folder(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp(name)
    files = folder / "root" / "files"
    (files / "folder").mkdir(parents=True)
    (files / "hello").write_text("hello")
    (files / "folder" / "inner").write_text("inner")
    (files / "script.sh").write_text("#!/bin/sh\necho ran > /etc/ran\n")
    return folder


def run(folder, image: Image, text, *, fstab="/dev/sda1 / ext4 errors=remount-ro 0 1\n"):
    environ = {
        **os.environ,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "GITHUB_TOKEN": SECRET,
        "http_proxy": PROXY,
    }
    context = a_context(folder, settings=Settings(network=False, folder=folder), environ=environ)
    work = folder / "work"
    work.mkdir()
    prepared = image.copy(work)
    # The kernel of the appliance names disks in the order of a race, which one disk alone wins.
    write_ext4(prepared.disk, "/etc/fstab", fstab)
    before = allocated(prepared.disk)
    runner = Runner(environ=environ, log=folder / "log")
    accel = Acceleration(name="tcg")
    context = replace(context, console=Console(stream=(warned := io.StringIO())))
    after = customise(a_spec(HEAD + text), prepared, work, context, runner, accel=accel)
    return Done(
        prepared=after,
        before=before,
        work=work,
        log=(folder / "log").read_text(),
        warned=warned.getvalue(),
    )


@pytest.fixture(scope="session")
def done(tmp_path_factory, debian12):
    return run(work_folder(tmp_path_factory, "customise"), debian12, OPERATIONS)


@pytest.fixture
def read(done):
    return lambda path: read_ext4(done.prepared.disk, path)


def test_every_command_of_the_spec_takes_effect(read):
    assert read("/etc/motd") == "bye\ntwo"
    assert read("/etc/hello") == "hello"
    assert read("/srv/folder/inner") == "inner"
    assert read("/etc/ran") == "ran\n"
    assert read("/etc/hostname").strip() == "made-by-test"
    assert re.search(r"^root:\$", read("/etc/shadow"), re.MULTILINE)


def test_a_command_sees_no_credentials_and_no_network(read, done):
    assert SECRET not in read("/etc/env-seen")
    assert read("/etc/nets-seen").split() == ["lo"]
    assert SECRET not in done.log


def test_a_command_sees_the_proxy_without_its_password(read, done):
    assert "http_proxy=http://proxy.example:3128\n" in read("/etc/env-seen")
    assert "not-for-guests" not in read("/etc/env-seen") + done.log


@pytest.mark.parametrize(
    "path",
    [
        "/tmp/left",
        "/tmp/builder.log",
        "/var/lib/apt/lists/left",
        "/var/big",
        "/etc/ssh/ssh_host_rsa_key",
        "/etc/ssh/ssh_host_ed25519_key",
        "/var/lib/systemd/random-seed",
        "/etc/nvme/hostid",
    ],
)
def test_no_trace_of_the_build_remains(read, path):
    with pytest.raises(FileNotFoundError):
        read(path)


def test_every_machine_gets_its_own_identity(read):
    assert read("/etc/machine-id") == ""
    assert read("/var/log/left.log") == ""
    assert "ssh-keygen -A" in read("/etc/systemd/system/ssh-host-keys.service")


def test_the_guest_generates_missing_identities_at_first_boot(read, done):
    units = list_ext4(done.prepared.disk, "/etc/systemd/system/sysinit.target.wants")
    assert "renew-identities.service" in units
    assert "gen-hostnqn" in read("/usr/local/lib/lago-images/renew-identities")


def test_a_remaining_private_key_is_warned_of(done):
    assert "every machine made of it the same: /etc/made.key\n" in done.warned


def test_first_boot_scripts_are_in_order_and_wait_for_the_network(read, done):
    names = list_ext4(done.prepared.disk, "/usr/lib/virt-sysprep/scripts")
    assert [name[:10] for name in sorted(names)] == ["0000.0001.", "0000.0002."]
    drop_in = read("/etc/systemd/system/guestfs-firstboot.service.d/network-online.conf")
    assert "After=network-online.target" in drop_in


def test_unused_blocks_are_discarded(done):
    # 120 MiB were written and removed. Inode tables and the journal may come into use.
    assert allocated(done.prepared.disk) < done.before + 40 * 2**20


def test_packages_are_listed_without_a_second_launch(done, debian12):
    assert done.prepared.packages == debian12.packages
    assert len(done.prepared.packages) > 100
    assert done.log.count("+ virt-") == 1


def test_boot_files_are_listed_as_the_commands_left_them(done, debian12):
    changes = compare(debian12.boot_files, done.prepared.boot_files)
    assert [change.path for change in changes.changed] == ["/boot/grub/grub.cfg"]
    assert (changes.added, changes.removed, changes.unread) == ((), (), ())


def test_the_work_directory_holds_only_the_disk(done):
    assert list(done.work.iterdir()) == [done.prepared.disk]


FOREIGN = """write /etc/motd:hello
write /tmp/left:left
write /etc/nvme/hostid:the same in all
write /etc/ssh/ssh_host_rsa_key:the same in all
firstboot-command id
"""


@pytest.fixture(scope="session")
def foreign(tmp_path_factory, debian12_cloud):
    """A guest whose programs this host cannot run, as far as we know; its disk has a GPT."""
    folder = work_folder(tmp_path_factory, "foreign")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sysprep, "_runs_here", lambda _arch: False)
        fstab = read_ext4(debian12_cloud.disk, "/etc/fstab")
        return run(folder, debian12_cloud, "mkdir /etc/nvme\n" + FOREIGN, fstab=fstab)


def test_a_guest_of_another_architecture_is_cleaned(foreign):
    disk = foreign.prepared.disk
    assert read_ext4(disk, "/etc/motd") == "hello"
    assert read_ext4(disk, "/etc/machine-id") == ""
    # What a command names is meant to be there; no image has a host key of sshd's.
    assert list_ext4(disk, "/etc/nvme") == ["hostid"]
    assert list_ext4(disk, "/tmp") == []
    assert not [name for name in list_ext4(disk, "/etc/ssh") if name.startswith("ssh_host_")]
    wants = list_ext4(disk, "/etc/systemd/system/multi-user.target.wants")
    assert "ssh-host-keys.service" in wants
    drop_in = "/etc/systemd/system/guestfs-firstboot.service.d/network-online.conf"
    assert "After=network-online.target" in read_ext4(disk, drop_in)
    assert foreign.prepared.packages is None


def test_a_password_for_an_unknown_user_fails_in_a_guest_of_another_architecture(
    tmp_path_factory, debian12
):
    folder = work_folder(tmp_path_factory, "nobody")
    text = "password root:password:x\npassword o'brien:password:x\n"
    refusal = pytest.raises(BuildError, match=r"^image-specs/image:\d+: password .*no such user")
    with pytest.MonkeyPatch.context() as patch, refusal as failure:
        patch.setattr(sysprep, "_runs_here", lambda _arch: False)
        run(folder, debian12, text)
    assert "o'brien" in str(failure.value)


def test_a_failing_command_is_reported_with_its_line_and_output(tmp_path_factory, debian12):
    folder = work_folder(tmp_path_factory, "failing")
    with pytest.raises(BuildError, match=r"^image-specs/image:7: run-command echo the rea") as e:
        run(folder, debian12, FAILING)
    assert isinstance(e.value.__cause__, CommandError)
    assert "the reason" in e.value.__cause__.tail
    assert [p.name for p in (folder / "work").iterdir()] == ["base.raw"]
