"""Host paths of specs: inside the repository, there, and of the right kind."""

import re
import stat
from pathlib import Path

from lago_images.errors import Problem
from lago_images.spec.inputs import HostPath, host_paths, normal
from lago_images.spec.model import Spec
from lago_images.spec.names import shown

_SUBMODULE = re.compile(r"^\s*path\s*=\s*(.*\S)\s*$", re.MULTILINE)


def check_files(spec: Spec, root: Path) -> list[Problem]:
    """What is wrong with the host paths of a spec; ``root`` is resolved already."""
    return [
        Problem(spec.path, host.line, what)
        for host in host_paths(spec)
        if (what := _written(host.path) or _found(host, root))
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


def _found(host: HostPath, root: Path) -> str | None:
    """What is wrong with what a path leads to."""
    try:
        real = (root / host.path).resolve(strict=True)
        wrong = _kind(real, root, tree=host.tree)
    except FileNotFoundError:
        if in_submodule(host.path, root):
            return None
        wrong = "is not there (paths start at the root of the repository)"
    except (OSError, RuntimeError) as error:
        wrong = f"cannot be read: {why(error)}"
    return wrong and f"host path {shown(host.path)} {wrong}"


def _kind(real: Path, root: Path, *, tree: bool) -> str | None:
    mode = real.stat().st_mode
    if not inside(real, root):
        return "leads out of the repository"
    if real == root or ".git" in real.relative_to(root).parts:
        return "takes git's own files along, which may hold credentials"
    if not (stat.S_ISREG(mode) or (tree and stat.S_ISDIR(mode))):
        return f"is not a {'file or folder' if tree else 'regular file'}"
    return None


def inside(real: Path, root: Path) -> bool:
    """Whether a path lies in ``root``, both being resolved."""
    return real.is_relative_to(root)


def in_submodule(path: str, root: Path) -> bool:
    """Whether a path is in a submodule, which a clone need not have checked out to be planned."""
    try:
        text = (root / ".gitmodules").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return any(f"{normal(path)}/".startswith(f"{top}/") for top in _SUBMODULE.findall(text))


def why(error: OSError | RuntimeError) -> str:
    """What the system said, without a path of this machine."""
    # Python 3.11 and 3.12 raise RuntimeError for a loop of links, and the path is its message.
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or "a loop of links"
