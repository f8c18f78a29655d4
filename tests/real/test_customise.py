"""One launch of the real appliance: what it leaves in the disk, and what it does not."""

import re

import pytest

from lago_images.building.customise import sysprep
from lago_images.errors import BuildError, CommandError
from lago_images.repository.records.boot_files import compare
from tests.support.customised import SECRET, run_commands
from tests.support.images import allocated, list_ext4, read_ext4
from tests.tools import need

pytestmark = pytest.mark.real
need("virt-sysprep", "debugfs")

FAILING = """run-command true
write /etc/motd:hello
run-command echo the reason >&2; exit 7
run-command true
"""


@pytest.fixture
def read(layer):
    return lambda path: read_ext4(layer.prepared.disk, path)


def test_every_command_of_the_spec_takes_effect(read):
    assert read("/etc/motd") == "bye\ntwo"
    assert read("/etc/hello") == "hello"
    assert read("/srv/folder/inner") == "inner"
    assert read("/etc/ran") == "ran\n"
    assert read("/etc/hostname").strip() == "made-by-test"
    assert re.search(r"^root:\$", read("/etc/shadow"), re.MULTILINE)


def test_a_command_sees_no_credentials_and_no_network(read, layer):
    assert SECRET not in read("/etc/env-seen")
    assert read("/etc/nets-seen").split() == ["lo"]
    assert SECRET not in layer.log


def test_a_command_sees_the_proxy_without_its_password(read, layer):
    assert "http_proxy=http://proxy.example:3128\n" in read("/etc/env-seen")
    assert "not-for-guests" not in read("/etc/env-seen") + layer.log


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


def test_the_guest_generates_missing_identities_at_first_boot(read, layer):
    units = list_ext4(layer.prepared.disk, "/etc/systemd/system/sysinit.target.wants")
    assert "renew-identities.service" in units
    assert "gen-hostnqn" in read("/usr/local/lib/lago-images/renew-identities")


def test_a_remaining_private_key_is_told(layer):
    assert layer.prepared.secrets == ("/etc/made.key",)


def test_first_boot_scripts_are_in_order_and_wait_for_the_network(read, layer):
    names = list_ext4(layer.prepared.disk, "/usr/lib/virt-sysprep/scripts")
    assert [name[:10] for name in sorted(names)] == ["0000.0001.", "0000.0002."]
    drop_in = read("/etc/systemd/system/guestfs-firstboot.service.d/network-online.conf")
    assert "After=network-online.target" in drop_in


def test_unused_blocks_are_discarded(layer):
    # 120 MiB were written and removed. Inode tables and the journal may come into use.
    assert allocated(layer.prepared.disk) < layer.before + 40 * 2**20


def test_packages_are_listed_without_a_second_launch(layer, debian12):
    assert layer.prepared.packages == debian12.packages
    assert len(layer.prepared.packages) > 100
    assert layer.log.count("+ virt-") == 1


def test_boot_files_are_listed_as_the_commands_left_them(layer, debian12):
    changes = compare(debian12.boot_files, layer.prepared.boot_files)
    assert [change.path for change in changes.changed] == ["/boot/grub/grub.cfg"]
    assert (changes.added, changes.removed, changes.unread) == ((), (), ())


def test_the_work_directory_holds_only_the_disk(layer):
    assert list(layer.work.iterdir()) == [layer.prepared.disk]


FOREIGN = """write /etc/motd:hello
write /tmp/left:left
write /etc/nvme/hostid:the same in all
write /etc/ssh/ssh_host_rsa_key:the same in all
firstboot-command id
"""


@pytest.fixture(scope="session")
def foreign(tmp_path_factory, debian13_bios):
    """A guest whose programs this host cannot run, as far as we know; its disk has an MBR."""
    folder = tmp_path_factory.mktemp("foreign")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sysprep, "_runs_here", lambda _arch: False)
        return run_commands(folder, debian13_bios.image, FOREIGN)


def test_a_guest_of_another_architecture_is_cleaned(foreign):
    disk = foreign.prepared.disk
    assert read_ext4(disk, "/etc/motd") == "hello"
    assert read_ext4(disk, "/etc/machine-id") == ""
    # What a command names is meant to be there; no image has a host key of sshd's.
    assert "hostid" in list_ext4(disk, "/etc/nvme")
    assert "hostnqn" not in list_ext4(disk, "/etc/nvme")
    assert list_ext4(disk, "/tmp") == []
    assert not [name for name in list_ext4(disk, "/etc/ssh") if name.startswith("ssh_host_")]
    wants = list_ext4(disk, "/etc/systemd/system/multi-user.target.wants")
    assert "ssh-host-keys.service" in wants
    drop_in = "/etc/systemd/system/guestfs-firstboot.service.d/network-online.conf"
    assert "After=network-online.target" in read_ext4(disk, drop_in)
    assert foreign.prepared.packages is None


def test_a_password_for_an_unknown_user_fails_in_a_guest_of_another_architecture(
    tmp_path, debian12
):
    text = "password root:password:x\npassword o'brien:password:x\n"
    refusal = pytest.raises(BuildError, match=r"^image-specs/image:\d+: password .*no such user")
    with pytest.MonkeyPatch.context() as patch, refusal as failure:
        patch.setattr(sysprep, "_runs_here", lambda _arch: False)
        run_commands(tmp_path, debian12, text)
    assert "o'brien" in str(failure.value)


def test_a_failing_command_is_reported_with_its_line_and_output(tmp_path, debian12):
    with pytest.raises(BuildError, match=r"^image-specs/image:7: run-command echo the rea") as e:
        # The kernel of the appliance names disks in the order of a race, which one disk alone wins.
        run_commands(tmp_path, debian12, FAILING, fstab="/dev/sda3 / ext4 defaults 0 1\n")
    assert isinstance(e.value.__cause__, CommandError)
    assert "the reason" in e.value.__cause__.tail
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["base.raw"]
