"""Which specs mean the same in namespaces, and whose may use them."""

import json
import platform

import pytest

from lago_images.building.customise.namespace import agent, rules
from lago_images.settings import Settings
from lago_images.specs.commands import COMMANDS
from tests.support.builders import spec

ARCH = platform.machine()


def why(*operations, base="layer:debian-12", arch=ARCH, scripts=None):
    return rules.why_not(spec("image", base, *operations, arch=arch), (scripts or {}).__getitem__)


def test_every_command_that_is_known_is_one_of_the_agents():
    methods = {name[3:].replace("_", "-") for name in dir(agent.Agent) if name.startswith("do_")}
    assert methods == rules.COMMANDS
    assert set(COMMANDS) > rules.COMMANDS


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - rules.COMMANDS))
def test_a_command_that_is_not_known_sends_the_spec_to_the_appliance(name):
    assert why(("mkdir", "/srv/a"), (name, "x:y")) == f"line 1: {name} is the appliance's"


def test_a_plain_spec_is_for_namespaces():
    assert not why(
        ("root-password", "password:123456"),
        ("install", "tgt,open-iscsi,lvm2"),
        ("run-command", "systemctl enable tgt.service >/dev/null 2>&1"),
        ("upload", "files/a:/etc/a"),
        ("password", "joe:locked:password:a:b"),
        ("password", "ann:disabled"),
        scripts={"files/a": "a"},
    )


@pytest.mark.parametrize("base", ["libguestfs:debian-12", "simple:disk.img"])
def test_disks_of_others_are_for_the_appliance(base):
    kind = base.partition(":")[0]
    told = f"its base is {kind}:, not bootstrap: or layer:"
    assert why(("mkdir", "/srv/a"), base=base) == told


@pytest.mark.parametrize("base", ["bootstrap:debian-12", "layer:debian-12", "layer:of-a-simple"])
def test_a_base_of_packages_and_any_layer_may_be_for_namespaces(base):
    """What is below a layer is not asked: its disk is looked at when it is there."""
    assert not why(("mkdir", "/srv/a"), base=base)


def test_another_architecture_is_for_the_appliance():
    assert why(("mkdir", "/srv/a"), arch="riscv64").startswith("it is for riscv64")


@pytest.mark.parametrize(
    "command",
    [
        "uname -r",
        "mount -a",
        "echo $(findmnt -no UUID /)",
        "cat /proc/cpuinfo",
        "ls /sys/class/net",
        "dd of=/dev/sda",
        "update-grub",
        "grub-install /dev/vda",
        "sudo -u postgres createdb x",
        "chattr +i /etc/motd",
        "true;ip a",
        "ls /boot/efi",
        "cp -a /boot /srv",
        "getconf _NPROCESSORS_ONLN",
        "cat /etc/mtab",
        "cd /proc && cat cpuinfo",
        "cd /sys; ls class/net",
        "update-initramfs -u",
        "python3 -c 'import platform; print(platform.release())'",
        "python3 -c 'import platform as p, os; print(os.uname().version)'",
        "python3 -c 'from platform import uname; print(uname())'",
        "python3 -c 'from platform import release; print(release())'",
        "perl -MPOSIX -e 'print((POSIX::uname())[2])'",
        "cat /proc/version",
        "sysctl -n kernel.osrelease",
        "dmesg >/srv/d",
        "make -j$(nproc)",
        "python3 -c 'import os; print(os.cpu_count())'",
        "free -m",
        "df -h /",
        "lscpu",
        "/usr/bin/uptime",
        "depmod -a",
        "top -bn1",
    ],
)
def test_what_looks_at_the_machine_is_for_the_appliance(command):
    assert "looks at the machine" in why(("run-command", command))
    assert "looks at the machine" in why(("run", "a.sh"), scripts={"a.sh": f"#!/bin/sh\n{command}"})


@pytest.mark.parametrize(
    "command",
    [
        "echo >/dev/null",
        "useradd --uid 7 ip-user",
        "cat /etc/remount",
        "ls /srv/sys/",
        "echo x >/proc/self/fd/1",
        "cat /etc/mtab-of-mine /process",
        "ls /srv/boot",
        "lsb_release -cs",
        "sed -i s/a/b/ /srv/platform.conf",
        "echo top-level desktop",
    ],
)
def test_words_that_only_look_like_it_are_not(command):
    assert not why(("run-command", command))


def test_an_uploaded_script_is_judged_where_a_command_runs_it():
    scripts = {"files/s.sh": "#!/bin/sh\nuname -r\n", "files/t": "uname -r\n", "files/u": ""}
    up = ("upload", "files/s.sh:/srv/made")
    for call in ("sh /srv/made", "cd /srv && ./made"):
        assert "uses 'uname'" in why(up, ("run-command", call), scripts=scripts)
    # It may be for machines: nobody runs it here, or before it is there; and what is no script.
    assert not why(up, ("run-command", "ls /srv"), scripts=scripts)
    assert not why(("run-command", "ls /srv/made"), up, scripts=scripts)
    texts = [("upload", f"files/{name}:/srv/") for name in "tu"]
    assert not why(*texts, ("run-command", "sh /srv/t"), scripts=scripts)


@pytest.mark.parametrize(
    "operation",
    [
        ("install", "nano,grub-pc"),
        ("install", "zfs-dkms"),
        ("root-password", "random"),
        ("root-password", "file:secret"),
        ("password", "joe:locked:random"),
        ("write", "/dev/x:y"),
        ("delete", "//proc/x"),
        ("copy", "/etc/a:/sys/a"),
        ("delete", "/boot/efi/EFI"),
        ("install", "shim-signed"),
        ("install", "linux-image-amd64"),
    ],
)
def test_other_things_of_the_machine_are_for_the_appliance(operation):
    assert why(operation)


def event(tmp_path, source):
    file = tmp_path / "event.json"
    file.write_text(json.dumps({"pull_request": {"head": {"repo": source}}}))
    return {
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_EVENT_PATH": str(file),
        "GITHUB_REPOSITORY": "us/images",
    }


def test_a_forks_pull_request_may_not(tmp_path):
    settings = Settings(engine="namespace")
    assert rules.is_strangers(event(tmp_path, {"full_name": "them/images"}))
    assert not rules.is_allowed(settings, event(tmp_path, {"full_name": "them/images"}))
    # Its repository is gone, or the event cannot be read.
    assert rules.is_strangers(event(tmp_path, None))
    assert rules.is_strangers({"GITHUB_EVENT_NAME": "pull_request_target"})
    assert rules.is_strangers({"CHANGE_FORK": "them"})


@pytest.mark.parametrize("said", ["", "false", "1", "True"])
def test_a_change_request_in_jenkins_that_nothing_says_to_be_ours_may_not(said):
    environ = {"CHANGE_ID": "3", "LAGO_IMAGES_CHANGE_IS_OURS": said}
    assert rules.is_strangers(environ)
    assert not rules.is_allowed(Settings(), environ)
    assert rules.is_strangers({"CHANGE_ID": "3"})


def test_a_change_request_that_the_jenkinsfile_found_to_be_ours_may():
    ours = {"CHANGE_ID": "3", "LAGO_IMAGES_CHANGE_IS_OURS": "true"}
    assert not rules.is_strangers(ours)
    assert rules.is_allowed(Settings(), ours)
    # Whatever else is said: a fork is named.
    assert rules.is_strangers({**ours, "CHANGE_FORK": "them"})
    assert not rules.may_keep(ours)


def test_what_may_be_a_strangers_uses_nothing_that_is_kept_of_guests(tmp_path):
    assert not rules.may_keep(event(tmp_path, {"full_name": "them/images"}))
    assert not rules.may_keep({"CHANGE_ID": "3"})
    assert rules.may_keep(event(tmp_path, {"full_name": "us/images"}))
    assert rules.may_keep({"BRANCH_NAME": "main"})


def test_ones_own_pull_request_may(tmp_path):
    assert rules.is_allowed(Settings(), event(tmp_path, {"full_name": "us/images"}))
    assert rules.is_allowed(Settings(), {"GITHUB_EVENT_NAME": "push"})
    assert rules.is_allowed(Settings(), {})


def test_only_the_environment_of_ci_lets_a_fork(tmp_path):
    environ = event(tmp_path, {"full_name": "them/images"})
    chosen = Settings(engine="namespace", origins={"engine": "LAGO_IMAGES_ENGINE"})
    assert rules.is_allowed(chosen, environ)
    automatic = Settings(engine="auto", origins={"engine": "LAGO_IMAGES_ENGINE"})
    assert not rules.is_allowed(automatic, environ)
