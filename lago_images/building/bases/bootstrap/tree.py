"""Make the folder that a bootstrapped Debian is in, before it knows its disk: or take a kept one.

What is kept was made of the same packages, as apt resolves them today, by the same program: then
nothing is downloaded and nothing unpacked but the folder itself.
"""

import hashlib
import json
import os
import shlex
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lago_images.building import ext4
from lago_images.building.bases.bootstrap import package_cache, tree_cache
from lago_images.building.bases.bootstrap.apt import (
    Apt,
    Resolved,
    host_settings,
    read_archives,
)
from lago_images.building.bases.bootstrap.debian import Recipe
from lago_images.building.bases.bootstrap.guest_files import remove_traces
from lago_images.building.bases.bootstrap.tree_cache import Trees
from lago_images.building.boot_files import from_answer
from lago_images.building.customise import identities
from lago_images.building.model import Context
from lago_images.building.packages import parse_dpkg_status
from lago_images.building.scratch import refuse_nodev
from lago_images.errors import BuildError, CommandError, Error
from lago_images.host.process import Runner
from lago_images.host.tools import AS_ROOT
from lago_images.repository.records.boot_files import BootFiles
from lago_images.repository.records.changes import Package

_ROOTFS, _SECRETS = "rootfs", "secrets.json"
# What an apt of our own has read and downloaded already is what mmdebstrap's finds. The lock stays
# in the guest, with the mode that apt gives it where no umask takes of that.
_LISTS = 'd="$1/var/lib/apt/lists" && cp -R --reflink=auto -- {}/. "$d/" && chmod 0640 "$d/lock"'
_FILES = 'd="$1/var/cache/apt/archives"; mkdir -p "$d" && cp -R --reflink=auto -- {}/. "$d/"'
# Programs whose version may make another folder of the same packages.
_TOOLS = ("mmdebstrap", "apt-get", "dpkg", "tar")
# Package scripts ask for the host's name: it is the guest's there, not the builder's.
_NAMED = ("sh", "-c", 'hostname "$0" && exec "$@"')
_ANSWERS = 'printf "%s\\n" {} | chroot "$1" debconf-set-selections'
_NAMES = 'echo {name} >"$1/etc/hostname"; echo 127.0.1.1 {name} >"$1/etc/hosts"'
# The guest's own shell: what it finds there behind a link is the guest's. Its /dev is the host's.
_IN_GUEST = ("sh", "-c", 'mount --rbind /dev "$0/dev" && exec chroot "$0" /bin/sh')
# Only root may make devices, and no guest needs those: the kernel's own file system is mounted over
# them. A link in place of the folder is not followed.
_EMPTY_DEV = ("find", ".", "-xdev", "-path", "./dev/*", "-delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A folder to make.

    Attributes:
        todo: What is bootstrapped.
        hostname: The guest's, which package scripts see.
        folder: Empty, and nobody else's; what is made is ``rootfs`` in it.
        runner: Starts the tools.
    """

    todo: Recipe
    hostname: str
    folder: Path
    runner: Runner

    @property
    def rootfs(self) -> Path:
        return self.folder / _ROOTFS

    def packages(self) -> tuple[Package, ...]:
        """Return what dpkg has installed."""
        return parse_dpkg_status((self.rootfs / "var/lib/dpkg/status").read_text("utf-8"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What apt would install today, and the digest of a folder that is made of it."""

    apt: Apt
    resolved: tuple[Resolved, ...]
    parts: Mapping[str, Any]


def make_tree(tree: Tree, workdir: Path, context: Context) -> list[str]:
    """Make the folder of a bootstrap, or unpack it where it was made before of the same.

    Args:
        tree: What to make.
        workdir: For what else is needed meanwhile.
        context: Its cache, clock and console.

    Returns:
        Private keys and passwords that are left in it, each with its path in the guest.

    Raises:
        BuildError: The bootstrap failed.
        HostError: The work directory's file system is mounted nodev.
    """
    trees = Trees(cache=context.cache, runner=tree.runner, prefix=_root())
    with tempfile.TemporaryDirectory(prefix="apt-", dir=workdir) as name:
        scratch = Path(name)
        plan = _plan(tree, scratch / "apt", context)
        if plan and _is_taken(trees, plan, tree, context):
            return _secrets(tree)
        start_time = context.clock()
        provided = _provided(plan, scratch / "files", context) if plan else ()
        with _apt_settings(scratch, tree.runner) as settings:
            _debootstrap(tree, settings, provided)
    (tree.folder / _SECRETS).write_text(json.dumps(_remove_identities(tree)))
    # The host's settings of apt may have a password, which is not to be kept.
    remove_traces(tree.rootfs)
    settle_times(tree, start_time)
    if plan:
        _keep(trees, plan, tree, context)
    return _secrets(tree)


def list_boot_files(tree: Tree) -> BootFiles | None:
    """Return what the guest says that it starts with."""
    return from_answer(_in_guest("boot_files", tree, doing="listing the boot files"))


def settle_times(tree: Tree, start_time: float) -> int:
    """Give all that this bootstrap wrote the time of the newest file that a package brought.

    Returns:
        That time, in seconds since the epoch.
    """
    tree.runner.capture([*_root(), *_EMPTY_DEV], cwd=tree.rootfs, doing="emptying /dev")
    least = tree.todo.release.date
    return ext4.settle_times(tree.rootfs, start_time, least, tree.runner, prefix=_root())


def _plan(tree: Tree, folder: Path, context: Context) -> _Plan | None:
    """Resolve what would be installed; None where that fails: mmdebstrap then says why."""
    try:
        apt = read_archives(tree.todo, folder, tree.runner)
        resolved = apt.bootstrap(tree.todo)
        return _Plan(apt=apt, resolved=resolved, parts=_parts(tree, resolved))
    except (Error, OSError) as error:
        context.console.detail(f"no kept bootstrap is looked for: {error}")
        return None


def _parts(tree: Tree, resolved: Sequence[Resolved]) -> Mapping[str, Any]:
    """Return all that the folder is made of, as plain values that JSON can say."""
    todo, environ = tree.todo, tree.runner.environ
    return {
        "release": [todo.release.codename, todo.release.date],
        "arch": todo.arch,
        "wanted": todo.packages,
        "sources": todo.sources,
        "answers": todo.answers,
        "hostname": tree.hostname,
        "packages": [[each.name, each.version, each.arch, each.sha256] for each in resolved],
        "code": [
            version("lago-images"),
            *map(_digest, (__file__, tree_cache.__file__, ext4.__file__)),
        ],
        "identities": identities.finish_script(),
        "tools": [_version(name, tree.runner) for name in _TOOLS],
        "is_root": os.geteuid() == 0,
        "timezone": environ.get("TZ", ""),
    }


def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _version(program: str, runner: Runner) -> str:
    return runner.capture([program, "--version"]).decode(errors="replace")


def _is_taken(trees: Trees, plan: _Plan, tree: Tree, context: Context) -> bool:
    try:
        is_taken = trees.take(plan.parts, tree.folder)
    except (CommandError, OSError) as error:
        context.console.warn(f"a kept bootstrap cannot be unpacked, and is made anew: {error}")
        _clear(tree)
        return False
    if is_taken:
        count, title = len(plan.resolved), tree.todo.release.title
        message = f"took {title} with the same {count} packages from the cache"
        context.console.info(message)
        tree.runner.note(message)
    return is_taken


def _clear(tree: Tree) -> None:
    if tree.rootfs.exists():
        tree.runner.run([*_root(), "rm", "-rf", "--one-file-system", str(tree.rootfs)])


def _provided(plan: _Plan, files: Path, context: Context) -> tuple[str, ...]:
    """Return options by which mmdebstrap finds what was read and downloaded; none on failure."""
    files.mkdir()
    try:
        package_cache.provide(plan.apt, plan.resolved, files, context.cache)
    except (Error, OSError) as error:
        context.console.detail(f"packages are not taken from the cache: {error}")
        return ()
    taken = (f"--setup-hook={_FILES.format(shlex.quote(str(files)))}",)
    if not plan.parts["sources"]:
        # The mirrors are mmdebstrap's own, and it may write them otherwise.
        return taken
    lists = _LISTS.format(shlex.quote(str(plan.apt.lists)))
    return (*taken, f"--setup-hook={lists}", "--skip=update")


def _keep(trees: Trees, plan: _Plan, tree: Tree, context: Context) -> None:
    """Keep the folder, if it has what was resolved: else the digest would be of another."""
    wanted = {(each.name, each.version, each.arch) for each in plan.resolved}
    if wanted != {(each.name, each.version, each.arch) for each in tree.packages()}:
        context.console.detail("the bootstrap is not kept: other packages were resolved before it")
        return
    try:
        if not trees.keep(plan.parts, tree.folder, (_ROOTFS, _SECRETS)):
            context.console.detail("the bootstrap is not kept: too little disk space")
    except (CommandError, OSError) as error:
        context.console.warn(f"the bootstrap is not kept in {context.cache}: {error}")


def _secrets(tree: Tree) -> list[str]:
    found: list[str] = json.loads((tree.folder / _SECRETS).read_text())
    return found


def _root() -> tuple[str, ...]:
    """Return a command's prefix that gives it root's rights over the folder's files."""
    return () if os.geteuid() == 0 else AS_ROOT


def _debootstrap(tree: Tree, settings: Path, provided: Sequence[str]) -> None:
    todo = tree.todo
    # fmt: off
    argv = [
        *as_root(), "--uts", *_NAMED, tree.hostname, "mmdebstrap",
        "--mode=root",
        # Whether the architecture's programs run here was proven before.
        "--skip=check/qemu",
        "--variant=minbase",
        "--format=directory",
        f"--components={todo.release.distribution.components.replace(' ', ',')}",
        f"--architectures={todo.arch}",
        f"--include={','.join(todo.packages)}",
        f"--aptopt={settings}",
        *_keyring(todo),
        # One write of the finished folder follows; until then nothing needs to be durable.
        "--dpkgopt=force-unsafe-io",
        *provided,
        f"--essential-hook={_NAMES.format(name=tree.hostname)}",
        *_answers(todo),
        todo.release.codename,
        str(tree.rootfs),
        *todo.sources,
    ]
    # fmt: on
    try:
        tree.runner.run(argv, env=_times(todo), doing=f"bootstrapping {todo.release.title}")
    except CommandError as error:
        refuse_nodev(tree.folder)
        raise BuildError(
            f"bootstrapping {todo.release.title} failed: {_reason(error)}",
            hint="mirror= in the spec names another mirror; the log has apt's whole output",
        ) from error


def _answers(todo: Recipe) -> tuple[str, ...]:
    lines = shlex.join(todo.answers)
    return (f"--essential-hook={_ANSWERS.format(lines)}",) if lines else ()


def _times(todo: Recipe) -> dict[str, str]:
    # The initrd, /etc/shadow and Python's compiled modules keep it in place of the time of day.
    return {"SOURCE_DATE_EPOCH": str(todo.release.date)}


def as_root() -> tuple[str, ...]:
    """Return a command's prefix that gives it mounts of its own, and root's rights."""
    return ("unshare", "--mount") if os.geteuid() == 0 else AS_ROOT


def _remove_identities(tree: Tree) -> list[str]:
    """Remove what package scripts made once for all machines, and their logs.

    Returns the secrets that are left.
    """
    calls = "remove_identities >&2\nclean_logs >&2\nsecrets | sort -u"
    return _in_guest(calls, tree, doing="removing identities")


def _in_guest(calls: str, tree: Tree, *, doing: str) -> list[str]:
    """Call functions of ``finish.sh`` in the guest; returns the lines that they print."""
    script = f"{identities.finish_script()}\n{calls}\n"
    argv = [*as_root(), *_IN_GUEST, str(tree.rootfs)]
    # A path of the guest is of whatever bytes its packages chose.
    out = tree.runner.capture(argv, stdin=script.encode(), env=_times(tree.todo), doing=doing)
    return out.decode(errors="replace").splitlines()


def _keyring(todo: Recipe) -> tuple[str, ...]:
    """Return the archive's keys besides those in trusted.gpg.d; mmdebstrap finds its mirrors'."""
    keyring = todo.release.distribution.keyring
    return (f"--keyring={keyring}",) if todo.sources and keyring.exists() else ()


@contextmanager
def _apt_settings(folder: Path, runner: Runner) -> Generator[Path]:
    """Write apt's settings, for nobody else to read: a proxy of the host's may have a password."""
    lines = ['Acquire::Languages "none";', *host_settings(runner)]
    settings = folder / "apt.conf"
    try:
        settings.touch(mode=0o600, exist_ok=False)
        settings.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        yield settings
    finally:
        settings.unlink(missing_ok=True)


def _reason(error: CommandError) -> str:
    """Return the line that explains most: apt's or mmdebstrap's error."""
    errors = [line for line in error.tail if line.startswith(("E: ", "Err:"))]
    return (errors or list(error.tail) or [error.message])[0]
