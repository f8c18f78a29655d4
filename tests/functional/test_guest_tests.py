"""A spec's own tests, run by the real guest agent in a sandbox instead of a guest."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from lago_images.building.boot.spec_tests import RECORDED, OwnTests, Suite, run_tests
from lago_images.errors import BootError
from lago_images.host.process import Runner
from lago_images.specs.model import GuestTest
from tests.support.host_agent import Restarts, agent_alone
from tests.tools import need

need("bwrap", "qemu-ga", "setsid")


@pytest.fixture
def short():
    """A folder whose path fits into a socket's address."""
    folder = Path(tempfile.mkdtemp(prefix="ga-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def run(short, tmp_path):
    """Run scripts, by name, as the tests of an image; each after its own options."""

    def of(scripts, *, has_network=True, restarts=None):
        texts, tests = {}, []
        for name, (options, text) in scripts.items():
            tests.append(GuestTest(spec="a", name=f"a.tests/{name}", path=name, **options))
            texts[name] = text.encode() if isinstance(text, str) else text
        asked = OwnTests(
            tests=tuple(tests), read=lambda test: texts[test.path], has_network=has_network
        )
        suite = Suite(tests=asked, factor=1, limit=300)
        with agent_alone(short) as alone:
            alone.wait()
            starter = restarts or Restarts(folder=short)
            records = run_tests(suite, alone, starter, Runner(log=tmp_path / "log"))
        return {record.name.removeprefix("a.tests/"): record for record in records}

    return of


SH = "#!/bin/sh\n"


def test_every_test_runs_as_root_and_its_outcome_is_recorded(run, tmp_path):
    ended = run(
        {
            "who": ({}, SH + "id -u; pwd; echo $HOME; basename $0; echo more >&2\n"),
            "fails": ({}, SH + "echo 'no \x1b[31mserver\x1b[0m'; exit 3\n"),
            "killed": ({}, SH + "kill -TERM $$\n"),
            "input": ({}, SH + "if read -r line; then exit 1; fi\n"),
            "python": ({}, "#!/usr/bin/env python3\nprint('Grüße')\n"),
        }
    )
    assert [record.has_passed for record in ended.values()] == [True, False, False, True, True]
    assert ended["who"].output == "0\n/\n/root\nwho\nmore"
    assert (ended["fails"].exit_code, ended["fails"].output) == (3, "no server")
    assert ended["killed"].exit_code == 128 + 15
    assert ended["python"].output == "Grüße"
    log = (tmp_path / "log").read_text()
    assert "test a.tests/who: passed in 0 s\n  0\n  /\n" in log
    assert "test a.tests/fails: exit 3 after 0 s\n  no server\n" in log


OOM = "[    9.1] Out of memory: Killed process 77 (tea) total-vm:9kB"


def test_a_test_under_which_the_kernel_comes_to_harm_has_not_passed(run):
    shows = f"{SH}echo '{OOM}' >>/run/agent/console\n"
    ended = run(
        {
            "shows": ({}, shows),
            "known": ({}, SH),
            "fails too": (
                {},
                f"{shows}echo '[ 9.2] kernel BUG at tea' >>/run/agent/console; exit 3",
            ),
            "fresh": ({"reboot": True}, SH),
            "shows again": ({}, shows),
        }
    )
    problem = f"it passed, but the console shows out of memory: {OOM.partition('] ')[2]}"
    assert [ended[name].problem for name in ("shows", "shows again")] == [problem, problem]
    assert not ended["shows"].has_passed
    assert ended["known"].has_passed
    assert ended["fresh"].has_passed
    assert (ended["fails too"].exit_code, ended["fails too"].problem) == (3, "")


def test_a_test_that_takes_too_long_is_ended_with_all_that_it_started(run):
    slow = SH + "sleep 301 & echo waiting; wait\n"
    ended = run(
        {
            "slow": ({"timeout": 1}, slow),
            "after": ({}, SH + "! grep -z '[3]01' /proc/[0-9]*/cmdline\n"),
        }
    )
    assert ended["slow"].problem == "it took longer than 1 s"
    assert (ended["slow"].exit_code, ended["slow"].output) == (None, "waiting")
    assert ended["after"].has_passed


def test_a_test_that_leaves_a_daemon_behind_ends(run):
    [record] = run({"starts": ({}, SH + "sleep 302 &\necho started\n")}).values()
    assert (record.exit_code, record.output) == (0, "started")


def test_of_much_output_the_end_is_kept(run, tmp_path):
    [record] = run({"loud": ({}, SH + "seq 1 100000; exit 1\n")}).values()
    assert record.output.endswith("99999\n100000")
    assert RECORDED - 10 < len(record.output) < RECORDED
    assert "  (572511 bytes before this are left out)\n" in (tmp_path / "log").read_text()


def test_a_large_test_arrives_whole(run):
    padding = "".join(f"# {number:060}\n" for number in range(8000))
    text = f"{SH}{padding}sha256sum <$0\n"
    [record] = run({"large": ({}, text)}).values()
    assert record.output.split()[0] == hashlib.sha256(text.encode()).hexdigest()


def test_a_test_is_run_after_a_start_of_its_own_and_with_a_network_where_it_says_so(run, short):
    marked = SH + "[ -e /tmp/mark ] || echo fresh; touch /tmp/mark\n"
    restarts = Restarts(folder=short)
    ended = run(
        {
            "1": ({}, marked),
            "2": ({}, marked),
            "3": ({"reboot": True}, marked),
            "4": ({"network": True}, marked),
            "5": ({"network": True}, marked),
            "6": ({}, marked),
        },
        restarts=restarts,
    )
    assert [record.output for record in ended.values()] == [
        "fresh",
        "",
        *["fresh"] * 2,
        "",
        "fresh",
    ]
    assert restarts.networks == [False, True, False]


def test_without_the_setting_no_test_has_a_network(run, short):
    restarts = Restarts(folder=short)
    scripts = {"net": ({"network": True}, SH), "plain": ({}, SH)}
    ended = run(scripts, has_network=False, restarts=restarts)
    assert ended["net"].problem.startswith("not run: it needs a network, which the setting network")
    assert ended["plain"].has_passed
    assert restarts.networks == []


def test_a_program_that_the_guest_cannot_start_fails(run):
    [record] = run({"strange": ({}, "#!/no/such/program\n")}).values()
    assert record.exit_code == 127
    assert "No such file or directory" in record.output


class Breaking(Restarts):
    def started(self, *, network):
        raise BootError("boot test: the guest gave up")


def test_a_guest_that_does_not_come_back_fails_its_test_and_those_that_follow(run, short):
    scripts = {"a": ({}, SH), "b": ({"reboot": True}, SH), "c": ({}, SH)}
    ended = run(scripts, restarts=Breaking(folder=short))
    assert ended["a"].has_passed
    assert ended["b"].problem == "boot test: the guest gave up"
    assert ended["c"].problem == "not run: the guest was lost at a.tests/b"


def test_a_guest_that_panics_while_its_tests_are_waited_with_is_reported_as_that(short, tmp_path):
    def gives_up():
        raise BootError("boot test: the guest gave up")

    asked = OwnTests(
        tests=(GuestTest(spec="a", name="a.test", path="a"),), read=lambda _: b"", has_network=True
    )
    suite = Suite(tests=asked, factor=1, limit=300)
    silent, other = os.pipe()
    with agent_alone(short) as alone:
        alone.wait()
        alone.agent.receive, alone.agent.check = silent, gives_up
        [record] = run_tests(suite, alone, Restarts(folder=short), Runner(log=tmp_path / "log"))
    os.close(silent)
    os.close(other)
    assert record.problem == "boot test: the guest gave up"


def test_a_guest_that_is_lost_to_emulation_is_no_failure_of_a_test(run, short):
    with pytest.raises(BootError, match="gave up"):
        run({"b": ({"reboot": True}, SH)}, restarts=Breaking(folder=short, starved=True))
