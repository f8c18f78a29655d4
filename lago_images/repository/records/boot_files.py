"""List the files that a machine starts with, those of ``/boot``, and compare two such lists.

A list is an object of its own, of the key ``BuildFolder.boot_files``: the caller reads and parses
it, or leaves out what is not known.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# The list comes out of a guest, which is not trusted, and whose file systems take any name.
_LINE = re.compile(r"(?:([0-9a-f]{64}) ([0-9]{1,15})|- -) (/[^\x00-\x1f\x7f]{1,4096})")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class BootFile:
    """A file that a machine starts with: its path in the guest, its size in bytes, its SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFiles:
    """The files of ``/boot``, and of the EFI system partition where the guest mounts it.

    Attributes:
        files: Sorted by path; kernels, initrds, the boot loader and its menu. No links.
        unread: Sorted; folders and files of which nobody has looked at the content.
    """

    files: tuple[BootFile, ...]
    unread: tuple[str, ...] = ()

    @classmethod
    def of(cls, files: Iterable[BootFile], unread: Iterable[str]) -> "BootFiles":
        """Make a list without the files that are, or are in, what was not read."""
        out = tuple(sorted(set(unread)))
        return cls(files=tuple(sorted(f for f in files if not _is_in(f.path, out))), unread=out)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFileChange:
    """A file with another content; sizes in bytes, which may be equal."""

    path: str
    old_size: int
    new_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BootChanges:
    """The changes from one list of boot files to another, each sorted by path; false for none.

    Attributes:
        unread: What was not read in one of the two, and is not compared.
    """

    added: tuple[BootFile, ...]
    removed: tuple[BootFile, ...]
    changed: tuple[BootFileChange, ...]
    unread: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def render(listed: BootFiles) -> str:
    """Return a line ``SHA256 SIZE PATH`` a file, and ``- - PATH`` for what was not read."""
    lines = [f"{each.sha256} {each.size} {each.path}\n" for each in listed.files]
    return "".join((*lines, *(f"- - {path}\n" for path in listed.unread)))


def parse(text: str) -> BootFiles:
    """Parse what ``render`` has written; other lines are left out."""
    files, unread = dict[str, BootFile](), list[str]()
    for line in text.split("\n"):
        if match := _LINE.fullmatch(line):
            sha256, size, path = match.groups()
            if sha256 is None:
                unread.append(path)
            else:
                files[path] = BootFile(path=path, size=int(size), sha256=sha256)
    return BootFiles.of(files.values(), unread)


def compare(old: BootFiles | None, new: BootFiles | None) -> BootChanges | None:
    """Compare two lists of boot files; None where one of them is not known."""
    if old is None or new is None:
        return None
    unread = tuple(sorted({*old.unread, *new.unread}))
    before = {each.path: each for each in old.files if not _is_in(each.path, unread)}
    after = {each.path: each for each in new.files if not _is_in(each.path, unread)}
    return BootChanges(
        added=tuple(each for path, each in after.items() if path not in before),
        removed=tuple(each for path, each in before.items() if path not in after),
        changed=tuple(
            BootFileChange(path=path, old_size=before[path].size, new_size=each.size)
            for path, each in after.items()
            if path in before and before[path].sha256 != each.sha256
        ),
        unread=unread,
    )


def _is_in(path: str, folders: Iterable[str]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in folders)
