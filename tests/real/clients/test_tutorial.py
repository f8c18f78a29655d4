"""The tutorial on one laptop, as a reader does it: every command, with the output that is shown."""

import pytest

from lago_images.host.tools import TOOLS
from tests.support import laptop

# The first of its tests waits for the build, too.
pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]


def test_the_line_that_installs_names_every_package_that_is_needed():
    line = next(command for command in laptop.ELSEWHERE if command.startswith("sudo"))
    needed = {tool.package for tool in TOOLS if tool.host in {"", "x86_64"}}
    assert needed <= set(line.split())


def test_every_command_shows_what_the_tutorial_shows(reader):
    assert reader.problem == ""
