"""Git LFS: what a clone that did not get a file's content has in its place, a pointer."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lago_images.errors import Problem, SpecError
from lago_images.spec.files import inside
from lago_images.spec.inputs import HostPath, host_paths, normal
from lago_images.spec.model import Spec

# How a pointer begins, and what it stays below (git-lfs, docs/spec.md).
_FIRST = b"version https://git-lfs.github.com/spec/v1"
_BELOW = 1024


def refuse_pointers(spec: Spec, root: Path) -> None:
    """Refuse host files whose content git did not check out.

    Git itself takes a pointer for the file, so a plan does not know them apart: the build must.
    What cannot be read, or is outside ``root``, is left to who reads it.

    Raises:
        SpecError: With every host path that is, or has in it, a pointer.
    """
    top = os.path.realpath(root)
    problems = []
    for host in host_paths(spec):
        found = sorted(_pointers(host, top))
        if found:
            what = f"host path {host.path!a} {_told(found, normal(host.path))}"
            problems.append(Problem(spec.path, host.line, what))
    if problems:
        raise SpecError(problems, hint="git lfs pull; in CI, check out with lfs")


def _pointers(host: HostPath, top: str) -> Iterator[str]:
    """The pointers among the files that are read, each by its path below the host path."""
    real = os.path.realpath(f"{top}/{host.path}")
    if not inside(real, top):
        return
    if _is_pointer(Path(real)):
        yield "."
    for folder, _, names in os.walk(real) if host.tree else ():
        for path in (Path(folder, name) for name in names):
            if _is_pointer(path):
                yield path.relative_to(real).as_posix()


def _is_pointer(path: Path) -> bool:
    with suppress(OSError):
        facts = path.lstat()
        if stat.S_ISREG(facts.st_mode) and len(_FIRST) <= facts.st_size < _BELOW:
            with path.open("rb") as file:
                return file.read(len(_FIRST)) == _FIRST
    return False


def _told(found: list[str], path: str) -> str:
    if found == ["."]:
        return "is only a Git LFS pointer here, not the file"
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"has only a Git LFS pointer for {f'{path}/{found[0]}'!a}{more}, not the file"
