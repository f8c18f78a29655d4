"""What git says, as values."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

GITLINK = "160000"
# An object's id, of SHA-1 or SHA-256.
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One file that differs between two commits.

    ``status`` is git's letter (``A``, ``M``, ``D``, ``R``, ``T``); ``old`` is a renamed file's
    former path, else empty.
    """

    status: str
    path: str
    old: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit as people name it: its short id and its subject."""

    short: str
    subject: str

    def __str__(self) -> str:
        return f'{self.short} "{self.subject}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What git knows of the files in the work tree.

    Attributes:
        entries: Mode and object id of every file in the index, by path.
        changed: Files whose content in the work tree is not the index's.
        dirty: Files whose content, in the work tree or in the index, is not the head's.
        algorithm: What object ids are hashed with: ``sha1`` or ``sha256``.
    """

    entries: Mapping[str, tuple[str, str]]
    changed: frozenset[str]
    dirty: frozenset[str]
    algorithm: str


def parse_index(listing: str) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """The entries of ``git ls-files -s -v -z``, and the files git was told not to look at."""
    entries: dict[str, tuple[str, str]] = {}
    flagged = set()
    for line in listing.split("\0")[:-1]:
        facts, _, path = line.partition("\t")
        tag, mode, object_id, _stage = facts.split(" ")
        entries[path] = (mode, object_id)
        if tag != "H":
            flagged.add(path)
    return entries, flagged


def parse_status(status: str, prefix: str) -> tuple[set[str], set[str]]:
    """From ``git status --porcelain=v2 -z``: changed in the work tree, and changed at all."""
    # Fields before the path, by the first letter: git-status(1), "Porcelain Format Version 2".
    before = {"1": 8, "u": 10, "?": 1}
    changed, dirty = set(), set()
    for line in status.split("\0")[:-1]:
        if line[0] == "#":
            continue
        path = line.split(" ", before[line[0]])[-1]
        if path.startswith(prefix):
            path = path.removeprefix(prefix)
            dirty.add(path)
            if line[0] != "1" or line[3] != ".":
                changed.add(path)
    return changed, dirty


def parse_changes(listing: str) -> Iterator[Change]:
    """The changes of ``git diff --name-status -z``."""
    fields = iter(listing.split("\0")[:-1])
    for status in fields:
        first = next(fields)
        if status[0] in "RC":
            yield Change(status=status[0], path=next(fields), old=first)
        else:
            yield Change(status=status[0], path=first)


# For `git log -z --name-only`: marks that no path has, around what a commit is known by.
LOG_FORMAT = "%x02%h%x03%p%x03%s"


def parse_log(listing: str, *, cut: bool) -> Mapping[str, tuple[Commit, ...]]:
    """By path, the commits of a log in ``LOG_FORMAT``, in its order.

    ``cut``: history is cut off somewhere. A commit there seems to add every file there is, so
    commits without parents are left out.
    """
    found: dict[str, tuple[Commit, ...]] = {}
    commit: Commit | None = None
    for field in listing.split("\0"):
        text = field.lstrip("\n")
        if text.startswith("\x02"):
            short, parents, subject = text[1:].split("\x03", 2)
            commit = None if cut and not parents else Commit(short=short, subject=subject)
        elif text and commit is not None:
            found[text] = (*found.get(text, ()), commit)
    return found
