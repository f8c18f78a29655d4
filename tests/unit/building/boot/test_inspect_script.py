"""What the script that runs in a guest tells: here, in a folder for a guest's root."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from lago_images.building.boot.inspection import FailedUnit, Identity, parse, script

NEW = 4_000_000_000


@pytest.fixture
def guest(tmp_path):
    root = tmp_path / "guest"
    for folder in ("bin", "etc/ssh", "etc/iscsi", "var/lib/dhcp", "var/lib/dbus", "usr/local/lib"):
        (root / folder).mkdir(parents=True)
    return root


def told(root, call):
    text = re.sub(r"(?<=[ \"'=\n<])/(?=(?:etc|usr|var)\b)", f"{root}/", script(call))
    ran = subprocess.run(
        ["/bin/sh", "-c", text],
        env={"PATH": f"{root}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return parse(ran.stdout.replace(str(root), ""))


def old(path: Path, text: str = "x") -> None:
    path.write_text(text)
    os.utime(path, (1000, 1000))


def test_identities_older_than_the_boot_were_in_the_image(guest):
    old(guest / "etc/machine-id")
    old(guest / "etc/ssh/ssh_host_rsa_key")
    old(guest / "etc/ssh/ssh_host_rsa_key.pub")
    old(guest / "etc/iscsi/initiatorname.iscsi")
    (guest / "etc/ssh/ssh_host_ed25519_key").write_text("made at this boot")
    os.utime(guest / "etc/ssh/ssh_host_ed25519_key", (NEW, NEW))
    (guest / "var/lib/dbus/machine-id").symlink_to(guest / "etc/machine-id")
    files = ("/etc/iscsi/initiatorname.iscsi", "/etc/machine-id", "/etc/ssh/ssh_host_rsa_key")
    assert told(guest, "baked").baked == files


def test_an_empty_machine_id_and_what_a_spec_put_there_are_no_identities(guest):
    old(guest / "etc/machine-id", "")
    old(guest / "etc/iscsi/initiatorname.iscsi")
    kept = guest / "usr/local/lib/lago-images/kept-identities"
    kept.parent.mkdir()
    kept.write_text(f"{guest}/etc/iscsi/initiatorname.iscsi\n")
    assert told(guest, "baked").baked == ()


def test_files_that_others_than_root_may_write_to(guest):
    for name, mode in (("good", 0o644), ("everybodys", 0o666), ("groups", 0o664)):
        (guest / "etc" / name).write_text("x")
        (guest / "etc" / name).chmod(mode)
    (guest / "etc/link").symlink_to("everybodys")
    (guest / "etc/iscsi").chmod(0o1777)
    # Only root's own group is for nobody else: here it is that of whoever runs this.
    groups = ("/etc/groups",) if os.getegid() == 0 else ()
    assert told(guest, "writable").writable == ("/etc/everybodys", *groups)


def test_failed_units_are_told_with_their_journal(guest):
    (guest / "bin/systemctl").write_text(
        "#!/bin/sh\ncase $1 in\n"
        "list-units) printf '● a.service loaded failed failed A\\nb@x.mount loaded failed f\\n';;\n"
        "show) case $4 in a.service) echo timeout;; esac;;\n"
        "list-jobs) printf '12 c.service start running\\n13 d.target start waiting\\n';;\nesac\n"
    )
    (guest / "bin/journalctl").write_text(
        "#!/bin/sh\ncase \"$*\" in *=a.service*) printf 'Starting\\n unit b \\n';; esac\n"
    )
    for program in (guest / "bin").iterdir():
        program.chmod(0o755)
    answers = told(guest, "failed_units")
    assert answers.failed == (
        FailedUnit(name="a.service", result="timeout", journal=("Starting", " unit b ")),
        FailedUnit(name="b@x.mount"),
    )
    assert answers.jobs == ("c.service",)


@pytest.fixture
def first_boot(guest):
    """What is told of the first boot's commands, by what systemd and the journal say."""
    (guest / "usr/lib/virt-sysprep").mkdir(parents=True)
    (guest / "usr/lib/virt-sysprep/firstboot.sh").write_text("")

    def told_of(after, online, journal):
        texts = {
            "systemctl": f"case $2 in *=After) echo '{after}';; *) echo {online};; esac\n",
            "journalctl": f"printf '%s\\n' '{journal}'\n",
        }
        for name, text in texts.items():
            (guest / "bin" / name).write_text(f"#!/bin/sh\n{text}")
            (guest / "bin" / name).chmod(0o755)
        return told(guest, "first_boot").early

    return told_of


AFTER = "basic.target network-online.target"
BOUND = "[   18.500000] d dhclient[9]: bound to 10.0.2.101 -- renewal in 40000 seconds."


@pytest.mark.parametrize(
    ("after", "online", "journal", "early"),
    [
        (AFTER, "18600000", BOUND, ""),
        (AFTER, "18100000", BOUND, ""),
        (AFTER, "0", BOUND, ""),
        (AFTER, "16500000", "[    1.000000] d kernel: nothing of the kind", ""),
        (
            AFTER,
            "16500000",
            f"[    0.000000] kernel: 10.0.2.2\n{BOUND}\n[   20.000000] sshd: from 10.0.2.101",
            "network-online.target was reached 2000 ms before DHCP gave an address",
        ),
        ("basic.target", "18600000", BOUND, "they do not wait for network-online.target"),
    ],
)
def test_first_boot_commands_wait_for_the_address(first_boot, after, online, journal, early):
    assert first_boot(after, online, journal) == early


def test_a_guest_without_first_boot_commands_has_nothing_that_waits(guest):
    assert told(guest, "first_boot").early is None


def test_file_systems_that_were_not_unmounted(guest):
    lines = (
        "[ 1.0] EXT4-fs (vda3): mounted filesystem with ordered data mode",
        "[ 1.1] EXT4-fs (vda3): recovery complete",
        "[ 1.2] XFS (vda3): Starting recovery (logdev: internal)",
        "[ 1.3] FAT-fs (vda2): Volume was not properly unmounted. Some data may be corrupt.",
        "[ 1.4] BTRFS info (device vda3): start tree-log replay",
    )
    text = "\n".join(lines)
    (guest / "bin/dmesg").write_text(f"#!/bin/sh\ncat <<'E'\n{text}\nE\n")
    (guest / "bin/dmesg").chmod(0o755)
    assert told(guest, "recovered").recovered == lines[1:]


def test_a_guest_without_systemd_has_no_failed_units(guest):
    for name in ("systemctl", "journalctl"):
        (guest / "bin" / name).write_text("#!/bin/sh\nexit 127\n")
        (guest / "bin" / name).chmod(0o755)
    answers = told(guest, "inspect_again")
    assert (answers.failed, answers.jobs, answers.sshd) == ((), (), ())


def test_identity_is_the_id_the_public_host_keys_and_the_clients_number(guest):
    (guest / "etc/machine-id").write_text("abc\n")
    key = guest / "etc/ssh/ssh_host_ed25519_key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", key], check=True)
    lease = 'default-duid "\\000\\001x";\nlease {\n  interface "eth0";\n}\n'
    (guest / "var/lib/dhcp/dhclient.eth0.leases").write_text(lease)
    (guest / "var/lib/dhcpcd").mkdir()
    (guest / "var/lib/dhcpcd/duid").write_text("00:01:00:02\n")
    listed = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True)
    assert told(guest, "identity").identity == Identity(
        machine_id="abc",
        host_keys=frozenset({listed.stdout.split()[1]}),
        dhcp=frozenset({'"\\000\\001x"', "00:01:00:02"}),
    )
