"""Read TOML that people write: what is wrong with it, in which line, and what to do.

tomllib tells the place in its message only, of one error, and in a parser's words. What it does not
tell is found by a look at the lines.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lago_images.specs.names import shown

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_NAME = r"([\w.-]+|\"[^\"]*\"|'[^']*')"
_HEADER = re.compile(rf"\s*(\[\[?)\s*{_NAME}\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(rf"\s*{_NAME}\s*=")
_MULTILINE = re.compile(r"\"\"\"|'''")
_TWICE = ("Cannot overwrite", "Duplicate inline", "Cannot declare", "Cannot mutate")
_SHAPE = "a line is NAME = VALUE, [TABLE] or # COMMENT"
_UNCLOSED = "the list that begins here is not closed or lacks a comma; add the ] or the ,"
# By the start of what tomllib says.
_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "Invalid value": 'a value is "text" in quotes, a number, true, false or a [list] of such',
        "Invalid statement": _SHAPE,
        "Expected '='": f"there is no = after the name; {_SHAPE}",
        "Expected newline": "something follows the value; put it into a line of its own, "
        "or a # before it",
        "Expected ']": "the name of a table is not closed; write [NAME] or [[NAME]]",
        "Unclosed array": _UNCLOSED,
        "Unclosed inline": "a table in { } is not closed; add the }",
        "Unterminated string": "a string has no end; add the quote that closes it",
        "Expected '": "a string has no end; add the quotes that close it",
        'Expected "': "a string has no end; add the quotes that close it",
        "Illegal character '\\n'": "a string has no end in its line; add the quote that closes it",
        "Unescaped '\\'": r"in double quotes a backslash is written \\; "
        "in single quotes it is as it is",
    }
)


class TomlError(ValueError):
    """Raised for a text that is not TOML; ``line`` is None where that is not known."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A line that begins a table or sets a key.

    Attributes:
        line: Its number.
        name: Of the table or the key, without quotes.
        brackets: ``[`` or ``[[`` of a table; empty for a key.
        table: The one that a key stands in; None for those above all tables, and for tables.
    """

    line: int
    name: str
    brackets: str = ""
    table: "Statement | None" = None

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.brackets}{self.name}{']' * len(self.brackets)}"


def parse(text: str) -> dict[str, Any]:
    """Read TOML; raises ``TomlError``."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise TomlError(None, "not TOML: nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise _explained(str(error), text) from error
    # Of int itself, without a place.
    except ValueError as error:
        raise TomlError(None, "not TOML: a number has too many digits") from error


def statements(text: str) -> tuple[Statement, ...]:
    """Return the tables and keys of a text, be it TOML or nearly so, in order."""
    return tuple(_statements(text))


def _statements(text: str) -> Iterator[Statement]:
    table, is_in_string = None, False
    for number, line in enumerate(text.split("\n"), 1):
        if not is_in_string:
            if match := _HEADER.fullmatch(line.rstrip("\r")):
                name = match[2].strip("\"'")
                table = Statement(line=number, name=name, brackets=match[1])
                yield table
            elif match := _KEY.match(line):
                yield Statement(line=number, name=match[1].strip("\"'"), table=table)
        is_in_string ^= len(_MULTILINE.findall(line)) % 2 == 1


def line_of(
    known: Iterable[Statement], name: str, key: str = "", table: Statement | None = None
) -> int | None:
    """Return the line of a key in a table of a name, else that of the table.

    Without a table, that of the first of that name, or of the key of that name above all tables.
    """
    if table is not None:
        in_table = (each.line for each in known if each.table is table and each.name == key)
        return next(in_table, table.line)
    return next((each.line for each in known if each.table is None and each.name == name), None)


def tables_of(known: Iterable[Statement], name: str) -> list[Statement]:
    """Return the headers of the tables of one name."""
    return [each for each in known if each.brackets and each.name == name]


def _explained(said: str, text: str) -> TomlError:
    place = _PLACE.search(said)
    reason = said[: place.start()] if place else said
    # At the end of the document something is wrong that began with the last statement.
    end = text.rstrip().count("\n") + 1
    line, column = (int(place[1]), int(place[2])) if place and place[1] else (end, 0)
    before = [each for each in statements(text) if each.line <= line]
    if before and reason.startswith(_TWICE):
        return TomlError(before[-1].line, _twice(before[-1], before[:-1]))
    if opener := _open_list(text.split("\n"), line, column, before):
        return TomlError(opener.line, f"not TOML: {_UNCLOSED}")
    if not column and before:
        line = before[-1].line
    advice = (text for start, text in _ADVICE.items() if reason.startswith(start))
    return TomlError(line, f"not TOML: {next(advice, f'{reason}; {_SHAPE}')}")


def _open_list(
    lines: Sequence[str], line: int, column: int, before: Sequence[Statement]
) -> Statement | None:
    """Return what sets a list that is open above a fault, or at the end (``column`` is 0 then).

    The parser finds such a fault where the next statement begins.
    """
    indent = len(lines[line - 1]) - len(lines[line - 1].lstrip())
    is_at_start = 0 < column <= indent + 1
    above = [each for each in before if each.line < line or not is_at_start]
    if not above:
        return None
    read = lines[above[-1].line - 1 : line - 1 if column else line]
    value = "\n".join(read).partition("=")[2].lstrip()
    is_open = value.startswith("[") and value.count("[") > value.count("]")
    return above[-1] if is_open else None


def _twice(again: Statement, before: Sequence[Statement]) -> str:
    """Return that a key or a table stands there a second time, and what to do."""
    same = [each for each in before if each.name == again.name and each.table is again.table]
    if not same:
        return f"{shown(again.name)} is set twice, or holds a key twice; remove one of the two"
    first = same[-1]
    if again.brackets and first.brackets == "[[":
        return f"{again} cannot stand beside {first} of line {first.line}; write {first} here, too"
    if again.brackets and first.brackets:
        return f"{again} is there already, in line {first.line}; put the keys of both into one"
    another = f", or begin another {again.table} above it" if _is_listed(again) else ""
    return f"{again.name} is set already, in line {first.line}; remove one of the two{another}"


def _is_listed(key: Statement) -> bool:
    return key.table is not None and key.table.brackets == "[["
