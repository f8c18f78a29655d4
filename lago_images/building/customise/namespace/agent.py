"""Carry out a spec's commands in the sandbox, as libguestfs's daemon does in its appliance.

Runs by itself: ``python3 agent.py PLAN``. The guest's tree is ``/sysroot``; what is beside it
is of the host, and only read. Each command does what virt-customize 1.48 and the daemon's call
behind it do (guestfs-tools customize/*.ml, libguestfs daemon/*.c), also where that is odd. Where
it would mean something else here, the agent stops and exits with ``UNSUPPORTED``.

Prints virt-sysprep's own lines before each command, so that a failure is named in the same way.
"""

import ctypes
import json
import os
import re
import secrets
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

SYSROOT = "/sysroot"
UNSUPPORTED = 3
# These are mounts while programs run, and the guest's own folders for libguestfs's other calls; the
# plan adds the EFI system partition's.
MOUNTS = ["/dev", "/proc", "/sys"]
# What /etc/fstab calls a file system of the guest's disk (fstab(5)).
_OF_DISK = ("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=")
_LOG = "/tmp/builder.log"  # noqa: S108 -- the guest's
# What the appliance's init and guestfsd hand to a command (seen in 1.48).
_ENVIRONMENT = {
    "udevtimeout": "6000",
    "selinux": "0",
    "SHLVL": "1",
    "HOME": "/",
    "edd": "off",
    "LVM_SYSTEM_DIR": "/tmp/lvm",  # noqa: S108
    "TERM": "dumb",
    "PATH": "/sbin:/usr/sbin:/bin:/usr/bin",
    "RUNLEVEL": "S",
    "PREVLEVEL": "N",
    "SHELL": "/bin/sh",
    "PWD": "/",
    "LC_ALL": "C",
    "_": "/sbin/guestfsd",
}
_APT = """
        export DEBIAN_FRONTEND=noninteractive
        apt_opts='-q -y -o Dpkg::Options::=--force-confnew'
"""
_APT_UPDATE = "        apt-get $apt_opts update\n"
_RANDOM_SEEDS = (
    "/var/lib/random-seed",
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
    "/var/lib/misc/random-seed",
    "/etc/random-seed",
)
_PERL = (
    "$lineno = 0; $expr = $ENV{virt_edit_expr}; while (<STDIN>) {   $lineno++;   eval $expr; "
    '  die if $@;   print STDOUT $_ or die "print: $!"; } close STDOUT or die "close: $!"; '
)
_GLOB_BRACE = 1 << 10
_GLOB_NOMATCH = 3
_SHADOW_FIELDS = 9
_MOST_LOG = 2**16
_DEEPEST_LINKS = 40


class CommandFailedError(Exception):
    """A command failed, as it would have in the appliance."""


class UnsupportedError(Exception):
    """A command would mean something else here than in the appliance."""


class Glob(ctypes.Structure):
    """glob(3)'s result."""

    _fields_ = (
        ("count", ctypes.c_size_t),
        ("paths", ctypes.POINTER(ctypes.c_char_p)),
        ("offset", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("functions", ctypes.c_void_p * 5),
    )


def inside(action: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Return what ``action`` returns when the guest's tree is the root: of JSON's types."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer: dict[str, Any]
        try:
            os.chroot(SYSROOT)
            os.chdir("/")
            answer = {"value": action()}
        except OSError as error:
            answer = {"errno": error.errno, "text": f"{error.filename or ''}: {error.strerror}"}
        except (CommandFailedError, UnsupportedError) as error:
            answer = {"kind": type(error).__name__, "text": str(error)}
        except BaseException as error:  # noqa: BLE001 -- this process must not go on as its parent
            answer = {"kind": "UnsupportedError", "text": repr(error)}
        with os.fdopen(writing, "w") as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(child, 0)
    if not text:
        raise UnsupportedError("a step in the sandbox was ended")
    answer = json.loads(text)
    if "errno" in answer:
        raise CommandFailedError(answer["text"])
    if answer.get("kind") == "UnsupportedError":
        raise UnsupportedError(answer["text"])
    if "kind" in answer:
        raise CommandFailedError(answer["text"])
    return answer["value"]


def resolved(path: str) -> str:
    """Return a guest's path without links, as seen in the guest; the last part may be missing."""
    if not path.startswith("/") or "\0" in path:
        raise UnsupportedError(f"{path!a} is no absolute path")
    parts, real, links = [part for part in path.split("/") if part], "", 0
    while parts:
        part = parts.pop(0)
        if part in {".", ".."}:
            real = real if part == "." else real.rpartition("/")[0]
            continue
        try:
            target = os.readlink(f"{SYSROOT}{real}/{part}")
        except OSError:
            real = f"{real}/{part}"
            continue
        links += 1
        if links > _DEEPEST_LINKS:
            raise CommandFailedError(f"{path}: Too many levels of symbolic links")
        parts = [name for name in target.split("/") if name] + parts
        real = "" if target.startswith("/") else real
    return real or "/"


def own(path: str) -> str:
    """Return ``path`` where it is a file of the guest's own, for calls that enter its root."""
    real = resolved(path)
    if real == "/" or any(f"{real}/".startswith(f"{mount}/") for mount in MOUNTS):
        raise UnsupportedError(f"{path} is not of the guest's own files")
    return path


def outside(path: str) -> str:
    """Return a guest's path below /sysroot, for what libguestfs does outside of the guest's root.

    There the links in it lead elsewhere, unless they are relative and stay inside.
    """
    own(path)
    parts, real, links = [part for part in path.split("/") if part], "", 0
    while parts:
        part = parts.pop(0)
        if part == "..":
            raise UnsupportedError(f"{path} has .. in it")
        here = f"{real}/{part}"
        if not os.path.islink(SYSROOT + here) or not (parts or path.endswith("/")):
            real = here
            continue
        target, links = os.readlink(SYSROOT + here), links + 1
        if target.startswith("/") or links > _DEEPEST_LINKS:
            raise UnsupportedError(f"{here} is a link that leads elsewhere")
        parts = [name for name in target.split("/") if name] + parts
    return SYSROOT + path


def outside_real(path: str) -> str:
    """Return as ``outside`` does; the path's last part may be no link, either."""
    here = outside(path)
    if os.path.islink(here.rstrip("/")):
        raise UnsupportedError(f"{path} is a link")
    return here


def host(*argv: str, env: dict[str, str] | None = None) -> None:
    """Run a program of the host's, as guestfsd does."""
    # The agent's own standard input and output are its channel.
    done = subprocess.run(
        argv,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise CommandFailedError(done.stderr.decode(errors="replace").strip() or argv[0])


def write(path: str, data: bytes, flags: int = os.O_TRUNC) -> None:
    """Write to a path in the guest's root; run inside."""
    options = os.O_WRONLY | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK | flags
    target = os.open(path, options, 0o666)
    with os.fdopen(target, "wb") as file:
        file.write(data)


def exists(path: str) -> bool:
    return os.access(path, os.F_OK)


def is_plain(path: str, kind: Callable[[int], bool] = stat.S_ISREG) -> bool:
    """Tell whether a path in the guest's root is of a kind; a link is not followed."""
    try:
        return kind(os.lstat(path).st_mode)
    except OSError:
        return False


class Agent:
    """Carries out one plan."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.start = time.monotonic()
        self.passwords: dict[str, str] = plan["passwords"]

    def say(self, line: str) -> None:
        print(f"[{time.monotonic() - self.start:6.1f}] {line}", flush=True)

    def run(self) -> None:
        if inside(lambda: os.path.isdir("/tmp")) is not True:  # noqa: S108
            raise UnsupportedError("the guest has no /tmp")
        esp = self.plan["esp"]
        if esp and inside(lambda: mounted_from_disk("/etc/fstab")) != [esp]:
            raise UnsupportedError("the guest's /etc/fstab mounts other parts of its disk")
        before = self._machine_packages()
        self.say("Setting a random seed")
        inside(self._random_seed)
        self._machine_id()
        for operation in self.plan["operations"]:
            name, argument = operation["name"], operation["argument"]
            getattr(self, "do_" + name.replace("-", "_"))(argument)
        changed = before ^ self._machine_packages()
        if changed:
            name = min(changed).split()[0]
            raise UnsupportedError(f"{name} was changed, whose scripts look at the machine")
        self.say("Cleaning up")
        self._finish()
        if self.passwords:
            self.say("Setting passwords")
            inside(self._set_passwords)
        with_log = own(_LOG)
        inside(lambda: os.unlink(with_log) if is_plain(with_log) else None)
        self._end_others()
        self._check_root()

    # The commands, by name; with their arguments as the spec has them.

    def do_append_line(self, argument: str) -> None:
        path, line = argument.split(":", 1)
        self.say(f"Appending line to {path}")
        if "\n" in line:
            raise CommandFailedError("append-line: line must not contain newline characters")
        own(path)
        inside(lambda: self._append(path, line.encode()))

    def do_chmod(self, argument: str) -> None:
        mode, path = argument.split(":", 1)
        self.say(f"Changing permissions of {path} to {mode}")
        if not re.fullmatch(r"0[0-7]+|[1-9][0-9]{0,8}", mode):
            raise UnsupportedError(f"chmod takes {mode!a} in a way of its own")
        own(path)
        inside(lambda: os.chmod(path, int(mode, 8 if mode.startswith("0") else 10)))

    def do_copy(self, argument: str) -> None:
        source, target = argument.split(":", 1)
        self.say(f"Copying (in image): {source} to {target}")
        host("cp", "-a", outside_real(source), outside_real(target))

    def do_copy_in(self, argument: str) -> None:
        local, folder = argument.split(":", 1)
        self.say(f"Copying: {local} to {folder}")
        own(folder)
        if not inside(lambda: is_plain(folder, stat.S_ISDIR)):
            raise CommandFailedError(f"target ‘{folder}’ is not a directory")
        parent, _, name = os.path.abspath(f"/inputs/{local}").rpartition("/")
        with subprocess.Popen(
            ["tar", "--owner=0", "--group=0", "-C", parent, "-cf", "-", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        ) as packing:
            done = subprocess.run(
                ["tar", "-C", outside_real(folder), "-xf", "-"],
                stdin=packing.stdout,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
        if done.returncode or packing.returncode:
            raise CommandFailedError(done.stderr.decode(errors="replace").strip() or "tar failed")

    def do_delete(self, argument: str) -> None:
        self.say(f"Deleting: {argument}")
        fixed = re.split(r"[^/]*[*?\[{\\\\]", argument)[0].rstrip("/")
        if ".." in argument.split("/"):
            raise UnsupportedError(f"{argument} has .. in it")
        own(fixed)
        for path in inside(lambda: glob_expand(argument)):
            real = outside(os.fsdecode(bytes.fromhex(path)))
            host("rm", "-rf", real)

    def do_edit(self, argument: str) -> None:
        path, expression = argument.split(":", 1)
        self.say(f"Editing: {path}")
        real = resolved(own(path))
        here = SYSROOT + real
        if not os.path.lexists(here):
            raise CommandFailedError(f"{path} does not exist in the guest")
        if not is_plain(here):
            raise CommandFailedError(f"{path} is not a regular file in the guest")
        with open(here, "rb") as old:
            done = subprocess.run(
                ["perl", "-e", _PERL],
                stdin=old,
                capture_output=True,
                env={**os.environ, "virt_edit_expr": expression},
                check=False,
            )
        if done.returncode:
            raise CommandFailedError(done.stderr.decode(errors="replace").strip() or "perl failed")
        folder = here.rpartition("/")[0]
        replace(here, f"{folder}/{secrets.token_hex(4)}", done.stdout)

    def do_hostname(self, name: str) -> None:
        self.say(f"Setting the hostname: {name}")
        own("/etc/hostname")
        own("/etc/hosts")
        inside(lambda: set_hostname(name))

    def do_install(self, argument: str) -> None:
        packages = argument.split(",")
        self.say(f"Installing packages: {' '.join(packages)}")
        quoted = " ".join(map(quote, packages))
        self._sh(f"{_APT}{_APT_UPDATE}        apt-get $apt_opts install {quoted}\n      ")

    def do_link(self, argument: str) -> None:
        target, *links = argument.split(":")
        for link in links:
            self.say(f"Linking: {link} -> {target}")
            self._link(target, link)

    def do_mkdir(self, path: str) -> None:
        self.say(f"Making directory: {path}")
        own(path)
        inside(lambda: mkdir_p(path))

    def do_move(self, argument: str) -> None:
        source, target = argument.split(":", 1)
        self.say(f"Moving: {source} -> {target}")
        host("mv", outside_real(source), outside_real(target))

    def do_no_logfile(self, _argument: str) -> None:
        """Do nothing: the log is removed from every image."""

    def do_password(self, _argument: str) -> None:
        """Do nothing: all are set at the end, and not even their text is here."""

    do_password_crypto = do_root_password = do_password

    def do_run(self, argument: str) -> None:
        self.say(f"Running: {argument}")
        with open(f"/inputs/{argument}", "rb") as file:
            self._sh(os.fsdecode(file.read()))

    def do_run_command(self, argument: str) -> None:
        self.say(f"Running: {argument}")
        self._sh(argument)

    def do_scrub(self, path: str) -> None:
        self.say(f"Scrubbing: {path}")
        real = SYSROOT + resolved(own(path))
        # What was overwritten is not copied into the new file system.
        if not is_plain(real) or os.lstat(real).st_nlink != 1:
            raise UnsupportedError(f"{path} is no file that can be scrubbed")
        os.unlink(real)

    def do_timezone(self, zone: str) -> None:
        self.say(f"Setting the timezone: {zone}")
        target = f"/usr/share/zoneinfo/{zone}"
        if not inside(lambda: exists(target)):
            raise CommandFailedError(f"timezone '{zone}' does not exist")
        self._link(target, "/etc/localtime")

    def do_touch(self, path: str) -> None:
        self.say(f"Running touch: {path}")
        own(path)
        inside(lambda: touch(path))

    def do_truncate(self, path: str) -> None:
        self.say(f"Truncating: {path}")
        own(path)
        inside(lambda: truncate(path))

    def do_truncate_recursive(self, path: str) -> None:
        self.say(f"Recursively truncating: {path}")
        own(path)
        inside(lambda: truncate_recursive(path))

    def do_uninstall(self, argument: str) -> None:
        packages = argument.split(",")
        self.say(f"Uninstalling packages: {' '.join(packages)}")
        self._sh(f"{_APT}        apt-get $apt_opts remove {' '.join(map(quote, packages))}\n      ")

    def do_update(self, _argument: str) -> None:
        self.say("Updating packages")
        self._sh(f"{_APT}{_APT_UPDATE}        apt-get $apt_opts upgrade\n      ")

    def do_upload(self, argument: str) -> None:
        local, target = argument.split(":", 1)
        self.say(f"Uploading: {local} to {target}")
        own(target)
        name = local.rstrip("/").rpartition("/")[2]
        target = f"{target}/{name}" if inside(lambda: os.path.isdir(target)) else target
        own(target)
        source = os.open(f"/inputs/{local}", os.O_RDONLY)
        mode = stat.S_IMODE(os.fstat(source).st_mode)
        inside(lambda: upload(source, target, mode))
        os.close(source)

    def do_write(self, argument: str) -> None:
        path, content = argument.split(":", 1)
        self.say(f"Writing: {path}")
        own(path)
        inside(lambda: write(path, content.encode()))

    def _link(self, target: str, link: str) -> None:
        here = outside(link)
        if os.path.islink(here) and inside(lambda: os.path.isdir(link)):
            raise UnsupportedError(f"{link} is a link to a folder")
        host("ln", "-sf", "--", target, here)

    def _append(self, path: str, line: bytes) -> None:
        if not exists(path):
            write(path, line + b"\n")
            return
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CommandFailedError(f"append_line: {path} is not a file")
        with open(path, "rb") as file:
            first = file.read(8192)
            newline = next((end for end in (b"\r\n", b"\n", b"\r") if end in first), b"\n")
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - len(newline), 0))
            last = file.read(len(newline)) if size else newline
        before = b"" if last == newline else newline
        write(path, before + line + newline, os.O_APPEND)

    def _sh(self, command: str) -> None:
        """Run a shell command in the guest; its output goes to the log that is in the guest."""
        proxies = [f"export {name}={quote(value)}" for name, value in self.plan["proxies"]]
        prologue = "\n".join(proxies) + "\n"
        text = f"exec >>{quote(_LOG)} 2>&1\n{prologue}\n{command}\n"
        if self._shell(text, ()):
            self._show_log()
            raise CommandFailedError("command exited with an error")

    def _shell(self, text: str, descriptors: tuple[int, ...]) -> int:
        restore = self._resolver() if self.plan["network"] else None
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", text],
                env={
                    **_ENVIRONMENT,
                    **({"guestfs_network": "1"} if restore else {}),
                    # Beside the appliance's: initrds, /etc/shadow and Python's compiled modules
                    # keep it in place of the time of day.
                    "SOURCE_DATE_EPOCH": str(self.plan["epoch"]),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=descriptors,
                preexec_fn=enter,
                check=False,
            )
        finally:
            if restore:
                restore()
        return done.returncode

    def _resolver(self) -> Callable[[], None]:
        """Put the sandbox's /etc/resolv.conf into the guest; returns what puts its own back."""
        path = f"{outside_real('/etc')}/resolv.conf"
        kept = f"{SYSROOT}/etc/{secrets.token_hex(4)}" if os.path.lexists(path) else ""
        if kept:
            os.rename(path, kept)
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(target, "w") as file:
            file.write(self.plan["resolver"])

        def restore() -> None:
            if os.path.isdir(path) and not os.path.islink(path):
                raise UnsupportedError("/etc/resolv.conf is a folder")
            if os.path.lexists(path):
                os.unlink(path)
            if kept:
                os.rename(kept, path)

        return restore

    def _machine_packages(self) -> set[str]:
        """Return those packages, with versions, whose scripts look at the machine."""
        pattern = re.compile(self.plan["machine_packages"])
        return set(inside(lambda: package_versions("/var/lib/dpkg/status", pattern)))

    def _show_log(self) -> None:
        """Print the end of the log for who looks for the reason."""
        try:
            with open(SYSROOT + resolved(own(_LOG)), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - _MOST_LOG, 0))
                sys.stdout.buffer.write(file.read().rstrip(b"\n") + b"\n")
                sys.stdout.flush()
        except (OSError, UnsupportedError):
            pass

    def _finish(self) -> None:
        """Run finish.sh, whose answer goes to a file outside the guest."""
        answer = os.open("/answer", os.O_WRONLY | os.O_TRUNC)
        text = f"exec >>{quote(_LOG)} 2>&1\n\n\n{self.plan['finish']}\nfinish >&{answer}\nexit 0\n"
        if self._shell(text, (answer,)):
            self._show_log()
            raise CommandFailedError("finish.sh: command exited with an error")
        os.close(answer)

    def _random_seed(self) -> None:
        """Write to the files with a seed that there are, or make Debian's where its folder is."""
        present = [path for path in _RANDOM_SEEDS if is_plain(path)]
        for path in present:
            size = min(max(os.lstat(path).st_size, 512), 8192)
            truncate(path)
            write(path, os.urandom(size), os.O_APPEND)
        new = "/var/lib/urandom/random-seed"
        if not present and is_plain("/var/lib/urandom", stat.S_ISDIR):
            write(new, os.urandom(512))
            os.chown(new, 0, 0)
            os.chmod(new, 0o600)

    def _machine_id(self) -> None:
        path = "/etc/machine-id"

        def set_it() -> None:
            if is_plain(path) and os.lstat(path).st_size == 0:
                write(path, f"{secrets.token_hex(16)}\n".encode())

        self.say(f"Setting the machine ID in {path}")
        own(path)
        inside(set_it)

    def _set_passwords(self) -> None:
        """Set the passwords of those users that there are."""
        path = "/etc/shadow"
        if not is_plain(path):
            raise UnsupportedError("the guest's /etc/shadow is no file")
        with open(path, "rb") as file:
            lines = file.read().decode().split("\n")
        for number, line in enumerate(lines):
            fields = line.split(":")
            if line and len(fields) != _SHADOW_FIELDS:
                raise UnsupportedError("the guest's /etc/shadow is not as shadow(5) has it")
            if line and fields[0] in self.passwords:
                fields[1] = self.passwords[fields[0]]
                lines[number] = ":".join(fields)
        replace(path, f"{path}.guestfs{secrets.token_hex(3)}", "\n".join(lines).encode())

    def _end_others(self) -> None:
        """End what the commands left running; only the sandbox's first process stays."""
        while True:
            try:
                os.kill(-1, signal.SIGKILL)
            except ProcessLookupError:
                return
            try:
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
            except ChildProcessError:
                pass
            if not any(
                name.isdigit() and int(name) not in {1, os.getpid()} for name in os.listdir("/proc")
            ):
                return
            time.sleep(0.01)

    def _check_root(self) -> None:
        status = os.lstat(SYSROOT)
        if (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) != (0o755, 0, 0):
            raise UnsupportedError("the guest's root folder has another mode or owner")
        if os.listxattr(SYSROOT):
            raise UnsupportedError("the guest's root folder has extended attributes")
        if not is_plain(f"{SYSROOT}/lost+found", stat.S_ISDIR):
            raise UnsupportedError("the guest has no /lost+found")
        for mount in MOUNTS:
            if not is_plain(SYSROOT + mount, stat.S_ISDIR):
                raise UnsupportedError(f"the guest's {mount} is no folder")


# What follows is run in the guest's root.


def enter() -> None:
    os.chroot(SYSROOT)
    os.chdir("/")
    os.umask(0o022)


def mounted_from_disk(fstab: str) -> list[str]:
    """Return where /etc/fstab mounts what is on the guest's disk, but for its root."""
    with open(fstab, encoding="utf-8") as file:
        fields = [line.split() for line in file if not line.lstrip().startswith("#")]
    mounted = {each[1] for each in fields if len(each) > 1 and each[0].startswith(_OF_DISK)}
    return sorted(path for path in mounted - {"/"} if path.startswith("/"))


def package_versions(status: str, pattern: "re.Pattern[str]") -> list[str]:
    """Return the name, version and state of each package of dpkg's whose name matches."""
    if not is_plain(status):
        return []
    with open(status, encoding="utf-8", errors="replace") as file:
        stanzas = [stanza.split("\n") for stanza in file.read().split("\n\n")]
    versions = []
    for stanza in stanzas:
        fields = dict(line.split(": ", 1) for line in stanza if ": " in line)
        if pattern.fullmatch(fields.get("Package", "")):
            wanted = (fields.get(name, "") for name in ("Package", "Version", "Status"))
            versions.append(" ".join(wanted))
    return versions


def glob_expand(pattern: str) -> list[str]:
    """Return the paths that match, as hexadecimal digits: they need not be UTF-8."""
    library, result = ctypes.CDLL(None), Glob()
    code = library.glob(os.fsencode(pattern), _GLOB_BRACE, None, ctypes.byref(result))
    if code == _GLOB_NOMATCH:
        return []
    if code:
        raise CommandFailedError(f"glob failed: {pattern}")
    return [bytes(result.paths[number]).hex() for number in range(result.count)]


def mkdir_p(path: str) -> None:
    try:
        os.makedirs(path, 0o777, exist_ok=True)
    except FileExistsError as error:
        raise CommandFailedError(f"{path}: a path element was not a directory") from error
    if not stat.S_ISDIR(os.lstat(path.rstrip("/")).st_mode):
        raise CommandFailedError(f"{path}: a path element was not a directory")


def touch(path: str) -> None:
    if os.path.lexists(path) and not is_plain(path):
        raise CommandFailedError(f"{path}: touch can only be used on a regular files")
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOCTTY, 0o666)
    os.utime(target)
    os.close(target)


def truncate(path: str) -> None:
    target = os.open(path, os.O_WRONLY | os.O_NOCTTY)
    os.ftruncate(target, 0)
    os.close(target)


def truncate_recursive(path: str) -> None:
    if not is_plain(path.rstrip("/"), stat.S_ISDIR):
        raise UnsupportedError(f"{path} is no folder")
    for folder, _, names in os.walk(path):
        for name in names:
            if is_plain(f"{folder}/{name}"):
                truncate(f"{folder}/{name}")


def upload(source: int, target: str, mode: int) -> None:
    options = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY
    with os.fdopen(os.open(target, options, 0o666), "wb") as file:
        while piece := os.read(source, 2**20):
            file.write(piece)
    os.chmod(target, mode)
    os.chown(target, 0, 0)


def replace(path: str, new: str, data: bytes) -> None:
    """Put a file of the same owner, mode and attributes in the place of another."""
    status = os.lstat(path)
    target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(target, "wb") as file:
        file.write(data)
    os.chown(new, status.st_uid, status.st_gid)
    os.chmod(new, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(path):
        os.setxattr(new, name, os.getxattr(path, name))
    os.rename(new, path)


def set_hostname(name: str) -> None:
    """Write /etc/hostname, and the new name in the place of the old one in /etc/hosts."""
    old = None
    if is_plain("/etc/hostname"):
        with open("/etc/hostname", encoding="utf-8") as file:
            old = file.read().split("\n")[0]
    write("/etc/hostname", f"{name}\n".encode())
    if not is_plain("/etc/hosts"):
        return
    with open("/etc/hosts", encoding="utf-8") as file:
        text = file.read()
    lines = [host_line(line, old, name) for line in text.split("\n")]
    if "\n".join(lines) != text:
        replace("/etc/hosts", "/etc/hosts.augnew", "\n".join(lines).encode())


def host_line(line: str, old: str | None, new: str) -> str:
    if not line.strip() or line.lstrip().startswith("#"):
        return line
    if not re.fullmatch(r"[0-9a-fA-F:.]+([ \t]+[A-Za-z0-9._-]+)+[ \t]*", line):
        raise UnsupportedError("the guest's /etc/hosts has a line of an unusual form")
    first, *rest = re.split(r"([ \t]+)", line)
    return first + "".join(host_name(part, old, new) for part in rest)


def host_name(part: str, old: str | None, new: str) -> str:
    short = new.partition(".")[0]
    if old is not None and part == old:
        return new
    if old is not None and part == old.partition(".")[0] and part:
        return short
    if part == "unassigned-hostname":
        return short
    if part == "unassigned-hostname.unassigned-domain" and "." in new:
        return new
    return part


def quote(text: str) -> str:
    """Quote as OCaml's Filename.quote does, which guestfs-tools use."""
    return "'" + text.replace("'", "'\\''") + "'"


def main(plan: str) -> NoReturn:
    # What the sandbox was made with would lead out of it.
    os.closerange(3, 4096)
    # When memory is short, the kernel ends these first.
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    os.umask(0o022)
    with open(plan, encoding="utf-8") as file:
        agent = Agent(json.load(file))
    MOUNTS.extend([agent.plan["esp"]] if agent.plan["esp"] else [])
    code, line = 0, ""
    try:
        agent.run()
    except UnsupportedError as error:
        code, line = UNSUPPORTED, f"unsupported: {error}"
    except (CommandFailedError, OSError, UnicodeDecodeError) as error:
        code, line = 1, f"virt-sysprep: error: {error}"
    if line:
        print(line, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
