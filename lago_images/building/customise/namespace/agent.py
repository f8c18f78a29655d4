"""Carry out a spec's commands in the sandbox, as libguestfs's daemon does in its appliance.

Runs by itself, with those modules beside it that it imports: ``python3 -I -S FOLDER``, where it is
``__main__.py``. The guest's tree is ``/sysroot``; what is beside it is of the host, and only
read. Each command does what virt-customize 1.48 and the daemon's call behind it do (guestfs-tools
customize/*.ml, libguestfs daemon/*.c), also where that is odd. Where it would mean something
else here, the agent stops and exits with ``UNSUPPORTED``.

Prints virt-sysprep's own lines before each command, so that a failure is named in the same way.
"""

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
from contextlib import nullcontext
from typing import Any, NoReturn

from lago_images.building.customise.namespace import guest_archives, guest_calls
from lago_images.building.customise.namespace.guest_root import (
    MOUNTS,
    SYSROOT,
    CommandFailedError,
    UnsupportedError,
    enter,
    exists,
    host,
    inside,
    is_plain,
    outside,
    outside_real,
    own,
    resolved,
    write,
)

# Exit codes: what the spec means is the appliance's; it is to be begun again without packages.
UNSUPPORTED, SPOILED = 3, 4
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
_PERL = (
    "$lineno = 0; $expr = $ENV{virt_edit_expr}; while (<STDIN>) {   $lineno++;   eval $expr; "
    '  die if $@;   print STDOUT $_ or die "print: $!"; } close STDOUT or die "close: $!"; '
)
_SHADOW_FIELDS = 9
_MOST_LOG = 2**16


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
        if esp and inside(lambda: guest_calls.mounted_from_disk("/etc/fstab")) != [esp]:
            raise UnsupportedError("the guest's /etc/fstab mounts other parts of its disk")
        before = self._machine_packages()
        self.say("Setting a random seed")
        inside(guest_calls.random_seed)
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
        inside(lambda: guest_calls.append_line(path, line.encode()))

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
        for path in inside(lambda: guest_calls.glob_expand(argument)):
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
        guest_calls.replace(here, f"{folder}/{secrets.token_hex(4)}", done.stdout)

    def do_hostname(self, name: str) -> None:
        self.say(f"Setting the hostname: {name}")
        own("/etc/hostname")
        own("/etc/hosts")
        inside(lambda: guest_calls.set_hostname(name))

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
        inside(lambda: guest_calls.mkdir_p(path))

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
        inside(lambda: guest_calls.touch(path))

    def do_truncate(self, path: str) -> None:
        self.say(f"Truncating: {path}")
        own(path)
        inside(lambda: guest_calls.truncate(path))

    def do_truncate_recursive(self, path: str) -> None:
        self.say(f"Recursively truncating: {path}")
        own(path)
        inside(lambda: guest_calls.truncate_recursive(path))

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
        inside(lambda: guest_calls.upload(source, target, mode))
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

    def _sh(self, command: str) -> None:
        """Run a shell command in the guest; its output goes to the log that is in the guest."""
        proxies = [f"export {name}={quote(value)}" for name, value in self.plan["proxies"]]
        prologue = "\n".join(proxies) + "\n"
        text = f"exec >>{quote(_LOG)} 2>&1\n{prologue}\n{command}\n"
        with guest_archives.given() if "apt" in command else nullcontext():
            status = self._shell(text, ())
        if status:
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
        return set(inside(lambda: guest_calls.package_versions("/var/lib/dpkg/status", pattern)))

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
        guest_calls.replace(
            path, f"{path}.guestfs{secrets.token_hex(3)}", "\n".join(lines).encode()
        )

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
    except guest_archives.SpoiledError as error:
        code, line = SPOILED, f"a kept package made apt fail: {error}"
    except (CommandFailedError, OSError, UnicodeDecodeError) as error:
        code, line = 1, f"virt-sysprep: error: {error}"
    if line:
        print(line, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
