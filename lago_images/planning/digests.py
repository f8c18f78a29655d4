"""Where symbolic links lead: what git has to be asked about besides the path as it is written.

Digests of the host files that specs read, as git would have them.

A file that git holds unchanged is known by the id in git's index: nothing is read, line endings
and clone depth do not matter. Any other is hashed here in the same way, so that committing it does
not change its digest. Measured with 10,000 specs and 3,000 files of 20 kB: 0.05 s of CPU for
git's index and status, 0.11 s for reading and hashing the files, which grows with their size.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lago_images.planning.git import GITLINK, Snapshot
from lago_images.specs.host_files import is_inside, refusal

# As many as Linux follows in one path (path_resolution(7)).
_MOST = 40


@dataclass(slots=True)
class Links:
    """The links in paths below ``root``; each folder on the way is looked at once."""

    root: Path
    _top: str = ""
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._top = os.path.realpath(self.root)
        self._known[self._top] = (self._top,)

    def way(self, path: str) -> tuple[str, ...]:
        """Return the links below ``root`` that reading ``path`` follows, in order, and their end.

        Raises:
            OSError: Links lead in a circle.
            ValueError: They lead outside ``root``, or to git's own files.
        """
        *links, real = self._follow(f"{self._top}/{path}", _MOST)
        if why_not := refusal(real, self._top):
            raise ValueError(f"{path} {why_not}")
        below = [link for link in links if is_inside(link, self._top)]
        return tuple(found[len(self._top) :].lstrip("/") or "." for found in (*below, real))

    def _follow(self, path: str, most: int) -> tuple[str, ...]:
        if not path.strip("/"):
            return ("/",)
        found = self._known.get(path)
        if found is None:
            folder, name = os.path.split(path)
            found = self._known[path] = self._last(self._follow(folder, most), name, most)
        return found

    def _last(self, folder: tuple[str, ...], name: str, most: int) -> tuple[str, ...]:
        """A way that goes on from a folder's by one part of a path."""
        *links, real = folder
        here = os.path.join(real, name)  # noqa: PTH118 -- a Path takes ten times as long
        if name in {"", "."}:
            return folder
        if name == "..":
            return (*links, os.path.dirname(real))  # noqa: PTH120 -- as above
        if not os.path.islink(here):  # noqa: PTH114 -- as above
            return (*links, here)
        if not most:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.path.join(real, os.readlink(here))  # noqa: PTH115, PTH118 -- as above
        return (*links, here, *self._follow(target, most - 1))


_LINK, _PLAIN, _PROGRAM, _SPECIAL = "120000", "100644", "100755", "special"
Digest = tuple[str, str, str]
_PIECE = 1 << 20


@dataclass(slots=True, kw_only=True)
class Files:
    """The digests of files below ``root``; each file is looked at once.

    Attributes:
        root: What paths are relative to.
        git: What git knows of them; None outside git.
        dirty: The files met so far that are not as in git's head; none outside git.
    """

    root: Path
    git: Snapshot | None = None
    dirty: set[str] = field(default_factory=set)
    _known: dict[str, tuple[Digest, ...]] = field(default_factory=dict)
    _submodules: tuple[str, ...] = ()
    _links: Links = field(init=False)

    def __post_init__(self) -> None:
        entries = self.git.entries if self.git else {}
        links = [path for path, (mode, _) in entries.items() if mode == GITLINK]
        self._submodules = tuple(sorted(links))
        self._links = Links(self.root)

    def digests(self, path: str) -> tuple[Digest, ...]:
        """Of each file that reading ``path`` reads: the path below it, the mode, the digest.

        A symbolic link at ``path`` is followed, inside a folder it counts by its target. What is
        in an unchanged submodule is known by the submodule's commit, so it need not be there.
        An empty folder has no digest, because git cannot hold one.

        Raises:
            OSError: It is not there or cannot be read.
            ValueError: It leads outside ``root``.
        """
        found = self._known.get(path)
        if found is None:
            found = self._known[path] = tuple(sorted(self._read(str(PurePosixPath(path)))))
        return found

    def way(self, path: str) -> tuple[str, ...]:
        """The symbolic links that reading ``path`` follows, in order, and where they lead.

        Only ``path`` where there are none, and for what is in a submodule. Raises as ``digests``.
        """
        known = self._held(path)
        if (known is not None and known[0] != _LINK) or self._submodule_of(path) is not None:
            return (path,)
        return self._links.way(path)

    def _read(self, path: str) -> Iterator[Digest]:
        path = self.way(path)[-1]
        if submodule := self._submodule_of(path):
            yield ("", *self._submodule(submodule))
        elif self._held(path) is not None or not (self.root / path).is_dir():
            yield ("", *self._file(path))
        else:
            self.dirty.update(self._uncommitted(path))
            yield from self._folder(path, path)

    def _uncommitted(self, folder: str) -> Iterator[str]:
        """What git knows in a folder and has otherwise: also files that are gone from it."""
        for path in self.git.dirty if self.git else ():
            if folder == "." or path.startswith(f"{folder}/"):
                yield path

    def _folder(self, top: str, folder: str) -> Iterator[Digest]:
        with os.scandir(self.root / folder) as entries:
            for entry in entries:
                path = entry.name if folder == "." else f"{folder}/{entry.name}"
                below = path if top == "." else path[len(top) + 1 :]
                if entry.name == ".git":
                    continue
                if path in self._submodules:
                    yield (below, *self._submodule(path))
                elif entry.is_dir(follow_symlinks=False):
                    yield from self._folder(top, path)
                else:
                    yield (below, *self._file(path))

    def _held(self, path: str) -> tuple[str, str] | None:
        """What git's index says of a file that is the same in the work tree."""
        if self.git is None or path in self.git.changed:
            return None
        entry = self.git.entries.get(path)
        return None if entry is None or entry[0] == GITLINK else entry

    def _file(self, path: str) -> tuple[str, str]:
        if self.git and not self._submodule_of(path) and not self.is_committed(path):
            self.dirty.add(path)
        return self._held(path) or hash_file(self.root / path, self._algorithm)

    def is_committed(self, path: str) -> bool:
        """Whether a file, or the submodule that it is in, is as in git's head."""
        git, path = self.git, self._submodule_of(path) or path
        return git is not None and path in git.entries and path not in git.dirty

    def _submodule_of(self, path: str) -> str | None:
        if not self._submodules:
            return None
        inside = (name for name in self._submodules if f"{path}/".startswith(f"{name}/"))
        return next(inside, None)

    def _submodule(self, path: str) -> tuple[str, str]:
        """A submodule by its commit, and by its files if they are not the commit's."""
        assert self.git is not None  # noqa: S101 -- only git knows of submodules
        commit = self.git.entries[path][1]
        if path in self.git.dirty:
            self.dirty.add(path)
        if path not in self.git.changed:
            return GITLINK, commit
        whole = hashlib.new(self._algorithm, commit.encode(), usedforsecurity=False)
        for digest in sorted(self._folder(path, path)):
            whole.update("\0".join((*digest, "")).encode(errors="surrogateescape"))
        return GITLINK, whole.hexdigest()

    @property
    def _algorithm(self) -> str:
        return self.git.algorithm if self.git else "sha1"


def hash_file(path: Path, algorithm: str = "sha1") -> tuple[str, str]:
    """A file's mode and its id, as git would give them to it.

    A blob's id is the hash of ``blob``, a space, its size, a zero byte, its content
    (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects).
    """
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode):
        return _LINK, _blob(os.fsencode(path.readlink()), algorithm)
    if not stat.S_ISREG(facts.st_mode):
        return _SPECIAL, ""
    with path.open("rb") as file:
        whole = hashlib.new(algorithm, b"blob %d\0" % facts.st_size, usedforsecurity=False)
        while piece := file.read(_PIECE):
            whole.update(piece)
    return (_PROGRAM if facts.st_mode & stat.S_IXUSR else _PLAIN), whole.hexdigest()


def _blob(content: bytes, algorithm: str) -> str:
    header = b"blob %d\0" % len(content)
    return hashlib.new(algorithm, header + content, usedforsecurity=False).hexdigest()
