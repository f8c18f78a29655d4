"""Customise a disk in namespaces: unpack its tree, run the commands in it, write it anew."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from inspect import getsource
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lago_images.building.bases.prepared import Prepared
from lago_images.building.customise import identities, sysprep
from lago_images.building.customise.inputs import copy_inputs
from lago_images.building.customise.namespace import (
    agent,
    guest_archives,
    guest_calls,
    guest_root,
    passwords,
    rules,
    sandbox,
    seccomp,
    unpack_ext4,
)
from lago_images.building.customise.namespace.bounds import Bounds
from lago_images.building.customise.namespace.disk import (
    Root,
    copy_around,
    find_root,
    write_root,
)
from lago_images.building.customise.namespace.kept_packages import KeptPackages
from lago_images.building.customise.namespace.unpack_ext4 import UNSUPPORTED, UnsupportedError
from lago_images.building.customise.namespace.user_namespace import (
    NAMES_AT,
    Block,
    Namespace,
    UnavailableError,
    block,
    keeper,
    loopback,
    namespace,
    networked,
)
from lago_images.building.ext4 import BLOCK, settle_times
from lago_images.building.model import Context
from lago_images.building.reservations import watched
from lago_images.building.scratch import private, refuse_noexec
from lago_images.building.superblocks import forget_writes
from lago_images.console import counted
from lago_images.errors import BuildError, CommandError, HostError
from lago_images.host.process import PIPE, Runner, child_environment, search_path
from lago_images.host.redaction import environment_for
from lago_images.specs.model import Spec

# What virt-sysprep hands on to commands (guestfs-tools mltools/tools_utils.ml).
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
# Their text is not handed to the sandbox, whose programs can read what the agent reads.
_PASSWORDS = frozenset(("password", "root-password"))
_UNSUPPORTED = "unsupported: "
# Where Debian and others mount it; what is mounted elsewhere, the agent refuses.
_ESP = "/boot/efi"


class _SpoiledError(BuildError):
    """A kept package made apt fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Hold what the steps share.

    Attributes:
        folder: Has the tree, which is the namespace's root's.
        kept: What apt is given, and where what it fetches is kept; None where neither is done.
    """

    spec: Spec
    prepared: Prepared
    folder: Path
    held: Namespace
    context: Context
    runner: Runner
    kept: KeptPackages | None


def customise(
    spec: Spec, prepared: Prepared, workdir: Path, context: Context, runner: Runner
) -> Prepared:
    """Apply a spec's operations to its prepared disk, and clean it.

    The disk is replaced at the end, and is as it was where that is not reached.

    Returns:
        The new disk, raw, with the packages that are installed now.

    Raises:
        UnsupportedError: The disk or a command is the appliance's; says why.
        UnavailableError: This host has no namespaces that are safe.
        ToolMissingError: A program is not installed.
        BuildError: A command failed in the guest; names the spec's line where it is known.
        SpecError: A host file is outside the repository, or missing.
        HostError: The disk's folder has no room left.
    """
    network = context.settings.network
    if missing := sandbox.missing_programs(search_path(runner.environ), network=network):
        raise UnavailableError(f"not installed: {', '.join(missing)}")
    refuse_noexec(workdir)
    kept = KeptPackages.of(spec, context) if rules.may_keep(context.environ) else None
    try:
        return _customise(spec, prepared, workdir, context, runner, kept)
    except _SpoiledError as error:
        runner.note(f"{spec.name}: {error}: beginning again without what was kept")
        try:
            if kept:
                kept.forget()
        except OSError:
            # Who may only read the cache would be given the same again.
            kept = None
    return _customise(spec, prepared, workdir, context, runner, kept)


def _customise(
    spec: Spec,
    prepared: Prepared,
    workdir: Path,
    context: Context,
    runner: Runner,
    kept: KeptPackages | None,
) -> Prepared:
    start_time, ids = context.clock(), block()
    with ExitStack() as stack:
        held = stack.enter_context(_namespace(runner, ids, context))
        folder = stack.enter_context(private(workdir / "namespace"))
        # The work directory is closed to others; the namespace's root starts in here.
        folder.chmod(0o711)
        owner = stack.enter_context(_owner(runner, ids, folder))
        raw = _raw(prepared, workdir, stack, runner)
        root = find_root(raw)
        job = _Job(
            spec=spec,
            prepared=prepared,
            folder=folder,
            held=held,
            context=context,
            runner=runner,
            kept=kept,
        )
        reply, superblocks = _rewrite(job, raw, root, owner, start_time)
        forget_writes(folder / "disk.raw", root.place.start, superblocks, BLOCK)
        new = workdir / "customised.raw"
        (folder / "disk.raw").rename(new)
    prepared.disk.unlink()
    return reply.on(replace(prepared, disk=new, format="raw"))


@contextmanager
def _namespace(runner: Runner, ids: Block, context: Context) -> Iterator[Namespace]:
    """Hold a namespace that is tried out, with a network where commands may use it."""
    with ExitStack() as stack:
        held = stack.enter_context(namespace(runner, ids))
        sandbox.try_out(held.runner(runner))
        loopback(runner, held)
        if context.settings.network:
            stack.enter_context(networked(runner, held, _proxy_hosts(runner)))
        yield held


def _rewrite(
    job: _Job, raw: Path, root: Root, owner: "_Owner", start_time: float
) -> tuple[sysprep.Reply, tuple[int, ...]]:
    """Run the commands in a disk's tree, and write that into a new disk, ``disk.raw``.

    Returns the answer of ``finish.sh``, and the blocks that superblocks are in.
    """
    folder = job.folder
    given = _fill(job, root)
    copy_around(raw, root, folder / "disk.raw")
    owner.give(*(folder / name for name in ("tree", "fetched", "answer", "disk.raw")))
    devices = _unpack(job, raw, root)
    reply = _run(job, root, owner, given)
    sysprep.refuse_missing_users(job.spec, reply.missing_users)
    safe = job.held.runner(job.runner)
    epoch = settle_times("tree", start_time, root.made, safe, cwd=folder)
    superblocks = write_root(folder, root, devices, epoch, safe)
    owner.take(folder / "disk.raw")
    return reply, superblocks


class _Owner:
    """Gives files to the namespace's root and takes them back, as only who may do so can."""

    def __init__(self, runner: Runner, ids: Block, kept: Namespace | None) -> None:
        self._runner = runner if kept is None else kept.runner(runner)
        self._theirs = "1:1" if kept else f"{ids.first_uid}:{ids.first_gid}"

    def give(self, *paths: Path) -> None:
        self._chown(self._theirs, paths)

    def take(self, *paths: Path) -> None:
        self._chown("0:0", paths)

    def remove(self, folder: Path) -> None:
        argv = ["find", str(folder), "-xdev", "-mindepth", "1", "-delete"]
        self._runner.capture(argv, timeout=None, doing="removing a guest's tree")

    def _chown(self, owner: str, paths: tuple[Path, ...]) -> None:
        argv = ["chown", "--no-dereference", owner, *map(str, paths)]
        self._runner.capture(argv, doing="handing over files")


@contextmanager
def _owner(runner: Runner, ids: Block, folder: Path) -> Iterator[_Owner]:
    with ExitStack() as stack:
        kept = None if os.geteuid() == 0 else stack.enter_context(keeper(runner, ids))
        owner = _Owner(runner, ids, kept)
        try:
            yield owner
        finally:
            owner.remove(folder)


def _raw(prepared: Prepared, workdir: Path, stack: ExitStack, runner: Runner) -> Path:
    """Return the disk as a raw one, which is removed with ``stack`` where it is a copy."""
    if prepared.format == "raw":
        return prepared.disk
    raw = workdir / "unpacked.raw"
    stack.callback(raw.unlink, missing_ok=True)
    # -C: where the file system can share what both files have, nothing is copied.
    argv = ["qemu-img", "convert", "-C", "-t", "unsafe", "-f", prepared.format, "-O", "raw"]
    runner.run([*argv, str(prepared.disk), str(raw)], doing="unpacking the base's disk")
    return raw


def _fill(job: _Job, root: Root) -> int:
    """Write what the sandbox is started with into the folder, for the namespace's root to read.

    Returns the bytes of the packages that are given.
    """
    folder = job.folder
    copy_inputs(job.spec, job.context.root, folder / "inputs")
    for name, text in {"plan.json": json.dumps(_plan(job, root)), **agent_files()}.items():
        file = folder / "agent" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
    for name in ("tree", "given", "fetched"):
        (folder / name).mkdir(mode=0o755)
    (folder / "answer").touch(mode=0o600)
    seccomp.write_filter(folder / "filter")
    read = ("inputs", "agent", "given", "fetched", "filter")
    for path in (*(folder / "agent").rglob("*"), *map(folder.joinpath, read)):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return _given(job)


def _given(job: _Job) -> int:
    if job.kept is None:
        return 0
    try:
        return job.kept.give(job.folder / "given")
    except OSError as error:
        job.runner.note(f"kept packages are not given: {error}")
        return 0


def agent_files() -> dict[str, str]:
    """Return the text of the agent's modules, by the name that each has where it is started."""
    files = {
        f"{module.__name__.replace('.', '/')}.py": getsource(module)
        for module in (guest_root, guest_calls, guest_archives)
    }
    return {"__main__.py": getsource(agent), **files}


def _plan(job: _Job, root: Root) -> dict[str, Any]:
    spec, context = job.spec, job.context
    environ = environment_for("virt-sysprep", child_environment(job.runner.environ))
    return {
        "operations": [
            {"name": each.name, "argument": "" if each.name in _PASSWORDS else each.argument}
            for each in spec.operations
        ],
        "esp": _esp(root),
        "epoch": root.made,
        "machine_packages": rules.MACHINE_PACKAGES.pattern,
        "network": context.settings.network,
        "resolver": f"nameserver {NAMES_AT}\n",
        "proxies": [(name, environ[name]) for name in _PROXIES if name in environ],
        "finish": identities.finish_script(
            spec.operations, sysprep.password_users(spec.operations)
        ),
        "passwords": passwords.fields(spec, job.prepared.base),
    }


def _unpack(job: _Job, raw: Path, root: Root) -> list[dict[str, Any]]:
    """Unpack the disk's root file system as ``tree``; returns the device files."""
    script = Path(unpack_ext4.__file__).read_text("utf-8")
    mounts = [*guest_root.MOUNTS, *([_ESP] if root.has_esp else ())]
    start = str(root.place.start)
    argv = [sandbox.python(), "-I", "-S", "-c", script, start, "tree", *mounts]
    runner = job.held.runner(job.runner)
    with (
        raw.open("rb") as disk,
        watched(runner, job.folder.parent, f"customising {job.spec.name}") as safe,
        safe.started(argv, cwd=job.folder, stdin=disk.fileno(), stdout=PIPE, stderr=PIPE) as child,
    ):
        out, err = child.communicate()
    output = err.decode(errors="replace").strip()
    job.runner.note(output)
    if child.returncode == UNSUPPORTED:
        raise UnsupportedError(output.removeprefix(_UNSUPPORTED))
    if child.returncode:
        raise UnsupportedError(f"its disk could not be unpacked: {output[-200:]}")
    devices: list[dict[str, Any]] = json.loads(out)
    return devices


def _run(job: _Job, root: Root, owner: _Owner, given: int) -> sysprep.Reply:
    """Run the commands; returns the answer of ``finish.sh``."""
    runner = job.held.runner(job.runner, network=True)
    argv = sandbox.command(root.disk_size, _esp(root))
    name = job.spec.name
    bounds = Bounds(root.disk_size + given, job.folder, job.held, job.runner)
    job.context.console.info(
        f"{name}: customising ({counted(len(job.spec.operations), 'command')})"
    )
    try:
        with watched(runner, job.folder.parent, f"customising {name}", free=bounds.free) as safe:
            sysprep.run(job.spec, argv, job.folder, job.context, safe, {})
    except HostError as error:
        if not bounds.exceeded:
            raise
        raise BuildError(f"the commands of {name} {bounds.exceeded}") from error
    except BuildError as error:
        _hand_over(error)
        raise
    _keep(job)
    owner.take(job.folder / "answer")
    return sysprep.read_reply(job.folder / "answer")


def _keep(job: _Job) -> None:
    if job.kept is None:
        return
    try:
        if left_out := job.kept.keep(job.folder / "fetched"):
            why = "no regular files, too large or not to be read"
            job.runner.note(f"packages are not kept: {left_out}, which are {why}")
    except OSError as error:
        job.runner.note(f"packages are not kept: {error}")


def _hand_over(error: BuildError) -> None:
    """Raise ``UnsupportedError`` or ``_SpoiledError`` where the agent, not a command, has ended."""
    cause = error.__cause__
    if not isinstance(cause, CommandError):
        return
    if cause.returncode == agent.SPOILED:
        raise _SpoiledError(cause.tail[-1] if cause.tail else "") from error
    if cause.returncode == UNSUPPORTED:
        lines = [line for line in cause.tail if line.startswith(_UNSUPPORTED)]
        raise UnsupportedError((lines or [str(error)])[-1].removeprefix(_UNSUPPORTED)) from error


def _esp(root: Root) -> str:
    return _ESP if root.has_esp else ""


def _proxy_hosts(runner: Runner) -> frozenset[str]:
    """Return the hosts of the proxies that commands are told of."""
    urls = [runner.environ.get(name, "") for name in _PROXIES[:2]]
    hosts = (urlsplit(url if "//" in url else f"//{url}").hostname for url in urls if url)
    return frozenset(host for host in hosts if host)
