"""Copy the host files that a spec's commands read, for whatever carries these out."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lago_images.errors import Problem, SpecError
from lago_images.specs.host_files import HostPath, host_paths
from lago_images.specs.host_folder import OPEN_PLAIN, ForbiddenPathError, HostFolder, normal, why
from lago_images.specs.model import Spec

# The modes that git knows; it keeps a file's by whether its owner may execute it.
_PLAIN, _PROGRAM = 0o644, 0o755


def copy_inputs(spec: Spec, root: Path, to: Path) -> None:
    """Copy the host files that operations read, to the same relative paths under ``to``.

    What is checked is what is copied, and what is copied is what the appliance gets, whatever
    happens to the repository meanwhile. It is what the fingerprint covers: modes as git has
    them (0644, 0755; folders 0755), nothing that is named ``.git``, and links inside a copied
    folder as links.

    Raises:
        SpecError: With every path that leads outside ``root`` or cannot be read.
    """
    to.mkdir()
    folder, to = HostFolder(root), to.resolve()
    problems = []
    lines = {operation.line for operation in spec.operations}
    paths = [host for host in host_paths(spec) if host.line in lines]
    # Folders before what other lines read in them, so that each is copied as it is.
    for host in sorted(paths, key=lambda host: (not host.tree, normal(host.path).count("/"))):
        try:
            _copy_input(host, folder, to)
        except (OSError, ForbiddenPathError) as error:
            reason = why(error) if isinstance(error, OSError) else f"it {error}"
            message = f"host path {host.path!a} cannot be used: {reason}"
            problems.append(Problem(spec.path, host.line, message))
    if problems:
        raise SpecError(problems)


def _copy_input(host: HostPath, folder: HostFolder, to: Path) -> None:
    real = folder.resolve(host.path, tree=host.tree)
    target = _copy_target(host, Path(real).relative_to(folder.root), to)
    for parent in reversed(target.relative_to(to).parents):
        # Whatever the umask says: an engine reads them as another user.
        (to / parent).mkdir(exist_ok=True)
        (to / parent).chmod(_PROGRAM)
    with _closing(folder.open(real)) as source:
        if host.tree and stat.S_ISDIR(os.fstat(source).st_mode):
            _copy_tree(source, target)
        elif not target.exists():
            _copy_file(source, target)


def _copy_target(host: HostPath, real: Path, to: Path) -> Path:
    """Return the copy's path; ``real`` is the host path without links, relative to the root."""
    target = to / normal(host.path)
    real_target = target.resolve()
    # libguestfs packs what copy-in names with tar, which takes a link as a link.
    if real_target not in {target, to / real} or (host.tree and target.is_symlink()):
        raise ForbiddenPathError(
            f"is or goes through a link in a folder that another line copies; write {real}"
        )
    return real_target


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy_tree(source: int, target: Path) -> None:
    target.mkdir(exist_ok=True)
    target.chmod(_PROGRAM)
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.name != ".git":
                _copy_entry(source, entry, target / entry.name)


def _copy_entry(source: int, entry: os.DirEntry[str], copy: Path) -> None:
    if entry.is_symlink():
        if not copy.exists() and not copy.is_symlink():
            copy.symlink_to(os.readlink(entry.name, dir_fd=source))
        return
    # If it is a link now, somebody swapped it, and it is not opened.
    with _closing(os.open(entry.name, OPEN_PLAIN, dir_fd=source)) as below:
        if stat.S_ISDIR(os.fstat(below).st_mode):
            _copy_tree(below, copy)
        elif not copy.exists() and not copy.is_symlink():
            _copy_file(below, copy)


def _copy_file(source: int, target: Path) -> None:
    mode = os.fstat(source).st_mode
    if not stat.S_ISREG(mode):
        raise ForbiddenPathError("is not a regular file")
    with os.fdopen(source, "rb", closefd=False) as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy)
    target.chmod(_PROGRAM if mode & stat.S_IXUSR else _PLAIN)
