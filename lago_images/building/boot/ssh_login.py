"""Log in to a guest by ssh, as who has a documented key would: by a key of ours beside it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lago_images.building.boot.guest_agent import ASK
from lago_images.building.boot.running import Guest
from lago_images.errors import BootError, CommandError
from lago_images.host.process import Runner, search_path

# Seconds that a login may take under emulation.
_LIMIT = 4 * ASK
_PROGRAMS = ("ssh", "ssh-keygen")
# Nothing of this host's: no settings, agent, display or list of hosts.
_CLIENT = ("ssh", "-F", "none", "-a", "-x", "-T", "-n")
_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=60",
    "GlobalKnownHostsFile=/dev/null",
    "IdentitiesOnly=yes",
    "LogLevel=ERROR",
    "PreferredAuthentications=publickey",
    "StrictHostKeyChecking=no",
    "UpdateHostKeys=no",
    "UserKnownHostsFile=/dev/null",
)
# By what a key begins with: RFC 4253, section 6.6. A hardened sshd takes no other than its users'.
_TYPES = {"AAAAB3NzaC1yc2E": "rsa", "AAAAE2VjZHNh": "ecdsa"}
_FILE = (
    'file=$(getent passwd "$1" | cut -d: -f6)/.ssh/authorized_keys; kept=/run/lago-images.keys; '
)
# Appended to, and written back in place, so that owner, mode and label stay.
_ADD = f'{_FILE}cp "$file" "$kept" && printf \'\\n%s\\n\' "$2" >>"$file"'
_TAKE = f'{_FILE}cat "$kept" >"$file" && rm -f "$kept"'


def is_let_in(guest: Guest, user: str, keys: Sequence[str], runner: Runner) -> bool | None:
    """Return whether sshd lets in who has a key in a user's ``authorized_keys``, to a command.

    None where that cannot be tried: by what this host has, or the guest's agent may do.

    Args:
        guest: Its sshd greets.
        user: Whom to log in as.
        keys: The user's own, in base64: ours is of the type of the first.
        runner: What starts OpenSSH's client.
    """
    port = guest.monitor.forwarded_port()
    path = search_path(runner.environ)
    if port is None or not all(shutil.which(program, path=path) for program in _PROGRAMS):
        runner.note(f"no login as {user} is tried: this host has no {' or no '.join(_PROGRAMS)}")
        return None
    options = [word for option in _OPTIONS for word in ("-o", option)]
    with TemporaryDirectory(dir=guest.watch.errors.parent, prefix="ssh-") as folder:
        key = Path(folder) / "key"
        make = ["ssh-keygen", "-q", "-t", key_type(keys), "-N", "", "-C", "test", "-f", str(key)]
        runner.run(make, doing="making a key for the boot test")
        login = [*_CLIENT, *options, "-i", str(key), "-p", str(port), "-l", user, "127.0.0.1"]
        try:
            with _added(guest, user, key.with_suffix(".pub").read_text().strip()):
                runner.run([*login, "true"], timeout=_LIMIT, doing=f"logging in as {user}")
        except CommandError as error:
            guest.check(patience=0)
            runner.note(error.message)
            return False
        except BootError as error:
            guest.check(patience=0)
            runner.note(f"no login as {user} is tried: {error}")
            return None
    return True


def key_type(keys: Sequence[str]) -> str:
    """Return the type of the first of some keys, as ssh-keygen calls it; of a token, its curve."""
    types = (kind for start, kind in _TYPES.items() if keys and keys[0].startswith(start))
    return next(types, "ed25519")


@contextmanager
def _added(guest: Guest, user: str, public: str) -> Iterator[None]:
    """Have one key more in a user's ``authorized_keys``; what was there is there afterwards."""
    _run(guest, _ADD, user, public)
    try:
        yield
    finally:
        _run(guest, _TAKE, user)


def _run(guest: Guest, script: str, *arguments: str) -> None:
    guest.agent.settle(timeout=ASK)
    guest.agent.run(("/bin/sh", "-c", script, "sh", *arguments), timeout=ASK)
