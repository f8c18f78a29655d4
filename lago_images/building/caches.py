"""Keep what builds may use again, and their logs: bounded folders below one cache.

Anybody may clear them, and nothing is built otherwise by that.
Nothing in them is believed by its name: what is read is compared with a digest, and a damaged entry
is made anew. A file is written beside its place and renamed, so that nobody finds half of one; who
reads a file that is removed meanwhile reads it to its end.
"""

import hashlib
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lago_images.building import downloads, kept_logs

_GIB = 2**30
_NEW = ".new-"
# Seconds without a byte after which a file that was begun is a killed run's.
_ABANDONED = 3600.0


class Kind(StrEnum):
    """A kind of what is kept: the name of its folder."""

    DOWNLOADS = "downloads"
    GUEST_PACKAGES = "guest-packages"
    LAYERS = "layers"
    LOGS = kept_logs.FOLDER
    PACKAGES = "packages"
    TREES = "trees"


# Bytes that the folder of a kind may have; of more, what was used longest ago goes.
LIMITS = {
    Kind.DOWNLOADS: downloads.LIMIT,
    Kind.GUEST_PACKAGES: 2 * _GIB,
    Kind.LAYERS: downloads.LIMIT,
    Kind.LOGS: kept_logs.LIMIT,
    Kind.PACKAGES: 2 * _GIB,
    Kind.TREES: 6 * _GIB,
}
PURPOSES = {
    Kind.DOWNLOADS: "templates and disks from URLs, named by the digest that they must have",
    Kind.GUEST_PACKAGES: "packages that commands installed, and for each image the list of its own",
    Kind.LAYERS: "published disks that layers stand on, named by their digest",
    Kind.LOGS: f"logs and last screens of images, of at most {kept_logs.RUNS} runs, a folder each",
    Kind.PACKAGES: "packages of bootstraps, named by the digest that the archive signs",
    Kind.TREES: "bootstrapped folders, named by all that they were made of and by their digest",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file in a cache: ``used`` is when it was read last, in seconds since the epoch.

    A log's ``name`` begins with its run's folder, and it was used when it was written.
    """

    kind: Kind
    name: str
    size: int
    used: int


def entries(cache: Path) -> Iterator[Entry]:
    """Yield all that is kept below a folder, the last used first, by kind."""
    for kind in Kind:
        found = []
        folder = cache / kind
        for path in folder.glob("*/*" if kind is Kind.LOGS else "*"):
            # Another run may remove it at this moment.
            with suppress(OSError):
                status = path.stat()
                if path.is_file() and path.suffix != downloads.LOCK:
                    moment = int(status.st_mtime)
                    name = str(path.relative_to(folder))
                    found.append(Entry(kind=kind, name=name, size=status.st_size, used=moment))
        yield from sorted(found, key=lambda entry: (-entry.used, entry.name))


def clear(
    cache: Path, kinds: Collection[Kind], now: float
) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """Remove what is kept of some kinds; ``now`` in seconds since the epoch.

    Returns what was removed, and what was left because another run is about to write it.
    """
    removed: list[Entry] = []
    left: list[Entry] = []
    for entry in [entry for entry in entries(cache) if entry.kind in kinds]:
        path = cache / entry.kind / entry.name
        is_begun = path.name.startswith(_NEW) or kept_logs.is_unfinished(path)
        is_new = is_begun and now - entry.used < _ABANDONED
        is_removed = not is_new and downloads.remove_unless_locked(path)
        (removed if is_removed else left).append(entry)
    return tuple(removed), tuple(left)


@contextmanager
def new_file(cache: Path, kind: Kind) -> Iterator[Path]:
    """Yield a file to write, which the block renames when it is whole; then make room.

    It is removed where the block does not rename it. Raises ``OSError``.
    """
    folder = cache / kind
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{_NEW}{secrets.token_hex(8)}"
    # For its user alone: a guest's files may be what only its root may read.
    new.touch(mode=0o600, exist_ok=False)
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)
    downloads.prune(folder, limit=LIMITS[kind])


def sha256(path: Path) -> str:
    """Return the hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
