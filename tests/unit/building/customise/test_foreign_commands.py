"""Commands of a spec whose architecture is not the host's: refused where they run a program."""

import pytest

from lago_images.building.customise.sysprep import refuse_foreign_commands
from lago_images.errors import SpecError
from lago_images.specs.commands import FETCHING
from tests.support.builders import lines

HARMLESS = ("write /etc/motd:hello", "root-password password:x", "firstboot-command true")


def spec(*more, arch="aarch64"):
    return lines(*more, base="bootstrap:debian-13", arch=arch)


@pytest.fixture(autouse=True)
def on_a_pc(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def test_each_line_that_runs_a_program_of_the_guest_is_named():
    with pytest.raises(SpecError) as caught:
        refuse_foreign_commands(spec("install vim", *HARMLESS, "run-command true", "update"))
    problems = caught.value.problems
    assert [problem.line for problem in problems] == [4, 8, 9]
    assert problems[0].what == (
        "install runs a program of the guest, which is aarch64, and this host is x86_64: "
        "build it on aarch64"
    )


def test_what_is_done_from_outside_is_not_refused():
    refuse_foreign_commands(spec(*HARMLESS))


def test_a_pc_runs_the_programs_of_its_own_and_of_older_pcs():
    refuse_foreign_commands(spec("update", arch="x86_64"))
    refuse_foreign_commands(lines("update", base="libguestfs:x", arch="i686"))


@pytest.mark.parametrize("name", sorted(FETCHING))
def test_whatever_fetches_runs_a_program(name):
    argument = {"update": ""}.get(name, " x")
    with pytest.raises(SpecError):
        refuse_foreign_commands(spec(f"{name}{argument}"))
