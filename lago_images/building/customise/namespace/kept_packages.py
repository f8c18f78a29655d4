"""Keep the packages that a guest's apt has fetched, for the next build of the same image.

What a guest hands on is whatever its commands want: names, contents and times. So all that is told
of a file is what was read of it, and it is given only to the image that it came from: there it
can at most be fetched in vain (``guest_archives`` says why it is never installed).
"""

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from itertools import accumulate, islice, takewhile
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from lago_images.building import downloads
from lago_images.building.caches import Kind, new_file
from lago_images.building.customise.namespace.guest_archives import MOST_BYTES, MOST_FILES
from lago_images.building.model import Context
from lago_images.repository.records.parsing import matching
from lago_images.settings import Settings
from lago_images.specs.host_folder import OPEN_PLAIN
from lago_images.specs.model import Spec

# As apt names them: NAME_VERSION_ARCHITECTURE.deb, the colon of an epoch as %3a.
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{0,99}_[A-Za-z0-9.+~%-]{1,120}_[a-z0-9-]{1,20}\.deb")
_LARGEST_LIST = 2**20
_PIECE = 2**20
# What utime(2) and HTTP's dates both know.
_LATEST = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A file that is kept: its name in apt's folder, and its time, in seconds since the epoch."""

    file: Annotated[str, matching(_NAME.pattern, "a package's file")]
    size: Annotated[int, Meta(ge=1, le=MOST_BYTES)]
    time: Annotated[int, Meta(ge=0, lt=_LATEST)]
    sha256: Annotated[str, matching("[0-9a-f]{64}", "a SHA-256")]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPackages:
    """The packages that the last build of an image fetched: a list of them, and their files.

    The list is believed no more than the files: whoever restores a cache may have written it.

    Attributes:
        cache: Of all kinds.
        listing: The list's file.
    """

    cache: Path
    listing: Path

    @classmethod
    def of(cls, spec: Spec, context: Context) -> "KeptPackages":
        """Return those of a spec's image, in the repository of the settings."""
        digest = hashlib.sha256(os.fsencode(_repository(context.settings))).hexdigest()
        name = f"{spec.name}.{spec.arch}.{digest[:16]}.json"
        return cls(cache=context.cache, listing=context.cache / Kind.GUEST_PACKAGES / name)

    def size(self) -> int:
        """Return the bytes that the list tells of."""
        return sum(each.size for each in self._read())

    def give(self, folder: Path) -> int:
        """Copy what is kept into a folder, as far as it is there and undamaged; returns its bytes.

        Raises:
            OSError: The folder cannot be written; it is empty again.
        """
        given = 0
        try:
            for each in self._read():
                if self._copy(each, folder / each.file):
                    given += each.size
        except OSError:
            for path in folder.iterdir():
                path.unlink()
            raise
        downloads.touch(self.listing)
        return given

    def keep(self, folder: Path) -> int:
        """Keep what a guest has left in a folder, in place of what was kept.

        Returns:
            How many packages are not kept: no regular files, too large, or not to be read.

        Raises:
            OSError: The cache cannot be written.
        """
        names = _names(folder)
        kept = tuple(self._taken(folder, names))
        if kept:
            with new_file(self.cache, Kind.GUEST_PACKAGES) as new:
                new.write_bytes(msgspec.json.encode(kept))
                new.replace(self.listing)
        else:
            self.forget()
        return len(names) - len(kept)

    def forget(self) -> None:
        """Keep the list no longer: the next build is given nothing."""
        self.listing.unlink(missing_ok=True)

    def _read(self) -> tuple[Kept, ...]:
        file = _open(self.listing, _LARGEST_LIST)
        if file is None:
            return ()
        try:
            with file:
                kept = msgspec.json.decode(file.read(_LARGEST_LIST), type=tuple[Kept, ...])
        except (OSError, msgspec.ValidationError, msgspec.DecodeError):
            return ()
        totals = accumulate(each.size for each in kept[:MOST_FILES])
        fitting = sum(1 for _ in takewhile(lambda total: total <= MOST_BYTES, totals))
        return kept[:fitting]

    def _copy(self, each: Kept, copy: Path) -> bool:
        """Copy a kept file; returns false where it is not what it was, or not there."""
        kept, digest, left = self._file(each.sha256), hashlib.sha256(), each.size
        if source := _open(kept, each.size):
            with source, copy.open("xb") as target:
                while piece := source.read(min(_PIECE, left)):
                    digest.update(piece)
                    target.write(piece)
                    left -= len(piece)
        if left or digest.hexdigest() != each.sha256:
            # As long as it is there it is not stored anew.
            with suppress(OSError):
                kept.unlink()
            if source:
                copy.unlink()
            return False
        os.utime(copy, (each.time, each.time))
        copy.chmod(0o644)
        downloads.touch(kept)
        return True

    def _taken(self, folder: Path, names: Sequence[str]) -> Iterator[Kept]:
        """Keep a guest's files, and yield what was found of each."""
        left = MOST_BYTES
        for name in names:
            if file := _open(folder / name, left):
                with file:
                    status = os.fstat(file.fileno())
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    self._store(file, digest)
                left -= status.st_size
                time = min(max(int(status.st_mtime), 0), _LATEST - 1)
                yield Kept(file=name, size=status.st_size, time=time, sha256=digest)

    def _store(self, file: BufferedReader, digest: str) -> None:
        kept = self._file(digest)
        if kept.exists():
            downloads.touch(kept)
            return
        with new_file(self.cache, Kind.GUEST_PACKAGES) as new:
            file.seek(0)
            with new.open("wb") as target:
                shutil.copyfileobj(file, target)
            new.replace(kept)

    def _file(self, digest: str) -> Path:
        return self.cache / Kind.GUEST_PACKAGES / f"sha256-{digest}.deb"


def _repository(settings: Settings) -> str:
    """Return what tells a repository from others: its URL, or its folder's absolute path.

    Not the store's: that of a build which is not published is a folder of that run.
    """
    url = settings.repository
    return url if "://" in url else str((settings.folder / url).resolve())


def _names(folder: Path) -> list[str]:
    """Return the names of packages in a guest's folder, which may have any number of any."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, MOST_FILES)]
    return sorted(filter(_NAME.fullmatch, names))


def _open(path: Path, largest: int) -> BufferedReader | None:
    """Open a file; None where it is a link, a pipe, empty, too large, or not to be read."""
    try:
        descriptor = os.open(path, OPEN_PLAIN)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= largest:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None
