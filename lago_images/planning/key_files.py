"""Find files of signing keys that others can get: from the specs repository, or on this machine."""

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lago_images.planning.git import Git
from lago_images.settings import Settings

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """Say how others can get a key, and what to do.

    Attributes:
        what: With the file.
        do: What to do about it.
        is_public: Whether the key is in git already, so that it can be trusted no more.
    """

    what: str
    do: str
    is_public: bool = False


def exposures(settings: Settings, find_git: Callable[[], Git | None]) -> Iterator[Exposure]:
    """Yield what exposes the files of ``signing-key``; git is asked only where there are some."""
    for path in filter(Path.is_file, settings.key_files):
        real = path.resolve()
        git = find_git()
        if git is not None and _is_in_work_tree(real, git.top.resolve()):
            yield from _in_work_tree(path, real, git)
        if mode := real.stat().st_mode & _OTHERS:
            yield Exposure(
                what=f"the signing key {path} can be read by others (mode {mode:03o} of theirs)",
                do=f"chmod 600 {path}",
            )


def _is_in_work_tree(path: Path, top: Path) -> bool:
    """Return whether git sees a file: neither in its own folder, nor in another repository's."""
    if not path.is_relative_to(top) or ".git" in path.relative_to(top).parts:
        return False
    between = path.parents[: len(path.relative_to(top).parts) - 1]
    return not any((folder / ".git").exists() for folder in between)


def _in_work_tree(path: Path, real: Path, git: Git) -> Iterator[Exposure]:
    otherwise = "or say env:VARIABLE in signing-key"
    if git.is_tracked(real):
        yield Exposure(
            what=f"the signing key {path} is in git: everybody with a clone can sign with it",
            do="make a new key, since it stays in the history, and change to it as docs/signing.md "
            f"says; keep that outside, {otherwise}",
            is_public=True,
        )
    elif not git.is_ignored(real):
        yield Exposure(
            what=f"the signing key {path} is in the specs repository: git add takes it along",
            do=f"move it out of there, {otherwise}",
        )
