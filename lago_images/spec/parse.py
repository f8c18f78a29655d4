r"""From the text of a spec to its value, with every problem on the way.

A spec is what virt-builder's ``--commands-from-file`` reads, read the same way: a line that ends
in ``\`` goes on in the next, with a newline between; then blank lines and those that start with
``#`` are left out; the rest is a command, one blank, its argument. A comment line of the form
``#key=value`` (no blank after the ``#``, a key of letters, digits and ``_.-``) is a property.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from lago_images.errors import Problem
from lago_images.spec.commands import (
    COMMANDS,
    NEWER,
    OPTIONS,
    PASSWORD_CRYPTO,
    SELECTORS,
    Command,
    Form,
    Reads,
)
from lago_images.spec.inputs import unlocked
from lago_images.spec.model import Base, BaseKind, Operation, Spec
from lago_images.spec.names import BOOTSTRAP_RELEASES, NAME, name_problem, shown, suggestion
from lago_images.spec.perl import REFUSAL, is_harmless
from lago_images.spec.properties import BOOTSTRAP_ONLY, REQUIRED, is_url, value_problem

_PROPERTY = re.compile(r"#([A-Za-z0-9_.-]+)[ ]*=(.*)")
# Control characters but tab and newline, line separators that some programs honour, marks that
# change the direction of what a reviewer sees, and byte order marks.
_SUSPECT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_KINDS = tuple(kind.value for kind in BaseKind)
_NAMED = {
    "\r": "a carriage return (Windows line ending)",
    "\0": "a NUL byte",
    "\ufeff": "a byte order mark",
}
# One argument of a program can have 128 KiB on Linux (MAX_ARG_STRLEN).
_LONGEST = 128 * 1024 - 64
# What stands at the end of these is content, also a blank.
_CONTENT = frozenset(("append-line", "edit", "write"))


@dataclass(slots=True)
class _Reader:
    path: str
    problems: list[Problem] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)

    def complain(self, line: int | None, what: str) -> None:
        self.problems.append(Problem(self.path, line, what))


def parse(text: str, *, name: str, path: str) -> tuple[Spec | None, list[Problem]]:
    """The spec that a file's text says, and everything that is wrong with it.

    The spec is None only when its base or architecture cannot be told; a spec that comes with
    problems must not be built, but others can be checked against it.

    Args:
        text: The file's content.
        name: The file's name, which is the image's.
        path: Where the file is, for problems and for the spec.
    """
    reader = _Reader(path)
    if what := name_problem(name):
        reader.complain(None, what)
    if _SUSPECT.search(text):
        text = _without_suspects(text, reader)
    _read(text, reader)
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
    """The text without characters no spec may have: each kind told once, where it is first."""
    seen = set()
    for match in _SUSPECT.finditer(text):
        character = match[0]
        if character not in seen:
            seen.add(character)
            what = _NAMED.get(character, f"the control character U+{ord(character):04X}")
            reader.complain(text.count("\n", 0, match.start()) + 1, f"{what} is not allowed")
    return _SUSPECT.sub("", text)


def _read(text: str, reader: _Reader) -> None:
    """Read the lines that say something, each put together from those it is continued in."""
    lines = iter(enumerate(text.removesuffix("\n").split("\n"), 1))
    for number, start in lines:
        line = _continued(number, start, lines, reader) if start[-1:] == "\\" else start
        if line[:1] == "#":
            match = _PROPERTY.fullmatch(line)
            if match:
                _property(match[1], match[2].strip(" "), number, reader)
                continue
        stripped = line.lstrip()
        if stripped and stripped[0] != "#":
            _operation(stripped, number, reader)
        elif "\n" in stripped:
            reader.complain(number, "a comment ends in a backslash, which hides the next line")


def _continued(number: int, line: str, lines: Iterator[tuple[int, str]], reader: _Reader) -> str:
    parts = [line[:-1]]
    for _, following in lines:
        if following[-1:] != "\\":
            parts.append(following)
            return "\n".join(parts)
        parts.append(following[:-1])
    reader.complain(number, "goes on with a backslash to the end of the file")
    return "\n".join(parts)


def _property(key: str, value: str, line: int, reader: _Reader) -> None:
    if key in reader.lines:
        reader.complain(line, f"{key} was said before, in line {reader.lines[key]}")
        return
    reader.lines[key] = line
    if "\t" in value:
        reader.complain(line, f"a tab in {key}")
    if what := value_problem(key, value):
        reader.complain(line, what)
    if value or key not in REQUIRED:
        reader.properties[key] = value


def _operation(text: str, line: int, reader: _Reader) -> None:
    found = _understood(text, line)
    if isinstance(found, str):
        reader.complain(line, found)
    else:
        reader.operations.append(found)


# The same commands stand in the same places of many specs.
@lru_cache(maxsize=16384)
def _understood(text: str, line: int) -> Operation | str:
    """A command, or what is wrong with it."""
    name, _, argument = text.partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        return _unknown(name)
    argument = argument.lstrip() if name in _CONTENT else argument.strip()
    if command.form is Form.PACKAGES:
        argument = ",".join(word.strip() for word in argument.split(","))
    what = _argument_problem(name, command, argument)
    return what or Operation(name=name, argument=argument, line=line)


def _unknown(name: str) -> str:
    plain = name.lstrip("-")
    word = name.split(maxsplit=1)[0]
    if name != word:
        return f"{shown(word)} is followed by a tab or newline; virt-builder wants one blank"
    if plain in OPTIONS:
        return f"{plain} is an option and no command: {OPTIONS[plain]}"
    if plain in NEWER:
        return f"{plain} needs a newer virt-builder than 1.48: {NEWER[plain]}"
    if plain in COMMANDS:
        return f"{shown(name)}: commands are written without dashes"
    return f"unknown command {shown(name)}{suggestion(plain[:100], COMMANDS)}"


def _argument_problem(name: str, command: Command, argument: str) -> str | None:
    if command.form is Form.NONE:
        return f"{name} takes no argument, but has {shown(argument)}" if argument else None
    if not argument:
        return f"{name} needs an argument: {name} {command.shape}"
    if len(argument.encode()) > _LONGEST:
        return f"the argument of {name} has more than {_LONGEST} bytes"
    if name == "ssh-inject" and ":" not in argument:
        return "ssh-inject without a selector reads the key of whoever builds; add :string:KEY"
    if command.form is Form.PAIR and argument.find(":") < 1:
        return f"{name} needs two parts with a colon between: {name} {command.shape}"
    return _detail_problem(name, command, argument)


def _detail_problem(name: str, command: Command, argument: str) -> str | None:
    if command.form is Form.PACKAGES:
        return _packages_problem(name, argument)
    if command.reads in {Reads.SELECTOR, Reads.USER_SELECTOR}:
        return _selector_problem(name, command, argument)
    if name == "edit" and not is_harmless(argument.partition(":")[2]):
        return REFUSAL
    if name == "password-crypto" and argument not in PASSWORD_CRYPTO:
        return f"password-crypto must be {command.shape}, not {shown(argument)}"
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
        if package.split() != [package]:
            return f"{name} wants commas between packages, not blanks: {shown(package)}"
        if package.startswith("-"):
            return f"{shown(package)} is an option and no package"
    return None


def _check_properties(reader: _Reader) -> Base | None:
    """The base, when what is said of it fits together."""
    for key, why in REQUIRED.items():
        if key not in reader.lines:
            reader.complain(None, f"no {key}: {why}; add #{key}=…")
    text = reader.properties.get("base")
    if text is None:
        return None
    line = reader.lines["base"]
    base, what = _base(text, line)
    if what:
        reader.complain(line, what)
    if base:
        _check_fit(base, reader)
    return base


def _base(text: str, line: int) -> tuple[Base | None, str | None]:
    kind, colon, name = text.partition(":")
    if not colon:
        kind, name = BaseKind.LAYER, text
    elif kind in {"http", "https", "file"}:
        return None, "a disk at a URL is written base=simple:URL"
    elif kind not in _KINDS:
        near = suggestion(kind, _KINDS)
        return None, f"unknown kind of base {shown(kind)}, not one of {', '.join(_KINDS)}{near}"
    base = Base(kind=BaseKind(kind), name=name, line=line)
    return base, _base_problem(base)


def _base_problem(base: Base) -> str | None:
    name = base.name
    if not name:
        return f"{base.kind}: has no name after the colon"
    if base.kind is BaseKind.BOOTSTRAP and name not in BOOTSTRAP_RELEASES:
        known = ", ".join(BOOTSTRAP_RELEASES)
        near = suggestion(name, BOOTSTRAP_RELEASES)
        return f"bootstrap: knows {known}, not {shown(name)}{near}"
    if base.kind is BaseKind.SIMPLE:
        if "://" in name and not is_url(name):
            # Not shown: it may hold a password.
            return "simple: takes an http or https URL without a password, or a path"
        return None
    if not NAME.fullmatch(name):
        return f"{shown(name)} cannot be the name of a template or spec"
    return None


def _check_fit(base: Base, reader: _Reader) -> None:
    for key in BOOTSTRAP_ONLY:
        if key in reader.properties and base.kind is not BaseKind.BOOTSTRAP:
            reader.complain(reader.lines[key], f"{key} is for bootstrap: bases only")
    has_checksum = "base-checksum" in reader.properties
    if has_checksum and base.kind is not BaseKind.SIMPLE:
        reader.complain(reader.lines["base-checksum"], "base-checksum is for simple: bases only")
    if base.kind is BaseKind.SIMPLE and "://" in base.name and not has_checksum:
        reader.complain(base.line, "a simple: base at a URL needs #base-checksum=sha256:…")
