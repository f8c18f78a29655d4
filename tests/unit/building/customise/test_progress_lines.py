import pytest

from lago_images.building.customise.progress_lines import running
from lago_images.specs.commands import COMMANDS
from lago_images.specs.model import Operation


def operations(*lines):
    return [
        Operation(name=name, argument=argument, line=number)
        for number, (name, argument) in enumerate(lines, 1)
    ]


MANY = operations(
    ("root-password", "password:1"),
    ("run-command", "true"),
    ("install", "a,b"),
    ("run-command", "true"),
    ("edit", "/etc/motd:s/a/b/"),
    ("update", ""),
    ("run-command", "first\nsecond"),
)
BEFORE = ["Examining the guest ...", 'Performing "customize" ...', "Setting a random seed"]


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        (["Running: true"], 2),
        (["Running: true", "Installing packages: a b"], 3),
        (["Running: true", "Installing packages: a b", "Running: true"], 4),
        (["Running: true", "Installing packages: a b", "Running: true", "Editing: /etc/motd"], 5),
        (["Running: true", "Updating packages"], 6),
        (["Running: first"], 7),
    ],
)
def test_the_last_announced_command_is_the_running_one(seen, line):
    found = running(MANY, BEFORE + seen)
    assert found is not None
    assert found.line == line


@pytest.mark.parametrize("last", ["Setting passwords", "Running: /w/finish.sh", "Examining"])
def test_steps_of_virt_sysprep_are_not_attributed_to_a_command(last):
    assert running(MANY, [*BEFORE, "Running: true", last]) is None


def test_without_output_no_command_is_known():
    assert running(MANY, []) is None


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_preparation_is_not_attributed_to_a_command(name):
    operation = operations((name, "a:b"))
    assert all(running(operation, [line]) is None for line in BEFORE)
