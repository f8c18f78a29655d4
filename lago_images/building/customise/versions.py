"""Ask the installed virt-sysprep which of the commands of specs it has.

Commands come and go between versions of guestfs-tools: one that it lacks would else end a build
only when its base was made.
"""

import re
from collections.abc import Mapping

from lago_images.errors import CommandError, Problem, SpecError
from lago_images.host.process import Runner
from lago_images.specs.commands import COMMANDS
from lago_images.specs.model import Spec

PROGRAM = "virt-sysprep"
_VERSION = re.compile(rb"\d+(?:\.\d+)+")


def lacking(runner: Runner) -> Mapping[str, str]:
    """Return the commands that the installed virt-sysprep does not have, each with why.

    Raises:
        ToolMissingError: It is not installed.
        CommandError: It does not say.
    """
    options = runner.capture([PROGRAM, "--long-options"], doing="asking for its commands").split()
    version = _version(runner)
    shown = ".".join(map(str, version)) or "of an unknown version"
    return {
        name: f"the installed {PROGRAM} ({shown}) does not have it"
        + (f", which guestfs-tools have up to {command.until}" if command.until else "")
        for name, command in COMMANDS.items()
        # For some versions the parser still takes what the program then refuses.
        if f"--{name}".encode() not in options
        or (command.until and version > _numbers(command.until.encode()))
    }


def refuse_unknown_commands(spec: Spec, runner: Runner) -> None:
    """Refuse a spec with commands that this host cannot do; raises ``SpecError`` with each line."""
    lacks = lacking(runner) if spec.operations else {}
    refuse_commands(spec, {name: f"{name}: {why}" for name, why in lacks.items()})


def refuse_commands(spec: Spec, messages: Mapping[str, str]) -> None:
    """Refuse a spec with some commands, each with its message; raises ``SpecError`` likewise."""
    problems = [
        Problem(spec.path, operation.line, messages[operation.name])
        for operation in spec.operations
        if operation.name in messages
    ]
    if problems:
        raise SpecError(problems)


def _version(runner: Runner) -> tuple[int, ...]:
    try:
        match = _VERSION.search(runner.capture([PROGRAM, "--version"]))
    except CommandError:
        return ()
    return _numbers(match[0]) if match else ()


def _numbers(version: bytes) -> tuple[int, ...]:
    return tuple(map(int, version.split(b".")))
