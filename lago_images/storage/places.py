"""Keys as paths in a directory that they cannot leave."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lago_images.errors import StorageError

# The store's own files; hidden, so that neither a listing nor a web server shows them.
PRIVATE = ".lago-images"


def place(root: Path, key: str) -> Path:
    """The path of a key.

    Raises:
        StorageError: The key cannot be a path below ``root``, or a symbolic link is in the way.
    """
    check(key)
    path = root / key
    if os.path.realpath(path) != os.path.join(os.path.realpath(root), key):  # noqa: PTH118
        raise StorageError(f"{path} is, or is behind, a symbolic link", hint="remove the link")
    return path


def check(key: str) -> None:
    """Raises ``StorageError`` for a key that is no relative path, or is the store's own."""
    segments = key.split("/")
    if not {"", ".", ".."}.isdisjoint(segments) or "\0" in key or segments[0] == PRIVATE:
        raise StorageError(f"{key!r} cannot be a key in a directory")


def walk(root: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """All files whose key starts with ``prefix``, by key in the order of its UTF-8 bytes.

    Symbolic links are no objects of ours and left out. A folder or file that vanishes meanwhile is
    left out; any other failure is an ``OSError``.
    """
    yield from _walk(os.fspath(root), "", prefix)


def _walk(folder: str, base: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if base or entry.name != PRIVATE]
    except FileNotFoundError:
        return
    folders = {entry.path for entry in found if entry.is_dir(follow_symlinks=False)}

    def order(entry: os.DirEntry[str]) -> bytes:
        # A folder sorts as its keys do: "a-b" before "a/c".
        return os.fsencode(entry.name + ("/" if entry.path in folders else ""))

    for entry in sorted(found, key=order):
        key = base + entry.name
        if entry.path in folders:
            if prefix.startswith(key + "/") or (key + "/").startswith(prefix):
                yield from _walk(entry.path, key + "/", prefix)
        elif key.startswith(prefix):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield key, status
