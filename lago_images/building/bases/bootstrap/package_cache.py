"""Keep the files of Debian's packages, each under the digest that the archive signs."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from lago_images.building import downloads
from lago_images.building.bases.bootstrap.apt import Apt, Resolved
from lago_images.building.caches import Kind, new_file, sha256


def provide(apt: Apt, packages: Iterable[Resolved], into: Path, cache: Path) -> None:
    """Put the files of packages into a folder: from the cache, else from their archive.

    Args:
        apt: Downloads what is not kept.
        packages: As apt resolved them.
        into: The folder; each file has the name that apt gives it.
        cache: Of all kinds.

    Raises:
        CommandError: A package could not be downloaded.
        OSError: The cache cannot be written.
    """
    missing = [each for each in packages if not _take(each, into, cache)]
    apt.download(missing, into)
    for each in missing:
        if sha256(into / each.file) == each.sha256:
            with new_file(cache, Kind.PACKAGES) as new:
                shutil.copyfile(into / each.file, new)
                new.replace(_kept(each, cache))


def _take(package: Resolved, into: Path, cache: Path) -> bool:
    """Copy a package's file out of the cache; returns false where it is not there, undamaged."""
    kept, copy = _kept(package, cache), into / package.file
    try:
        shutil.copyfile(kept, copy)
    except FileNotFoundError:
        return False
    # What was copied is compared: what is kept may change or go meanwhile.
    if sha256(copy) == package.sha256:
        downloads.touch(kept)
        return True
    kept.unlink(missing_ok=True)
    copy.unlink()
    return False


def _kept(package: Resolved, cache: Path) -> Path:
    return cache / Kind.PACKAGES / f"sha256-{package.sha256}.deb"
