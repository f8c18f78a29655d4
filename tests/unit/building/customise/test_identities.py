"""How a guest gets identities of its own: what its image loses, and the units that make it anew."""

import os
import re
import subprocess

import pytest

from lago_images.building.customise import identities, sysprep
from lago_images.building.customise.identities import IDENTITIES, finish_script, not_named, unnamed
from tests.support.images import a_spec

HEAD = "#name=i\n#base=layer:b\n#arch=x86_64\n#distro=d\n"


def run(folder, call, *, operations=(), users=()):
    """Call a function of finish.sh in a guest whose root is a folder."""
    script = finish_script(operations, users) + f"\n{call}\n"
    # Every absolute path of the script; programs are looked for on PATH.
    script = re.sub(
        r"(?<=[ \"'=>\n])/(?=(?:etc|usr|var|root|home|opt|srv)\b)", f"{folder}/", script
    )
    done = subprocess.run(
        ["sh"], input=script, text=True, check=True, timeout=30, capture_output=True
    )
    return done.stdout.replace(str(folder), "")


@pytest.fixture
def guest(tmp_path):
    root = tmp_path / "guest"
    for folder in ("etc/systemd/system", "etc/iscsi", "etc/ssl/private", "etc/ssh", "usr/lib"):
        (root / folder).mkdir(parents=True)
    (root / "etc/iscsi/initiatorname.iscsi").write_text("InitiatorName=iqn.example:1")
    (root / "etc/ssh/ssh_host_ed25519_key").write_text("key")
    (root / "etc/ssl/private/ssl-cert-snakeoil.key").write_text("-----BEGIN PRIVATE KEY-----\n")
    return root


def test_identities_are_removed_and_units_that_renew_them_installed(guest):
    run(guest, "remove_identities")
    assert not (guest / "etc/iscsi/initiatorname.iscsi").exists()
    assert not (guest / "etc/ssl/private/ssl-cert-snakeoil.key").exists()
    assert not (guest / "etc/ssh/ssh_host_ed25519_key").exists()
    for path in identities.guest_files():
        assert (guest / path[1:]).is_file()
    assert (guest / identities.RENEW[1:]).stat().st_mode & 0o777 == 0o755
    for path, target in identities.WANTED_BY.items():
        assert (
            guest / f"{identities.UNITS[1:]}/{target}.wants/{path.rpartition('/')[2]}"
        ).is_symlink()


def test_debian_13s_own_sshd_keygen_unit_does_not_prevent_host_keys(guest):
    """Its ConditionFirstBoot does not hold where the machine id is empty and not missing."""
    own = guest / "usr/lib/systemd/system/sshd-keygen.service"
    own.parent.mkdir(parents=True)
    own.write_text("[Unit]\nConditionFirstBoot=yes\n")
    run(guest, "remove_identities")
    unit = (guest / identities.SSH_UNIT[1:]).read_text().replace(str(guest), "")
    assert "ExecStart=/usr/bin/ssh-keygen -A\n" in unit
    assert "Before=ssh.service sshd.service ssh.socket sshd.socket\n" in unit


def test_identities_set_by_the_spec_stay_in_the_image_and_its_layers(guest):
    spec = a_spec(HEAD + "write /etc/iscsi/initiatorname.iscsi:InitiatorName=iqn.example:1\n")
    for operations in (spec.operations, ()):
        run(guest, "remove_identities", operations=operations)
        assert (guest / "etc/iscsi/initiatorname.iscsi").exists()
    assert not (guest / "etc/ssl/private/ssl-cert-snakeoil.key").exists()


def test_identities_that_only_our_unit_renews_stay_without_systemd(guest):
    (guest / "etc/systemd/system").rmdir()
    run(guest, "remove_identities")
    assert (guest / "etc/iscsi/initiatorname.iscsi").exists()
    assert not (guest / "etc/ssh/ssh_host_ed25519_key").exists()


def test_remaining_private_keys_and_identities_are_listed(guest):
    (guest / "etc/machine-id").write_text("0123\n")
    (guest / "root").mkdir()
    (guest / "root/id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (guest / "root/id.pub").write_text("a -----BEGIN OPENSSH PRIVATE KEY-----\n")
    named = run(guest, "secrets | sort -u").split()
    assert named == [
        "/etc/iscsi/initiatorname.iscsi",
        "/etc/machine-id",
        "/etc/ssl/private/ssl-cert-snakeoil.key",
        "/root/id",
    ]


def test_logs_are_emptied_and_older_ones_removed(guest):
    logs = guest / "var/log"
    for name in ("one.log", "one.log.1", "apt/history.log", "apt/term.log.gz", "journal/id/x"):
        (logs / name).parent.mkdir(parents=True, exist_ok=True)
        (logs / name).write_text("Fri Nov 27 01:16:13 UTC 2026\n")
    run(guest, "clean_logs")
    left = {str(path.relative_to(logs)): path.stat().st_size for path in logs.rglob("*.*")}
    assert left == {"one.log": 0, "apt/history.log": 0}
    assert not list((logs / "journal").iterdir())


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("path", "hook"),
    [
        ("/etc/dropbear/initramfs/dropbear_rsa_host_key", "dropbear"),
        ("/etc/iscsi/initiatorname.iscsi", "iscsi"),
    ],
)
def test_the_initrd_is_rebuilt_without_identities_in_it(guest, monkeypatch, path, hook, named):
    key = guest / path[1:]
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_text("key")
    hooks = guest / "usr/share/initramfs-tools/hooks"
    hooks.mkdir(parents=True)
    (hooks / hook).touch()
    calls, program = guest / "calls", guest / "bin/update-initramfs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    text = f"write {path}:mine\n" if named else "write /etc/motd:hello\n"
    run(guest, "remove_identities", operations=a_spec(HEAD + text).operations)
    assert key.exists() is named
    assert not calls.exists() if named else calls.read_text() == "-u -k all\n"


def test_the_script_contains_no_password():
    spec = a_spec(HEAD + "root-password password:s3cret\npassword a:password:s3cret\n")
    assert "s3cret" not in finish_script(spec.operations, ["a"])


def test_every_renewing_function_is_called():
    script = identities.guest_files()[identities.RENEW][0]
    functions = {one.renew for one in IDENTITIES if one.renew}
    assert {line for line in script.splitlines() if re.fullmatch(r"\w+", line)} == functions
    assert all(f"\n{name}() {{\n" in script for name in functions)
    done = subprocess.run(["sh", "-n"], input=script, text=True, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_scripts_of_the_first_boot_run_in_the_order_of_their_launches(guest):
    scripts = guest / "usr/lib/virt-sysprep/scripts"
    scripts.mkdir(parents=True)
    for launch in (("0001-z", "0002-same"), ("0001-a", "0002-same", "0010-b")):
        for name in launch:
            (scripts / name).write_text(f"{launch[0]} {name}")
        run(guest, "order_firstboot")
        run(guest, "order_firstboot")
    texts = [path.read_text() for path in sorted(scripts.iterdir())]
    assert texts == [
        *("0001-z 0001-z", "0001-z 0002-same"),
        *("0001-a 0001-a", "0001-a 0002-same", "0001-a 0010-b"),
    ]


def test_scripts_of_the_first_boot_wait_for_the_network(guest):
    (guest / "usr/lib/virt-sysprep").mkdir()
    (guest / "usr/lib/virt-sysprep/firstboot.sh").write_text("")
    run(guest, "remove_identities")
    assert "After=network-online.target" in (guest / identities.WAIT_FOR_NETWORK[1:]).read_text()


def test_a_user_missing_from_the_guest_is_reported(guest):
    (guest / "etc/shadow").write_text("root:x:1::::::\na.b:x:1::::::\n")
    said = run(guest, "missing_users", users=["root", "nosuch", "a.b", "axb", "ro"])
    assert said.splitlines() == ["missing-user nosuch", "missing-user axb", "missing-user ro"]


def test_a_guest_that_cannot_run_the_script_is_cleaned_from_outside():
    spec = a_spec(HEAD + "write /etc/iscsi/initiatorname.iscsi:mine\nfirstboot-command id\n")
    options = sysprep.clean_from_outside(spec.operations)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    deleted = {value for option, value in pairs if option == "--delete"}
    assert {"/tmp/*", "/etc/ssh/ssh_host_*", "/etc/nvme/hostid"} <= deleted
    assert "/etc/iscsi/initiatorname.iscsi" not in deleted
    assert pairs.index(("--touch", "/etc/machine-id")) < pairs.index(
        ("--truncate", "/etc/machine-id")
    )
    text = "\n".join(value for option, value in pairs if option == "--write")
    assert "ssh-keygen -A" in text
    assert "network-online.target" in text


def test_a_pattern_is_named_by_any_file_of_the_spec_that_it_matches():
    [operation] = a_spec(HEAD + "upload a:/etc/dropbear/dropbear_rsa_host_key\n").operations
    paths = ("/etc/dropbear/dropbear_*_host_key*", "/etc/nvme/hostid")
    assert not_named([operation], paths) == ("/etc/nvme/hostid",)


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("upload lab.key:/root/lab.key", "/root/lab.key"),
        ("run-command openssl req -keyout '/etc/ssl/a b.key'", "/etc/ssl/a b.key"),
        ("write /root/[a]*.key:-----BEGIN", "/root/[a]*.key"),
        ("copy-in files/certs:/etc/ssl", "/etc/ssl/certs/private/lab.key"),
        ("copy-in files/certs/:/etc/ssl/", "/etc/ssl/certs/lab.key"),
    ],
)
def test_what_a_command_names_or_copies_in_is_meant_to_be_there(command, path):
    files = (path, "/root/other.key", "/etc/ssl/certs.key")
    assert unnamed(a_spec(f"{HEAD}{command}\n").operations, files) == files[1:]
    assert unnamed((), files) == files


def test_the_script_is_posix_shell():
    spec = a_spec(HEAD + 'write /etc/motd:it\'s `id` $(id)\\\n"x"\npassword a:password:b\n')
    script = sysprep._script(spec)
    assert "/etc/motd" in script
    done = subprocess.run(["sh", "-n"], input=script, text=True, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
