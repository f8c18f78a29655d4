"""Run a spec's commands, the clean-up and the trim in one launch of the appliance."""

import os
import platform
import re
import shlex
import shutil
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lago_images.building import boot_files
from lago_images.building import packages as contents
from lago_images.building.bases.prepared import Package, Prepared
from lago_images.building.boot import machines
from lago_images.building.customise import identities
from lago_images.building.customise.inputs import copy_inputs
from lago_images.building.customise.progress_lines import running
from lago_images.building.customise.versions import refuse_commands
from lago_images.building.model import Context
from lago_images.building.reservations import watched
from lago_images.building.scratch import refuse_noexec
from lago_images.console import counted
from lago_images.errors import BuildError, CommandError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner, missing, search_path
from lago_images.repository.records.boot_files import BootFiles
from lago_images.specs.model import BaseKind, Operation, Spec
from lago_images.specs.names import shown

# The guest's end of the channel that finish.sh answers on. A second disk, as another way, would be
# one that the guest's /etc/fstab may mean: kernels name disks in the order of a race.
_CHANNEL = "org.lago-images.answer"
_LARGEST_ANSWER = 8 * 2**20
# libguestfs starts this as its QEMU, also to ask what that can do, when there is no port to add to.
_QEMU = """\
#!/bin/sh
case " $* " in
  *virtserialport*)
    set -- "$@" -chardev file,id=answer,path={answer} \\
      -device virtserialport,chardev=answer,name={channel} ;;
esac
exec {qemu} "$@"
"""
# dnf and the relabelling of large guests are killed for want of memory in libguestfs's default.
_MEMORY_MIB = 2048
_TIMEOUT = 4 * 3600.0
_STEP = re.compile(r"\[ *\d+\.\d\] (.*)")
_CLEANER = 'Performing "'
_ERROR = "virt-sysprep: error: "
# Once in some thousand starts 1.48 was killed by SIGABRT before the first command.
_CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
_STARTS = 3
_CRASHED = "the program crashed, which is no fault of the spec's: build again"
# Of virt-sysprep (sysprep/main.ml).
_NO_SYSTEM = "no operating systems were found"
# What apt, and what dnf and pip, call an error of theirs.
_SAID = ("E: ", "Error: ", "ERROR: ")
# What finish.sh cleans, for guests that cannot run it: patterns of virt-sysprep's --delete.
_LEFT_BEHIND = (
    "/var/lib/apt/lists/*",
    "/var/cache/apt/archives/*.deb",
    "/var/cache/apt/*.bin",
    "/var/cache/dnf/*",
    "/var/cache/libdnf5/*",
    "/var/cache/yum/*",
    "/var/cache/zypp/*",
    "/var/cache/apk/*",
    "/var/cache/ldconfig/aux-cache",
    "/var/log/journal/*",
    "/var/log/*.gz",
    "/var/log/*.[0-9]",
    "/var/log/*.old",
    "/var/log/*log",
    "/var/crash/*",
    "/root/.bash_history",
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
    "/var/lib/random-seed",
    "/tmp/*",  # noqa: S108 -- the guest's
    "/var/tmp/*",  # noqa: S108
)
# Perl that ends virt-sysprep when /etc/shadow lacks one of the users, whose names are hexadecimal.
_REFUSE_MISSING = (
    "$has{{$1}} = 1 if /^([^:]*):/; if (eof STDIN) {{ for (qw({names})) {{ "
    'my $user = pack "H*", $_; die "missing-user $user\\n" unless $has{{$user}}; }} }}'
)
# Guests of these pairs of host and guest can run commands (mltools tools_utils.ml).
_ALSO = {("x86_64", "i686")}
# Commands that start a program of the guest's (mlcustomize customize_run.ml: what it calls do_run
# for). selinux-relabel is done at the first boot where it cannot be.
_IN_GUEST = frozenset(
    (
        "install",
        "run",
        "run-command",
        "sm-attach",
        "sm-register",
        "sm-remove",
        "sm-unregister",
        "uninstall",
        "update",
    )
)


def appliance_environment(accel: Acceleration) -> dict[str, str]:
    """Return the variables that libguestfs's programs need besides the allow-listed ones."""
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

    The disk is changed in place.

    Args:
        spec: Its operations are applied in order.
        prepared: The disk.
        workdir: For the copies of the host files that the operations read.
        context: Its root and network setting.
        runner: Starts virt-sysprep.
        accel: What libguestfs' appliance runs on.

    Returns:
        The same disk, with the packages and boot files that are on it now.

    Raises:
        SpecError: A host file is outside the repository, or missing.
        BuildError: A command failed in the guest; names the spec's line where it is known.
        HostError: The disk's folder has no room left, or runs no programs.
    """
    context.console.info(f"{spec.name}: customising ({counted(len(spec.operations), 'command')})")
    folder = workdir / "customise"
    inputs, answer, finish = (folder / name for name in ("inputs", "answer", "finish.sh"))
    folder.mkdir()
    try:
        copy_inputs(spec, context.root, inputs)
        finish.write_text(_script(spec), encoding="utf-8")
        environ = appliance_environment(accel)
        native = _runs_here(spec.arch)
        if native:
            qemu = _with_channel(folder / "qemu", answer, context.environ)
            environ["LIBGUESTFS_HV"] = str(qemu)
        argv = _command(spec, prepared, finish if native else None, context)
        with watched(runner, prepared.disk.parent, f"customising {spec.name}") as safe:
            run(spec, argv, inputs, context, safe, environ, starts=_STARTS)
        reply = read_reply(answer)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    refuse_missing_users(spec, reply.missing_users)
    return reply.on(prepared)


def _with_channel(qemu: Path, answer: Path, environ: Mapping[str, str]) -> Path:
    """Write a QEMU for libguestfs whose guests have a port that leads to the file ``answer``."""
    name = machines.machine_for(machines.host()).program
    program = environ.get("LIBGUESTFS_HV")
    for candidate in (name, "/usr/libexec/qemu-kvm"):
        program = program or shutil.which(candidate, path=search_path(environ))
    if not program:
        raise missing(name)
    # QEMU's option syntax: a comma in a value is written twice.
    path = shlex.quote(str(answer.absolute()).replace(",", ",,"))
    script = _QEMU.format(answer=path, channel=_CHANNEL, qemu=shlex.quote(program))
    qemu.write_text(script, encoding="utf-8")
    qemu.chmod(0o700)
    # libguestfs keeps what it learnt of a QEMU under its size and time.
    with suppress(OSError):
        facts = Path(program).stat()
        os.utime(qemu, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    refuse_noexec(qemu.parent)
    return qemu.absolute()


def _script(spec: Spec) -> str:
    script = identities.finish_script(spec.operations, password_users(spec.operations))
    return f"{script}\nfinish >/dev/virtio-ports/{_CHANNEL}\ntrim\nexit 0\n"


def _command(spec: Spec, prepared: Prepared, finish: Path | None, context: Context) -> list[str]:
    # fmt: off
    return [
        "virt-sysprep",
        "--format", prepared.format, "--add", str(prepared.disk.absolute()),
        "--network" if context.settings.network else "--no-network",
        "--operations", _operations(spec),
        "--no-logfile",
        *_options(spec.operations),
        *(("--run", str(finish.absolute())) if finish else clean_from_outside(spec.operations)),
    ]
    # fmt: on


def password_users(operations: Iterable[Operation]) -> list[str]:
    """Return the users whose passwords commands set, sorted."""
    return sorted(
        {each.argument.partition(":")[0] for each in operations if each.name == "password"}
    )


def clean_from_outside(operations: Sequence[Operation]) -> list[str]:
    """Return virt-sysprep's options that do of finish.sh what needs no program of the guest."""
    options = []
    if users := password_users(operations):
        # Perl of this host runs it for each line (libguestfs-common, perl_edit.ml).
        names = " ".join(user.encode().hex() for user in users)
        options += ["--edit", f"/etc/shadow:{_REFUSE_MISSING.format(names=names)}"]
    files = identities.not_named(
        operations, (*identities.patterns(renewed=True), *identities.patterns(renewed=False))
    )
    for path in (*_LEFT_BEHIND, identities.SSH_KEYS, *files, "/var/lib/dbus/machine-id"):
        options += ["--delete", path]
    # It was set for the commands (mlcustomize customize_run.ml). Truncating wants it to exist.
    for option in ("--touch", "--truncate"):
        options += [option, "/etc/machine-id"]
    placed = identities.guest_files()
    if any(operation.name.startswith("firstboot") for operation in operations):
        placed[identities.WAIT_FOR_NETWORK] = (identities.wait_for_network(), 0o644)
    for path, (text, mode) in placed.items():
        options += ["--mkdir", path.rpartition("/")[0], "--write", f"{path}:{text}"]
        options += ["--chmod", f"0{mode:o}:{path}"]
    for path, target in identities.WANTED_BY.items():
        wants = f"{identities.UNITS}/{target}.wants"
        options += ["--mkdir", wants, "--link", f"{path}:{wants}/{Path(path).name}"]
    return options


def _operations(spec: Spec) -> str:
    """Return virt-sysprep's operations: its cleaners, then the spec's commands, then finish.sh.

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


def refuse_foreign_commands(spec: Spec) -> None:
    """Refuse commands that run a program of a guest whose architecture is not this host's.

    Raises:
        SpecError: Names each line.
    """
    if _runs_here(spec.arch):
        return
    why = (
        f"runs a program of the guest, which is {spec.arch}, and this host is {platform.machine()}"
    )
    refuse_commands(spec, {name: f"{name} {why}: build it on {spec.arch}" for name in _IN_GUEST})


def _runs_here(arch: str) -> bool:
    host = platform.machine()
    return host == arch or (host, arch) in _ALSO


def run(
    spec: Spec,
    argv: list[str],
    inputs: Path,
    context: Context,
    runner: Runner,
    environ: Mapping[str, str],
    *,
    starts: int = 1,
) -> None:
    """Run the program that carries out a spec's commands, and show the line of each.

    It is started again, ``starts`` times in all, where it crashes before it changes the disk.

    Raises:
        BuildError: It failed; names the command it was at where that is known.
    """
    seen: list[str] = []

    def watch(line: str) -> None:
        if match := _STEP.match(line):
            seen.append(match[1])
            if not match[1].startswith(_CLEANER):
                context.console.output(f"{spec.name}: {match[1]}")
        if runner.echo:
            runner.echo(line)

    doing = f"customising {spec.name}"
    try:
        replace(runner, echo=watch).run(
            argv, env=environ, cwd=inputs, timeout=_TIMEOUT, doing=doing
        )
    except CommandError as error:
        # Its first line is of a look at the guest.
        if starts > 1 and -error.returncode in _CRASHES and len(seen) <= 1:
            context.console.warn(f"{error.message}, which is started again: the disk is unchanged")
            return run(spec, argv, inputs, context, runner, environ, starts=starts - 1)
        refuse_missing_users(spec, _missing_users(error.tail))
        raise _failure(spec, seen, error) from error


def _failure(spec: Spec, seen: list[str], error: CommandError) -> BuildError:
    operation = running(spec.operations, seen)
    stated = [line.removeprefix(_ERROR) for line in error.tail if line.startswith(_ERROR)]
    # Where its message begins with a line end, and where it only says that a command failed.
    said = [line for line in error.tail if line.startswith(_SAID)][-1:]
    # A program that crashes names no error of its own: what it said last is all that there is.
    silent = [error.message, f"its last line was {shown(error.tail[-1])}" if error.tail else ""]
    why = ": ".join(filter(None, [*(stated[:1] or silent), *said]))
    hint = _CRASHED if -error.returncode in _CRASHES else None
    if _NO_SYSTEM in why:
        hint = "commands need a disk with a system; without commands it is published as it is"
    if operation is None and "finish.sh" in why:
        return BuildError(
            f"customising {spec.name} failed after the spec's commands, while the guest was "
            f"cleaned up and its packages were listed: {why}",
            hint="the log ends with what the guest said, if it could run /bin/sh",
        )
    if operation is None:
        return BuildError(f"customising {spec.name} failed: {why}", hint=hint)
    first = operation.argument.splitlines()[0] if operation.argument else ""
    return BuildError(
        f"{spec.path}:{operation.line}: {operation.name} {first}".rstrip() + f" failed: {why}",
        hint=hint,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer of ``finish.sh``.

    Attributes:
        packages: What is installed; None where it knows no package manager.
        boot_files: What it starts with; None where it did not tell all of it.
        missing_users: Whose passwords the spec sets, and who are not in the guest.
        secrets: Files with private keys, and identities, that are in the image; None where it did
            not tell all of them.
    """

    packages: tuple[Package, ...] | None = None
    boot_files: BootFiles | None = None
    missing_users: frozenset[str] = frozenset()
    secrets: tuple[str, ...] | None = None

    def on(self, prepared: Prepared) -> Prepared:
        """Return a customised disk with what its guest told."""
        return replace(
            prepared, packages=self.packages, boot_files=self.boot_files, secrets=self.secrets
        )


def read_reply(answer: Path) -> Reply:
    """Read what a guest wrote into a file; what is not complete there is left out."""
    if not answer.exists():
        return Reply()
    with answer.open("rb") as file:
        lines = file.read(_LARGEST_ANSWER).decode("utf-8", errors="replace").splitlines()
    packages = None
    if lines[:1] == ["packages"] and "end" in lines:
        packages = contents.parse("\n".join(lines[1 : lines.index("end")]))
    return Reply(
        packages=packages,
        boot_files=boot_files.from_answer(lines),
        missing_users=_missing_users(lines),
        secrets=tuple(_after("secret ", lines)) if "end of answer" in lines else None,
    )


def _missing_users(lines: Iterable[str]) -> frozenset[str]:
    return frozenset(_after("missing-user ", lines))


def _after(word: str, lines: Iterable[str]) -> Iterator[str]:
    return (line.removeprefix(word) for line in lines if line.startswith(word))


def refuse_missing_users(spec: Spec, missing_users: frozenset[str]) -> None:
    """Refuse a password for a user whom the guest does not have: virt-sysprep sets none, silently.

    Raises:
        BuildError: Names the line.
    """
    for operation in spec.operations:
        user = operation.argument.partition(":")[0]
        if operation.name == "password" and user in missing_users:
            raise BuildError(
                f"{spec.path}:{operation.line}: password {shown(user)} failed: "
                "the guest has no such user",
                hint="add the user first: run-command useradd …",
            )
