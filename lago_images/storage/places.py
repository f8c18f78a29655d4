"""Keys as paths in a directory that they cannot leave."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lago_images.errors import StorageError

# The store's own files; hidden, so that neither a listing nor a web server shows them.
PRIVATE = ".lago-images"
_HIDDEN = f"{PRIVATE}/"
# Where a repository's objects are; beside them a user may keep what they like, links too.
_OURS = ("builds/", "releases/", "state/")
_LINK_HINT = "put what the link points to in its place; a repository as a whole may be behind one"


def place(root: Path, key: str) -> Path:
    """The path of a key.

    Raises:
        StorageError: The key cannot be a path below ``root``, or a symbolic link is in the way.
    """
    check(key)
    path = root / key
    if os.path.realpath(path) != os.path.join(os.path.realpath(root), key):  # noqa: PTH118
        raise StorageError(f"{path} is, or is behind, a symbolic link", hint=_LINK_HINT)
    return path


def check(key: str) -> None:
    """Raises ``StorageError`` for a key that is no relative path, or is the store's own."""
    segments = key.split("/")
    if not {"", ".", ".."}.isdisjoint(segments) or "\0" in key or segments[0] == PRIVATE:
        raise StorageError(f"{key!r} cannot be a key in a directory")


def walk(root: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """All files whose key starts with ``prefix``, by key in the order of its UTF-8 bytes.

    A folder or file that vanishes meanwhile is left out, and so are symbolic links beside the
    folders of the repository. Any failure of the operating system is an ``OSError``.

    Raises:
        StorageError: There is a symbolic link where objects belong. What is behind it is neither
            here nor absent.
    """
    waiting: list[tuple[str, str | os.DirEntry[str]]] = [("", os.fspath(root))]
    while waiting:
        key, found = waiting.pop()
        if isinstance(found, str):
            waiting += reversed(_children(found, key, prefix))
            continue
        try:
            status = found.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            yield key, status
        elif stat.S_ISLNK(status.st_mode) and f"{key}/".startswith(_OURS):
            raise StorageError(f"{found.path} is a symbolic link", hint=_LINK_HINT)


def _children(folder: str, base: str, prefix: str) -> list[tuple[str, str | os.DirEntry[str]]]:
    """What is in a folder and may concern the prefix: folders by path, their keys with a slash.

    With it a folder sorts as its keys do: "a-b" before "a/c".
    """
    found: list[tuple[str, str | os.DirEntry[str]]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                key = base + entry.name
                if entry.is_dir(follow_symlinks=False):
                    key += "/"
                    if key != _HIDDEN and (key.startswith(prefix) or prefix.startswith(key)):
                        found.append((key, entry.path))
                elif key != PRIVATE and (key.startswith(prefix) or _hides(entry, key, prefix)):
                    found.append((key, entry))
    except FileNotFoundError:
        return []
    found.sort(key=lambda child: child[0].encode(errors="surrogateescape"))
    return found


def _hides(entry: os.DirEntry[str], key: str, prefix: str) -> bool:
    """Whether what is asked for would be behind this link."""
    return prefix.startswith(f"{key}/") and entry.is_symlink()
