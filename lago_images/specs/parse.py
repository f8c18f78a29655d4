r"""Parse the text of a spec into its value, with every problem on the way.

A spec is what virt-builder's ``--commands-from-file`` reads, read the same way: a line that ends
in ``\`` goes on in the next, with a newline between; then blank lines and those that start with
``#`` are left out; the rest is a command, one blank, its argument. A comment line of the form
``#key=value`` (no blank after the ``#``, a key of letters, digits and ``_.-``) is a property.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from lago_images.errors import Problem
from lago_images.secret_text import is_key_alone
from lago_images.specs.bases import conflicting_properties, read_base
from lago_images.specs.commands import (
    COMMANDS,
    GUEST_PATHS,
    NEWER,
    OPTIONS,
    PASSWORD_CRYPTO,
    SELECTORS,
    Command,
    Form,
    Reads,
)
from lago_images.specs.edit_command import REFUSAL, is_harmless
from lago_images.specs.host_files import unlocked
from lago_images.specs.model import Base, Operation, Spec
from lago_images.specs.names import name_problem, shown, suggestion
from lago_images.specs.properties import REQUIRED, value_problem

_PROPERTY = re.compile(r"#([A-Za-z0-9_.-]+)[ ]*=(.*)")
# Control characters but tab and newline, line separators that some programs honour, and surrogates.
_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
# What a reviewer does not see, or what changes the direction of what they see: Unicode's category
# Cf, fillers, variation selectors, and what is reserved for such (Default_Ignorable_Code_Point).
_INVISIBLE = (
    "\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_SUSPECT = re.compile(f"[{_CONTROL}{_INVISIBLE}]")
_HIDDEN = re.compile(f"[{_INVISIBLE}]")
_NAMED = {
    "\r": "a carriage return (Windows line ending; see core.autocrlf)",
    "\0": "a NUL byte",
    "\ufeff": "a byte order mark",
}
# One argument of a program can have 128 KiB on Linux (MAX_ARG_STRLEN).
_LONGEST = 128 * 1024 - 64
# What stands at the end of these is content, also a blank.
_CONTENT = frozenset(("append-line", "edit", "write"))
# A group of dnf's, whose name may have blanks: virt-builder(1), Installing software.
_GROUP = re.compile(r"@\S+(?: +\S+)*")
# virt-customize takes a number for an octal one if it begins with a zero, and cannot read 0o755.
_OCTAL = re.compile(r"0+[0-7]{0,4}")
_DECIMAL = re.compile(r"[1-9][0-9]{0,3}")
# Who writes these without a zero means the octal number: as decimal ones they are no use.
_USUAL = re.compile(
    r"[1-7]?(?:4(?:00|40|44)|5(?:00|50|55)|6(?:00|20|40|44|60|64|66)"
    r"|7(?:00|10|11|40|44|50|51|54|55|70|71|75|77))"
)
_LARGEST_MODE = 0o7777
# Also of a file that is no text.
KEY = "this looks like a secret key, whose text is not shown: move it out of the repository"
_SELECTING = (Reads.SELECTOR, Reads.USER_SELECTOR)


class _Property(NamedTuple):
    key: str
    value: str
    problems: tuple[str, ...]


@dataclass(slots=True)
class _Reader:
    path: str
    problems: list[Problem] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)

    def complain(self, line: int | None, message: str) -> None:
        self.problems.append(Problem(self.path, line, message))


def parse(text: str, *, name: str, path: str) -> tuple[Spec | None, list[Problem]]:
    """Parse a file's text into a spec, and everything that is wrong with it.

    The spec is None only when its base or architecture is unknown; a spec that comes with
    problems must not be built, but others can be checked against it.

    Args:
        text: The file's content.
        name: The file's name, which is the image's.
        path: Where the file is, for problems and for the spec.
    """
    reader = _Reader(path)
    if message := name_problem(name):
        reader.complain(None, message)
    # Most specs are plain ASCII, which takes a fifth of the time to see.
    is_plain = text.isascii() and text.replace("\n", "").replace("\t", "").isprintable()
    if not is_plain and _SUSPECT.search(text):
        text = _without_suspects(text, reader)
    if not _read(text, reader):
        return None, reader.problems
    base = _check_properties(reader)
    arch = reader.properties.get("arch")
    if reader.problems:
        reader.problems.sort(key=lambda problem: problem.line or 0)
    if base is None or arch is None:
        return None, reader.problems
    spec = Spec(
        name=name,
        path=path,
        base=base,
        arch=arch,
        properties=reader.properties,
        operations=tuple(reader.operations),
        lines=reader.lines,
    )
    return spec, reader.problems


def _without_suspects(text: str, reader: _Reader) -> str:
    """Return the text without characters no spec may have; reports each kind once."""
    seen = set()
    for match in _SUSPECT.finditer(text):
        character = match[0]
        if character not in seen:
            seen.add(character)
            kind = "invisible" if _HIDDEN.match(character) else "control"
            message = _NAMED.get(character, f"the {kind} character U+{ord(character):04X}")
            reader.complain(text.count("\n", 0, match.start()) + 1, f"{message} is not allowed")
    return _SUSPECT.sub("", text)


def _read(text: str, reader: _Reader) -> bool:
    """Read the lines that say something; return whether they are a spec's and not a key's."""
    for number, line in _lines(text, reader):
        statement = _understood(line, number)
        if isinstance(statement, _Property):
            _property(statement, number, reader)
        elif isinstance(statement, Operation):
            reader.operations.append(statement)
        elif statement and is_key_alone(line):
            # The lines below may be the rest of it.
            reader.problems = [Problem(reader.path, number, KEY)]
            return False
        elif statement:
            reader.complain(number, statement)
    return True


def _lines(text: str, reader: _Reader) -> Iterable[tuple[int, str]]:
    """Return the lines with their numbers, each put together from those it is continued in."""
    lines = enumerate(text.removesuffix("\n").split("\n"), 1)
    goes_on = "\\\n" in text or text.endswith("\\")
    return _joined(lines, reader) if goes_on else lines


def _joined(lines: Iterator[tuple[int, str]], reader: _Reader) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        goes_on = line.endswith("\\")
        yield number, _continued(number, line, lines, reader) if goes_on else line


def _continued(number: int, line: str, lines: Iterator[tuple[int, str]], reader: _Reader) -> str:
    parts = [line[:-1]]
    for _, following in lines:
        if following[-1:] != "\\":
            parts.append(following)
            return "\n".join(parts)
        parts.append(following[:-1])
    reader.complain(number, "goes on with a backslash to the end of the file")
    return "\n".join(parts)


def _property(new: _Property, line: int, reader: _Reader) -> None:
    key, value, problems = new
    if key in reader.lines:
        reader.complain(line, f"{key} stands before, in line {reader.lines[key]}")
        return
    reader.lines[key] = line
    for message in problems:
        reader.complain(line, message)
    if value or key not in REQUIRED:
        reader.properties[key] = value


# The same lines stand in the same places of many specs.
@lru_cache(maxsize=16384)
def _understood(text: str, line: int) -> Operation | _Property | str:
    """Return a line's command, property, or nothing (empty); or what is wrong with it."""
    match = _PROPERTY.fullmatch(text)
    if match:
        key, value = match[1], match[2].strip(" ")
        tab = f"a tab in {key}" if "\t" in value else None
        problems = (tab, value_problem(key, value))
        return _Property(key, value, tuple(problem for problem in problems if problem))
    text = text.lstrip()
    if text and text[0] != "#":
        return _operation(text, line)
    return "a comment ends in a backslash, which hides the next line" if "\n" in text else ""


def _operation(text: str, line: int) -> Operation | str:
    """Return a command, or what is wrong with it."""
    name, _, argument = text.partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        return _unknown(name)
    argument = argument.lstrip() if name in _CONTENT else argument.strip()
    if command.form is Form.PACKAGES:
        argument = ",".join(word.strip() for word in argument.split(","))
    message = _argument_problem(name, command, argument)
    return message or Operation(name=name, argument=argument, line=line)


def _unknown(name: str) -> str:
    plain = name.lstrip("-")
    word = name.split(maxsplit=1)[0]
    if name != word:
        return f"{shown(word)} is followed by a tab or newline; virt-builder wants one blank"
    if plain in OPTIONS:
        return f"{plain} is an option and no command: {OPTIONS[plain]}"
    if plain in NEWER:
        since, instead = NEWER[plain]
        return f"{plain} needs virt-builder {since} or newer: {instead}"
    if plain in COMMANDS:
        return f"{shown(name)}: commands are written without dashes"
    return f"unknown command {shown(name)}{suggestion(plain[:100], COMMANDS)}"


def _argument_problem(name: str, command: Command, argument: str) -> str | None:
    if command.form is Form.NONE:
        return f"{name} takes no argument, but has {shown(argument)}" if argument else None
    if not argument:
        return f"{name} needs an argument: {name} {command.shape}"
    # No character has more than four bytes.
    if len(argument) > _LONGEST // 4 and len(argument.encode()) > _LONGEST:
        return f"the argument of {name} has more than {_LONGEST} bytes"
    if name == "ssh-inject" and ":" not in argument:
        return "ssh-inject without a selector reads the key of whoever builds; add :string:KEY"
    if command.form is Form.PAIR and argument.find(":") < 1:
        return f"{name} needs two parts with a colon between: {name} {command.shape}"
    return _detail_problem(name, command, argument)


def _detail_problem(name: str, command: Command, argument: str) -> str | None:
    if command.form is Form.PACKAGES:
        return _packages_problem(name, argument)
    if command.reads in _SELECTING:
        return _selector_problem(name, command, argument)
    if name in GUEST_PATHS:
        return _path_problem(name, command, argument)
    if name == "password-crypto" and argument not in PASSWORD_CRYPTO:
        return f"password-crypto must be {command.shape}, not {shown(argument)}"
    return None


def _mode_problem(mode: str) -> str | None:
    if _USUAL.fullmatch(mode):
        return f"chmod takes {mode} for a decimal number: write 0{mode}"
    if _OCTAL.fullmatch(mode) or (_DECIMAL.fullmatch(mode) and int(mode) <= _LARGEST_MODE):
        return None
    return f"chmod wants an octal mode before the colon, such as 0755, not {shown(mode)}"


def _path_problem(name: str, command: Command, argument: str) -> str | None:
    first, _, rest = argument.partition(":")
    if name == "edit" and not is_harmless(rest):
        return REFUSAL
    if name == "chmod" and (message := _mode_problem(first)):
        return message
    # Only link has more than one colon that parts something.
    most = -1 if name == "link" else 1
    parts = argument.split(":", most) if command.form is Form.PAIR else [argument]
    for path in parts[GUEST_PATHS[name]]:
        if not path.startswith("/"):
            return f"{name} wants a path in the guest that begins with /, not {shown(path)}"
    return None


def _selector_problem(name: str, command: Command, argument: str) -> str | None:
    selector = argument.partition(":")[2] if command.form is Form.PAIR else argument
    if name.endswith("password"):
        selector = unlocked(selector)
    for known in SELECTORS[name]:
        if selector == known or (known[-1] == ":" and selector.startswith(known)):
            return None
    # The text is not shown: it may be a password.
    return f"{name} wants one of {', '.join(SELECTORS[name])} as its selector"


def _packages_problem(name: str, argument: str) -> str | None:
    for package in argument.split(","):
        if not package:
            return f"{name} has an empty name in its list"
        if package.split() != [package] and not _GROUP.fullmatch(package):
            return f"{name} wants commas between packages, not blanks: {shown(package)}"
        if package.startswith("-"):
            return f"{shown(package)} is an option and no package"
    return None


def _check_properties(reader: _Reader) -> Base | None:
    """Return the base, when the properties agree with it."""
    for key, why in REQUIRED.items():
        if key not in reader.lines:
            reader.complain(None, f"no {key}: {why}; add #{key}=…")
    text = reader.properties.get("base")
    if text is None:
        return None
    line = reader.lines["base"]
    base, message = read_base(text, line)
    if message:
        reader.complain(line, message)
    if base:
        for key, message in conflicting_properties(base, reader.properties):
            reader.complain(reader.lines[key], message)
    return base
