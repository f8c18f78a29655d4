"""Host paths of specs: inside the repository, there, and of the right kind."""

import errno
import os
import re
import stat
from functools import cached_property
from pathlib import Path

from lago_images.errors import Problem
from lago_images.spec.inputs import HostPath, host_paths, normal
from lago_images.spec.model import Spec
from lago_images.spec.names import shown

_SUBMODULE = re.compile(r"^\s*path\s*=\s*(.*\S)\s*$", re.MULTILINE)


class Folders:
    """Resolves paths below a folder, each folder on the way once."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self._real: dict[str, str] = {}

    def find(self, path: str) -> tuple[str, int]:
        """Where a path below the root leads to, without symbolic links, and what mode that has.

        Raises ``OSError`` as the system does.
        """
        folder, _, name = path.rpartition("/")
        if folder not in self._real:
            self._real[folder] = os.path.realpath(f"{self.root}/{folder}", strict=True)
        real = f"{self._real[folder]}/{name}"
        mode = os.lstat(real).st_mode
        if name in {"", "."} or stat.S_ISLNK(mode):
            real = os.path.realpath(real, strict=True)
            mode = os.lstat(real).st_mode
        return real, mode

    @cached_property
    def submodules(self) -> tuple[str, ...]:
        """The folders of submodules, which a clone need not have checked out to be planned."""
        try:
            text = Path(self.root, ".gitmodules").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ()
        return tuple(_SUBMODULE.findall(text))


def check_files(spec: Spec, folders: Folders) -> list[Problem]:
    """What is wrong with the host paths of a spec."""
    return [
        Problem(spec.path, host.line, what)
        for host in host_paths(spec)
        if (what := _written(host.path) or _found(host, folders))
    ]


def _written(path: str) -> str | None:
    """What is wrong with a path as it is written."""
    parts = path.split("/")
    wrong = None
    if path.startswith(("/", "~")):
        wrong = "must be relative to the root of the repository"
    elif ".." in parts:
        wrong = "goes up with .., which could leave the repository"
    elif ".git" in parts:
        wrong = "reads git's own files, which may hold credentials"
    elif any(part.startswith("-") for part in parts):
        # libguestfs hands the last part to tar, which takes a leading dash for an option.
        wrong = "has a part that starts with a dash, like an option"
    elif not path or "\n" in path or "\t" in path:
        wrong = "is empty or has a newline or tab in it"
    return wrong and f"host path {shown(path)} {wrong}"


def _found(host: HostPath, folders: Folders) -> str | None:
    """What is wrong with what a path leads to."""
    try:
        real, mode = folders.find(host.path)
        wrong = _kind(real, mode, folders.root, tree=host.tree)
    except FileNotFoundError:
        if _in_submodule(host.path, folders):
            return None
        wrong = "is not there (paths start at the root of the repository)"
    except OSError as error:
        wrong = f"cannot be read: {why(error)}"
    return wrong and f"host path {shown(host.path)} {wrong}"


def _kind(real: str, mode: int, root: str, *, tree: bool) -> str | None:
    if not inside(real, root):
        return "leads out of the repository"
    if real == root or ".git" in real[len(root) :].split("/"):
        return "takes git's own files along, which may hold credentials"
    if not (stat.S_ISREG(mode) or (tree and stat.S_ISDIR(mode))):
        return f"is not a {'file or folder' if tree else 'regular file'}"
    return None


def inside(real: str, root: str) -> bool:
    """Whether a path is ``root`` or lies in it, both being resolved."""
    return real == root or real.startswith(f"{root.rstrip('/')}/")


def stray(real: str, root: str) -> str | None:
    """Why a path, resolved as ``root`` is, is not to be read and shown; None when it may be."""
    if not inside(real, root):
        return "leads out of the repository"
    if ".git" in real[len(root) :].split("/"):
        return "leads to git's own files, which may hold credentials"
    return None


def _in_submodule(path: str, folders: Folders) -> bool:
    return any(f"{normal(path)}/".startswith(f"{top}/") for top in folders.submodules)


def why(error: OSError | RuntimeError) -> str:
    """What the system said, without a path of this machine."""
    # Python 3.11 and 3.12 raise RuntimeError for a loop of links, and the path is its message.
    if isinstance(error, RuntimeError) or error.errno == errno.ELOOP:
        return "a loop of links"
    return error.strerror or type(error).__name__
