"""Keep bootstrapped folders, each under the digest of everything that it was made of.

A folder is kept as a tar archive, whose own digest is in its name, too: one that is damaged is not
unpacked, and made anew.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lago_images.building import downloads
from lago_images.building.caches import Kind, new_file, sha256
from lago_images.host import space
from lago_images.host.process import Runner

# Owners by number, and all that a file has besides; in a user namespace as it is seen there.
_FORM = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls")
# Equal folders then are equal archives: one file, whoever of two runs keeps it last.
_NO_TIMES = "--pax-option=delete=atime,delete=ctime"
# Bytes that storing a folder leaves free for others.
_SPARE = 2 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """The folders that are kept in a cache.

    Attributes:
        cache: Of all kinds.
        runner: Starts tar.
        prefix: What gives a program the rights over the folders' files.
    """

    cache: Path
    runner: Runner
    prefix: tuple[str, ...]

    def take(self, parts: Mapping[str, Any], folder: Path) -> bool:
        """Unpack what was made of these parts into a folder; returns false where that is not kept.

        Raises ``CommandError`` when it cannot be unpacked.
        """
        for kept in sorted(self._folder.glob(f"{_key(parts)}-*.tar")):
            if sha256(kept) != kept.stem.rpartition("-")[2]:
                kept.unlink(missing_ok=True)
                continue
            downloads.touch(kept)
            argv = [*self.prefix, "tar", "--extract", *_FORM, f"--file={kept}", f"-C{folder}"]
            self.runner.run(argv, doing="unpacking the bootstrapped folder")
            return True
        return False

    def keep(self, parts: Mapping[str, Any], folder: Path, names: tuple[str, ...]) -> bool:
        """Keep files and folders, by name in a folder, as what was made of these parts.

        Returns false where there is too little disk space. Raises ``CommandError`` and ``OSError``.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if space.free(self._folder) < _SPARE:
            return False
        with new_file(self.cache, Kind.TREES) as new:
            # In the order of the folder, in which mke2fs of the copy will meet the names.
            argv = ["tar", "--create", _NO_TIMES, *_FORM, f"--file={new}", f"-C{folder}"]
            self.runner.run([*self.prefix, *argv, *names], doing="keeping the bootstrapped folder")
            new.replace(self._folder / f"{_key(parts)}-{sha256(new)}.tar")
        return True

    @property
    def _folder(self) -> Path:
        return self.cache / Kind.TREES


def _key(parts: Mapping[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
