"""Read the quarantine: what may fail for now, and is a warning instead of a failed image.

``quarantine.toml`` in the folder of specs has a table for each:

    [[quarantine]]
    image = "lago-fedora-*"
    test = "*/10-nfs"
    issue = "https://github.com/lago-project/lago-images/issues/14"
    until = 2026-12-31

``image`` and ``test`` are patterns with ``*``, ``?`` and ``[…]``; one of them may be left out.
Without ``test`` the whole boot test is meant. ``until`` is the last day, in UTC.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import Any

from lago_images.errors import Problem
from lago_images.specs import toml
from lago_images.specs.folder import QUARANTINE
from lago_images.specs.host_folder import ForbiddenPathError, HostFolder, why
from lago_images.specs.model import Spec
from lago_images.specs.names import shown, suggestion
from lago_images.specs.properties import is_url

# Days before its end in which an entry's end is told.
NOTICE_DAYS = 7
_LARGEST = 1 << 18
_TABLE = "quarantine"
_KEYS = ("image", "test", "issue", "until")
_REQUIRED = ("issue", "until")
_LONGEST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineEntry:
    """One entry: what may fail, why, and for how long.

    Attributes:
        image: A pattern of images' names.
        test: A pattern of tests' names; None for the whole boot test.
        issue: The URL of what is being done about it.
        until: The last day on which it holds.
        line: Where it stands.
    """

    image: str = "*"
    test: str | None = None
    issue: str
    until: date
    line: int | None = None

    def covers(self, image: str, test: str | None) -> bool:
        """Return whether it is of a test of an image, or with None of its whole boot test."""
        if not fnmatchcase(image, self.image):
            return False
        return self.test is None or (test is not None and fnmatchcase(test, self.test))

    def days_left(self, today: date) -> int:
        """Return the days for which it holds after today; less than 0 when it has ended."""
        return (self.until - today).days

    def __str__(self) -> str:
        """Return what it is of, as its patterns say."""
        of = f"image {self.image}" if self.image != "*" or self.test is None else ""
        return " ".join(part for part in (f"test {self.test}" if self.test else "", of) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """What may fail for now; ``path`` is the file's, relative to the root of the repository."""

    entries: tuple[QuarantineEntry, ...] = ()
    path: str = QUARANTINE

    def holding(self, image: str, test: str | None, today: date) -> QuarantineEntry | None:
        """Return the entry that holds a failure back today: of those, the one that ends last."""
        held = [each for each in self._of(image, test) if each.days_left(today) >= 0]
        return max(held, key=lambda entry: entry.until, default=None)

    def ended(self, image: str, test: str | None, today: date) -> QuarantineEntry | None:
        """Return the entry that held a failure back until lately."""
        over = [each for each in self._of(image, test) if each.days_left(today) < 0]
        return max(over, key=lambda entry: entry.until, default=None)

    def notes(self, specs: Mapping[str, Spec], today: date) -> Iterator[tuple[int | None, str]]:
        """Yield what is worth knowing of it, with the line: what ends, ended, or is of nothing."""
        for entry in self.entries:
            if message := ending(entry.until, today):
                yield entry.line, f"{entry}: the quarantine {message} ({entry.issue})"
            if not any(_is_of(entry, spec) for spec in specs.values()):
                yield entry.line, f"there is no {entry}: remove the entry"

    def _of(self, image: str, test: str | None) -> list[QuarantineEntry]:
        return [entry for entry in self.entries if entry.covers(image, test)]


NONE = Quarantine()


def day(now: float) -> date:
    """Return the day, in UTC, of a moment in seconds since the epoch."""
    return datetime.fromtimestamp(now, UTC).date()


def ending(until: date, today: date) -> str:
    """Return that an entry ends within a week, or has ended; empty for one that goes on."""
    left = (until - today).days
    if left < 0:
        return f"ended on {until}: what it held back fails images again"
    if left > NOTICE_DAYS:
        return ""
    when = {0: "today", 1: "tomorrow"}.get(left, f"in {left} days")
    return f"ends {when}, on {until}: what it holds back will fail images again"


def read(host: HostFolder, folder: str) -> tuple[Quarantine, list[Problem]]:
    """Return the quarantine in a folder of specs, empty where there is none, and its problems."""
    path = QUARANTINE if folder in {"", "."} else f"{folder.rstrip('/')}/{QUARANTINE}"
    try:
        text = host.read(path, most=_LARGEST).decode()
    except FileNotFoundError:
        return Quarantine(path=path), []
    except UnicodeDecodeError:
        return Quarantine(path=path), [Problem(path, None, "not UTF-8, as TOML must be")]
    except ForbiddenPathError as error:
        return Quarantine(path=path), [Problem(path, None, str(error))]
    except OSError as error:
        return Quarantine(path=path), [Problem(path, None, f"cannot be read: {why(error)}")]
    entries, found = parse(text)
    return Quarantine(entries=entries, path=path), [Problem(path, *each) for each in found]


def parse(text: str) -> tuple[tuple[QuarantineEntry, ...], list[tuple[int | None, str]]]:
    """Return the entries of a file's text, and everything that is wrong with it, by line."""
    try:
        plain = toml.parse(text)
    except toml.TomlError as error:
        return (), [(error.line, error.message)]
    known = toml.statements(text)
    problems = [
        (toml.line_of(known, key), f"unknown key {shown(key)}: entries are tables, [[{_TABLE}]]")
        for key in plain
        if key != _TABLE
    ]
    tables = plain.get(_TABLE, [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        what = f"entries are tables, [[{_TABLE}]]"
        return (), [*problems, (toml.line_of(known, _TABLE), what)]
    entries = []
    # Written as a list of inline tables they have no headers.
    headers = [*toml.tables_of(known, _TABLE), *[None] * len(tables)]
    for table, header in zip(tables, headers, strict=False):
        wrong = list(_problems(table))
        problems += [(toml.line_of(known, _TABLE, key, header), message) for key, message in wrong]
        if not wrong:
            line = toml.line_of(known, _TABLE, "", header)
            entries.append(QuarantineEntry(**table, line=line))
    return tuple(entries), problems


def _problems(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with an entry, each with the key where that is."""
    for key, value in table.items():
        if key not in _KEYS:
            yield key, f"unknown key {shown(key)}{suggestion(key, _KEYS)}"
        elif key == "until":
            # A moment is a date to Python, too.
            if type(value) is not date:
                yield key, "until must be a day such as 2026-12-31, without quotes"
        elif (
            not isinstance(value, str) or not 0 < len(value) <= _LONGEST or not value.isprintable()
        ):
            yield key, f"{key} must be a string of 1 to {_LONGEST} characters"
        elif key == "issue" and not is_url(value):
            yield key, f"issue must be an http or https URL, not {shown(value)}"
    for key in _REQUIRED:
        if key not in table:
            yield "", f"the entry has no {key}"
    if "image" not in table and "test" not in table:
        yield "", "the entry names neither an image nor a test"


def _is_of(entry: QuarantineEntry, spec: Spec) -> bool:
    tests: list[str | None] = [test.name for test in spec.tests]
    return any(entry.covers(spec.name, test) for test in (tests if entry.test else [None]))
