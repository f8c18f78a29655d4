"""Reading a folder of specs.

Every regular file directly in the folder is a spec, but for hidden ones, those that editors and
git leave behind (``*~ *.bak *.orig *.rej *.swp #*#``) and ``README*``. Sub-folders hold the files
that specs upload. A link is read if it leads to a file inside the repository.
"""

import errno
import os
import re
import stat
from fnmatch import translate
from pathlib import Path
from typing import NamedTuple

from lago_images.errors import Problem, SpecError
from lago_images.spec.check import check
from lago_images.spec.files import stray, why
from lago_images.spec.model import Spec
from lago_images.spec.parse import parse

_NO_SPEC_NAMES = (".*", "*~", "*.bak", "*.orig", "*.rej", "*.swp", "#*#", "README*")
_NO_SPEC = re.compile("|".join(map(translate, _NO_SPEC_NAMES)))
_LARGEST = 1 << 20
# A link is not followed unseen, and a pipe does not wait for who writes to it.
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Found(NamedTuple):
    """What a folder of specs holds: specs by name, all problems, and how many files were read."""

    specs: dict[str, Spec]
    problems: list[Problem]
    files: int


def read(root: Path, folder: str) -> dict[str, Spec]:
    """The specs of a folder, by name.

    Args:
        root: The root of the repository.
        folder: The folder of the specs, relative to the root.

    Raises:
        SpecError: With every problem of every spec.
    """
    found = inspect(root, folder)
    if found.problems:
        raise SpecError(found.problems)
    return found.specs


def inspect(root: Path, folder: str) -> Found:
    """The specs of a folder with every problem; raises nothing for what users wrote."""
    root = root.resolve()
    top = str(root)
    specs: dict[str, Spec] = {}
    broken: set[str] = set()
    problems: list[Problem] = []
    try:
        what = stray(os.path.realpath(root / folder), top)
        names = [] if what else spec_names(root / folder)
    except OSError as error:
        names = []
        what = (
            f"cannot be read: {error.strerror} (run this in a specs "
            "repository, name one with -C, or make one: lago-images init)"
        )
    if what:
        return Found({}, [Problem(folder, None, f"the folder of the specs {what}")], 0)
    for name in names:
        path = name if folder in {"", "."} else f"{folder.rstrip('/')}/{name}"
        text, problem = _text(top, path)
        if problem:
            problems.append(problem)
        spec = None
        if text is not None:
            spec, wrong = parse(text, name=name, path=path)
            problems += wrong
        if spec is None:
            broken.add(name)
        else:
            specs[name] = spec
    problems += check(specs.values(), root, broken=broken)
    return Found(specs, problems, len(names))


def is_spec_name(name: str) -> bool:
    """Whether a file of this name in the folder is taken for a spec."""
    return _NO_SPEC.match(name) is None


def spec_names(folder: Path) -> list[str]:
    """The names of the specs in a folder, sorted; raises ``OSError`` as the system does."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.is_dir(follow_symlinks=False) and is_spec_name(entry.name)
        )


def _text(root: str, path: str) -> tuple[str | None, Problem | None]:
    """A spec's text, None when there is none to parse, and what is wrong with it."""
    try:
        data, what = _bytes(root, path)
    except (OSError, RuntimeError) as error:
        return None, Problem(path, None, f"cannot be read: {why(error)}")
    if what:
        return None, Problem(path, None, what)
    try:
        return data.decode(), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8: byte 0x{data[error.start]:02x}"
        return data.decode(errors="replace"), Problem(path, line, what)


def _bytes(root: str, path: str) -> tuple[bytes, str]:
    """A spec's content, or why there is none."""
    try:
        descriptor = os.open(f"{root}/{path}", _PLAIN)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        real = Path(root, path).resolve(strict=True)
        if what := stray(str(real), root):
            return b"", f"the link {what}"
        descriptor = os.open(real, _PLAIN)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b"", "not a regular file"
        if status.st_size > _LARGEST:
            return b"", f"the file has {status.st_size} bytes, more than {_LARGEST}"
        # No larger a buffer than it takes: for 10,000 specs that saves a fifth of a second.
        return os.read(descriptor, status.st_size), ""
    finally:
        os.close(descriptor)
