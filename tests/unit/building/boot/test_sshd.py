"""The boot test and sshd: where it is enabled, it must start."""

import os
import subprocess

import pytest

from lago_images.building.boot.inspection import Facts, parse, script
from lago_images.building.boot.judgement import Terms, judge


def states(folder, systemctl):
    """What the guest's script tells, run here with a systemctl of the test's."""
    (folder / "systemctl").write_text(f"#!/bin/sh\n{systemctl}\n")
    (folder / "systemctl").chmod(0o755)
    ran = subprocess.run(
        ["/bin/sh", "-c", script("sshd_states")],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return parse(ran.stdout)


def problems(answers):
    verdict = judge(Facts(answers=answers), (), Terms(mac="", size=0))
    return [str(each) for each in verdict.problems]


DEAD = ["sshd: sshd is enabled and does not start: ssh -v cannot reach the guest"]


def unit(name, *, active, starts=True):
    answers = f"is-enabled) echo enabled ;; is-active) echo {active} ;;"
    answers += "" if starts else " start) exit 1 ;;"
    return f'[ "$2" = {name} ] || exit 1\ncase $1 in {answers} esac'


@pytest.mark.parametrize("name", ["ssh.service", "sshd.service"])
def test_an_enabled_sshd_that_fails_fails_the_boot_test(tmp_path, name):
    assert problems(states(tmp_path, unit(name, active="failed"))) == DEAD


def test_a_repeatedly_restarted_sshd_fails_the_boot_test(tmp_path):
    restarted = unit("sshd.service", active="activating", starts=False)
    assert problems(states(tmp_path, restarted)) == DEAD


@pytest.mark.parametrize("starts", [True, False])
def test_an_enabled_sshd_that_is_left_out_fails_the_boot_test(tmp_path, starts):
    left_out = unit("ssh.service", active="inactive", starts=starts)
    assert problems(states(tmp_path, left_out)) == DEAD


@pytest.mark.parametrize("has_keys", [True, False])
def test_an_sshd_behind_a_socket_needs_its_keys(tmp_path, has_keys):
    (tmp_path / "sshd").write_text(f"#!/bin/sh\nexit {0 if has_keys else 1}\n")
    (tmp_path / "sshd").chmod(0o755)
    (tmp_path / "mkdir").symlink_to("/bin/true")
    told = states(tmp_path, unit("ssh.socket", active="active"))
    assert told.sshd == (("socket",) if has_keys else ("failed",))
    assert problems(told) == ([] if has_keys else DEAD)


@pytest.mark.parametrize(
    ("systemctl", "told"),
    [
        (unit("ssh.service", active="active"), ("active",)),
        (unit("ssh.service", active="activating"), ("activating",)),
        ("echo disabled; exit 1", ()),
        ("echo failed; exit 1", ()),
        ("exit 127", ()),
    ],
)
def test_an_unknown_sshd_state_passes(tmp_path, systemctl, told):
    answers = states(tmp_path, systemctl)
    assert answers.sshd == told
    assert problems(answers) == []
