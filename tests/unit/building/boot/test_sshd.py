"""The boot test and sshd: where it is enabled, it must start."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from lago_images.building.boot import boot_test
from lago_images.errors import BootError
from lago_images.host.process import Runner


class Guest:
    """An agent that runs commands here, with a systemctl of the test's."""

    def __init__(self, folder, systemctl):
        (folder / "systemctl").write_text(f"#!/bin/sh\n{systemctl}\n")
        (folder / "systemctl").chmod(0o755)
        self.path = f"{folder}:{os.environ['PATH']}"

    def settle(self, *, timeout):
        pass

    def run(self, argv, *, timeout):
        return subprocess.run(
            argv, env={"PATH": self.path}, capture_output=True, timeout=30, check=True
        ).stdout


class MuteGuest:
    def settle(self, *, timeout):
        raise BootError("the guest agent may not run programs")


def judge(guest, folder):
    watch = boot_test._Watch(
        console=Path(folder / "console"), errors=folder / "errors", limit=1, clock=time.monotonic
    )
    boot_test._refuse_failed_sshd(guest, watch, Runner(log=folder / "log"))


def unit(name, *, active, starts=True):
    answers = f"is-enabled) echo enabled ;; is-active) echo {active} ;;"
    answers += "" if starts else " start) exit 1 ;;"
    return f'[ "$2" = {name} ] || exit 1\ncase $1 in {answers} esac'


@pytest.mark.parametrize("name", ["ssh.service", "sshd.service"])
def test_an_enabled_sshd_that_fails_fails_the_boot_test(tmp_path, name):
    with pytest.raises(BootError, match="sshd is enabled and does not start"):
        judge(Guest(tmp_path, unit(name, active="failed")), tmp_path)


def test_an_sshd_that_systemd_starts_again_and_again_fails_the_boot_test(tmp_path):
    with pytest.raises(BootError, match="sshd is enabled and does not start"):
        judge(Guest(tmp_path, unit("sshd.service", active="activating", starts=False)), tmp_path)


@pytest.mark.parametrize("has_keys", [True, False])
def test_an_sshd_behind_a_socket_needs_its_keys(tmp_path, has_keys):
    guest = Guest(tmp_path, unit("ssh.socket", active="active"))
    (tmp_path / "sshd").write_text(f"#!/bin/sh\nexit {0 if has_keys else 1}\n")
    (tmp_path / "sshd").chmod(0o755)
    (tmp_path / "mkdir").symlink_to("/bin/true")
    if has_keys:
        judge(guest, tmp_path)
    else:
        with pytest.raises(BootError, match="sshd is enabled and does not start"):
            judge(guest, tmp_path)


@pytest.mark.parametrize(
    ("systemctl", "state"),
    [
        (unit("ssh.service", active="active"), "active"),
        (unit("ssh.service", active="inactive"), "inactive"),
        (unit("ssh.service", active="inactive", starts=False), "inactive"),
        (unit("ssh.service", active="activating"), "activating"),
        ("echo disabled; exit 1", "not enabled"),
        ("echo failed; exit 1", "not enabled"),
        ("exit 127", "not enabled"),
    ],
)
def test_an_unknown_sshd_state_passes(tmp_path, systemctl, state):
    judge(Guest(tmp_path, systemctl), tmp_path)
    assert f"sshd: {state}\n" in (tmp_path / "log").read_text()


def test_an_agent_that_may_not_run_programs_passes(tmp_path):
    judge(MuteGuest(), tmp_path)
    assert "may not run programs" in (tmp_path / "log").read_text()
