"""Host paths of specs: inside the repository, there, and of the right kind."""

import stat
from pathlib import Path

from lago_images.errors import Problem
from lago_images.spec.inputs import HostPath, host_paths
from lago_images.spec.model import Spec
from lago_images.spec.names import shown


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
    path = shown(host.path)
    try:
        real = (root / host.path).resolve(strict=True)
        mode = real.stat().st_mode
    except FileNotFoundError:
        return f"host path {path} is not there (paths start at the root of the repository)"
    except (OSError, RuntimeError) as error:
        return f"host path {path} cannot be read: {getattr(error, 'strerror', None) or error}"
    if not inside(real, root):
        return f"host path {path} leads out of the repository"
    if real == root or ".git" in real.relative_to(root).parts:
        return f"host path {path} takes git's own files along, which may hold credentials"
    if not (stat.S_ISREG(mode) or (host.tree and stat.S_ISDIR(mode))):
        return f"host path {path} is not a {'file or folder' if host.tree else 'regular file'}"
    return None


def inside(real: Path, root: Path) -> bool:
    """Whether a path lies in ``root``, both being resolved."""
    return real.is_relative_to(root)
