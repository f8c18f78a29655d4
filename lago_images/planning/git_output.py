"""Read what git prints for programs into values: an index, a status, changes, a log. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# The mode of a submodule in an index or tree: git keeps its commit, and none of its files.
GITLINK = "160000"


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
    """Name a commit as people do: its short id and its subject."""

    short: str
    subject: str

    def __str__(self) -> str:
        return f'{self.short} "{self.subject}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Hold what git knows of the files in the work tree.

    Attributes:
        entries: Mode and object id of every file in the index, by path.
        changed: Files whose content in the work tree is not the index's.
        dirty: Files whose content, in the work tree or in the index, is not the head's.
    """

    entries: Mapping[str, tuple[str, str]]
    changed: frozenset[str]
    dirty: frozenset[str]


def parse_index(listing: str) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """Read ``git ls-files -s -v -z``: the entries, and the files assumed unchanged."""
    entries: dict[str, tuple[str, str]] = {}
    flagged = set()
    # With -z git quotes no path. Every entry ends in NUL, so the last part is empty.
    for line in listing.split("\0")[:-1]:
        facts, _, path = line.partition("\t")
        tag, mode, object_id, _stage = facts.split(" ")
        entries[path] = (mode, object_id)
        # A lower-case tag is assume-unchanged, S is skip-worktree: git-ls-files(1), -t and -v.
        if tag != "H":
            flagged.add(path)
    return entries, flagged


def parse_status(status: str, prefix: str) -> tuple[set[str], set[str]]:
    """Read ``git status --porcelain=v2 -z``: changed in the work tree, and changed at all."""
    # Fields before the path, by the first letter: git-status(1), "Porcelain Format Version 2".
    before = {"1": 8, "u": 10, "?": 1}
    changed, dirty = set(), set()
    for line in status.split("\0")[:-1]:
        # Headers, such as that of a stash, which some configurations ask for.
        if line[0] == "#":
            continue
        path = line.split(" ", before[line[0]])[-1]
        if path.startswith(prefix):
            path = path.removeprefix(prefix)
            dirty.add(path)
            # The fourth letter is Y of XY: what the work tree has differs from the index.
            if line[0] != "1" or line[3] != ".":
                changed.add(path)
    return changed, dirty


def parse_changes(listing: str) -> Iterator[Change]:
    """Read the changes of ``git diff --name-status -z``."""
    fields = iter(listing.split("\0")[:-1])
    for status in fields:
        first = next(fields)
        # R and C have a percentage and two paths: git-diff(1), "Raw output format".
        if status[0] in "RC":
            yield Change(status=status[0], path=next(fields), old=first)
        else:
            yield Change(status=status[0], path=first)


# For `git log -z --name-only`: marks that no path has, around what a commit is known by.
LOG_FORMAT = "%x02%h%x03%p%x03%s"


def parse_log(listing: str, *, cut: bool) -> Mapping[str, tuple[Commit, ...]]:
    """Return, by path, the commits of a log in ``LOG_FORMAT``, in its order.

    ``cut``: history is cut off somewhere. A commit there seems to add every file there is, so
    commits without parents are left out.
    """
    by_path: dict[str, tuple[Commit, ...]] = {}
    commit: Commit | None = None
    for field in listing.split("\0"):
        text = field.lstrip("\n")
        if text.startswith("\x02"):
            short, parents, subject = text[1:].split("\x03", 2)
            commit = None if cut and not parents else Commit(short=short, subject=subject)
        elif text and commit is not None:
            by_path[text] = (*by_path.get(text, ()), commit)
    return by_path
