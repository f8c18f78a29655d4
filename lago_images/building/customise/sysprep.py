"""A spec's commands, the clean-up and the trim of a disk: one launch of the appliance."""

import os
import platform
import re
import secrets
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lago_images.building import packages as contents
from lago_images.building.bases.prepared import Package, Prepared
from lago_images.building.customise.progress_lines import running
from lago_images.building.model import Context
from lago_images.building.reservations import watched
from lago_images.errors import BuildError, CommandError, Problem, SpecError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.specs.host_files import (
    OPEN_PLAIN,
    ForbiddenPathError,
    HostFolder,
    HostPath,
    host_paths,
    normal,
    why,
)
from lago_images.specs.model import BaseKind, Operation, Spec

_FINISH = Path(__file__).with_name("finish.sh")
_SSH_KEYS_UNIT = Path(__file__).with_name("ssh-host-keys.service")
_ANSWER_SIZE = 8 * 2**20
# dnf and the relabelling of large guests are killed for want of memory in libguestfs's default.
_MEMORY_MIB = 2048
_TIMEOUT = 4 * 3600.0
_STEP = re.compile(r"\[ *\d+\.\d\] (.*)")
_CLEANER = 'Performing "'
# Guests of these pairs of host and guest can run commands (mltools tools_utils.ml).
_ALSO = {("x86_64", "i686")}
# The modes that git knows; it keeps a file's by whether its owner may execute it.
_PLAIN, _PROGRAM = 0o644, 0o755


def appliance_environment(accel: Acceleration) -> dict[str, str]:
    """What libguestfs's programs need besides the allow-listed variables."""
    chosen = {
        "LIBGUESTFS_BACKEND": "direct",
        "LIBGUESTFS_MEMSIZE": str(_MEMORY_MIB),
        # Else the appliance itself is made anew in every run's own TMPDIR.
        "LIBGUESTFS_CACHEDIR": "/var/tmp",  # noqa: S108 -- libguestfs makes a folder of ours there
        # copy-in packs with the host's tar (libguestfs, lib/copy-in-out.c): else what it copies
        # belongs to whoever builds.
        "TAR_OPTIONS": "--owner=0 --group=0",
    }
    if not accel.kvm:
        chosen["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    return chosen


def customise(
    spec: Spec,
    prepared: Prepared,
    workdir: Path,
    context: Context,
    runner: Runner,
    *,
    accel: Acceleration,
) -> Prepared:
    """Apply a spec's operations to its prepared disk, clean it, and give back unused blocks.

    The disk is changed in place. Where there is nothing to do, the appliance is not started.

    Args:
        spec: Its operations are applied in order.
        prepared: The disk.
        workdir: For the copies of the host files that the operations read.
        context: Its root and network setting.
        runner: Starts virt-sysprep.
        accel: What libguestfs' appliance runs on.

    Returns:
        The same disk, with the packages that are installed now.

    Raises:
        SpecError: A host file is outside the repository, or gone.
        BuildError: A command failed in the guest; names the spec's line where it can be told.
        HostError: The disk's folder has no room left.
    """
    if not spec.operations and spec.base.kind is BaseKind.BOOTSTRAP:
        return prepared
    inputs = workdir / "inputs"
    copy_inputs(spec, context.root, inputs)
    answer = workdir / "answer.raw"
    mark = f"lago-images {secrets.token_hex(16)}"
    _blank(answer, mark)
    finish = workdir / "finish.sh"
    finish.write_text(_script(mark), encoding="utf-8")
    native = _runs_here(spec.arch)
    context.console.info(f"{spec.name}: customising ({len(spec.operations)} commands)")
    try:
        argv = _command(spec, prepared, answer, finish if native else None, context)
        with watched(runner, prepared.disk.parent, f"customising {spec.name}") as safe:
            _run(spec, argv, inputs, context, safe, accel)
        packages = _packages(answer) if native else None
    finally:
        shutil.rmtree(inputs, ignore_errors=True)
        for path in (answer, finish):
            path.unlink(missing_ok=True)
    return replace(prepared, packages=packages)


def copy_inputs(spec: Spec, root: Path, to: Path) -> None:
    """Copy the host files that operations read, to the same relative paths under ``to``.

    What is checked is what is copied, and what is copied is what the appliance gets, whatever
    happens to the repository meanwhile. It is what the fingerprint tells of: modes as git has
    them (0644, 0755; folders 0755), nothing that is named ``.git``, and links inside a copied
    folder as links.

    Raises:
        SpecError: With every path that leads outside ``root`` or cannot be read.
    """
    to.mkdir()
    folder, to = HostFolder(root), to.resolve()
    problems = []
    for host in sorted(_operation_paths(spec), key=_outermost_first):
        try:
            _copy_input(host, folder, to)
        except (OSError, ForbiddenPathError) as error:
            reason = why(error) if isinstance(error, OSError) else f"it {error}"
            what = f"host path {host.path!a} cannot be used: {reason}"
            problems.append(Problem(spec.path, host.line, what))
    if problems:
        raise SpecError(problems)


def _operation_paths(spec: Spec) -> Iterable[HostPath]:
    lines = {operation.line for operation in spec.operations}
    return (host for host in host_paths(spec) if host.line in lines)


def _outermost_first(host: HostPath) -> tuple[bool, int]:
    """Folders before what other lines read in them, so that each is copied as it is."""
    return not host.tree, normal(host.path).count("/")


def _copy_input(host: HostPath, folder: HostFolder, to: Path) -> None:
    real = folder.resolve(host.path, tree=host.tree)
    target = _place(host, Path(real).relative_to(folder.root), to)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _closing(folder.open(real)) as source:
        if host.tree and stat.S_ISDIR(os.fstat(source).st_mode):
            _copy_tree(source, target)
        elif not target.exists():
            _copy_file(source, target)


def _place(host: HostPath, real: Path, to: Path) -> Path:
    """Where the copy belongs; ``real`` is the path without links, both relative to a root."""
    target = to / normal(host.path)
    place = target.resolve()
    # libguestfs packs what copy-in names with tar, which takes a link as a link.
    if place not in {target, to / real} or (host.tree and target.is_symlink()):
        raise ForbiddenPathError(
            f"is or goes through a link in a folder that another line copies; write {real}"
        )
    return place


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


def _blank(answer: Path, mark: str) -> None:
    with answer.open("wb") as file:
        file.write(mark.encode())
        file.truncate(_ANSWER_SIZE)


def ssh_keys_unit() -> str:
    """Return the systemd unit by which a guest makes its own ssh host keys."""
    return _SSH_KEYS_UNIT.read_text(encoding="utf-8")


def _script(mark: str) -> str:
    first, rest = _FINISH.read_text(encoding="utf-8").split("\n", 1)
    return f"{first}\nMARK='{mark}'\nSSH_KEYS_UNIT={shlex.quote(ssh_keys_unit())}\n{rest}"


def _command(
    spec: Spec, prepared: Prepared, answer: Path, finish: Path | None, context: Context
) -> list[str]:
    # fmt: off
    return [
        "virt-sysprep",
        "--format", prepared.format, "--add", str(prepared.disk.absolute()),
        "--format", "raw", "--add", str(answer.absolute()),
        "--network" if context.settings.network else "--no-network",
        "--operations", _operations(spec),
        "--no-logfile",
        *_options(spec.operations),
        *(("--run", str(finish.absolute())) if finish else ()),
    ]
    # fmt: on


def _operations(spec: Spec) -> str:
    """virt-sysprep's operations: its cleaners come before the spec's commands, finish.sh after.

    The cleaners are for disks that others made. On our own they would remove what the base's
    spec has put there on purpose, such as ssh keys and connection profiles.
    """
    ours = spec.base.kind in (BaseKind.LAYER, BaseKind.BOOTSTRAP)
    return "customize" if ours else "defaults,customize"


def _options(operations: Sequence[Operation]) -> list[str]:
    options = []
    for operation in operations:
        options.append(f"--{operation.name}")
        if operation.argument:
            options.append(operation.argument)
    return options


def _runs_here(arch: str) -> bool:
    host = platform.machine()
    return host == arch or (host, arch) in _ALSO


def _run(
    spec: Spec,
    argv: list[str],
    inputs: Path,
    context: Context,
    runner: Runner,
    accel: Acceleration,
) -> None:
    seen: list[str] = []

    def watch(line: str) -> None:
        if match := _STEP.match(line):
            seen.append(match[1])
            if not match[1].startswith(_CLEANER):
                context.console.output(f"{spec.name}: {match[1]}")
        if runner.echo:
            runner.echo(line)

    try:
        replace(runner, echo=watch).run(
            argv,
            env=appliance_environment(accel),
            cwd=inputs,
            timeout=_TIMEOUT,
            doing=f"customising {spec.name}",
        )
    except CommandError as error:
        raise _failure(spec, seen, error) from error


def _failure(spec: Spec, seen: list[str], error: CommandError) -> BuildError:
    operation = running(spec.operations, seen)
    why = next(
        (
            line.split(": error: ", 1)[1]
            for line in error.tail
            if line.startswith("virt-sysprep: error: ")
        ),
        error.message,
    )
    if operation is None and "finish.sh" in why:
        return BuildError(
            f"customising {spec.name} failed after the spec's commands, while the guest was "
            f"cleaned up and its packages were listed: {why}",
            hint="the last lines of the log have the guest's own message",
        )
    if operation is None:
        return BuildError(f"customising {spec.name} failed: {why}")
    first = operation.argument.splitlines()[0] if operation.argument else ""
    return BuildError(
        f"{spec.path}:{operation.line}: {operation.name} {first}".rstrip() + f" failed: {why}"
    )


def _packages(answer: Path) -> tuple[Package, ...] | None:
    """What finish.sh answered; None when the guest has no package manager that it knows."""
    text = answer.read_bytes().split(b"\0", 1)[0].decode("utf-8", errors="replace")
    lines = text.splitlines()
    try:
        complete = lines[0] == "packages" and "end" in lines
    except IndexError:
        complete = False
    return contents.parse("\n".join(lines[1 : lines.index("end")])) if complete else None
