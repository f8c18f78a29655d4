"""List the identities and private keys that packages make once, and make them anew at boot.

A package script runs when the image is built, so what it makes up would be the same in every
clone. Each image loses these files; what their own service does not make anew, a unit does.
"""

import posixpath
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lago_images.console import clean, first_of
from lago_images.specs.commands import SELECTORS
from lago_images.specs.model import Operation

LIBRARY = "/usr/local/lib/lago-images"
RENEW = f"{LIBRARY}/renew-identities"
UNITS = "/etc/systemd/system"
RENEW_UNIT = f"{UNITS}/renew-identities.service"
SSH_UNIT = f"{UNITS}/ssh-host-keys.service"
SSH_KEYS = "/etc/ssh/ssh_host_*"
WAIT_FOR_NETWORK = f"{UNITS}/guestfs-firstboot.service.d/network-online.conf"
# Every unit that comes into an image, with the target that starts it.
WANTED_BY = {RENEW_UNIT: "sysinit.target", SSH_UNIT: "multi-user.target"}

_HERE = Path(__file__).parent
# Files that one message names.
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Describe what a package makes once a machine.

    Attributes:
        files: Shell patterns of the files.
        renew: The function in ``renew-identities.sh`` that makes them anew, empty where the
            service that uses them does so by itself when they are missing.
    """

    files: tuple[str, ...]
    renew: str = ""


IDENTITIES = (
    Identity(files=("/etc/iscsi/initiatorname.iscsi",), renew="iscsi"),
    Identity(files=("/etc/nvme/hostnqn", "/etc/nvme/hostid"), renew="nvme_host"),
    Identity(files=("/etc/dropbear/dropbear_*_host_key*",), renew="dropbear_keys"),
    Identity(
        files=(
            "/etc/dropbear/initramfs/dropbear_*_host_key*",
            "/etc/dropbear-initramfs/dropbear_*_host_key*",
        ),
        renew="dropbear_initramfs_keys",
    ),
    Identity(
        files=(
            "/etc/ssl/private/ssl-cert-snakeoil.key",
            "/etc/ssl/certs/ssl-cert-snakeoil.pem",
        ),
        renew="snakeoil",
    ),
    Identity(files=("/etc/bind/rndc.key",), renew="bind_key"),
    Identity(files=("/etc/munge/munge.key",), renew="munge_key"),
    # RHEL's named, httpd (mod_ssl), unbound; cockpit; all of them at their start.
    Identity(files=("/etc/rndc.key", "/etc/pki/tls/private/localhost.key")),
    Identity(files=("/etc/unbound/unbound_server.key", "/etc/unbound/unbound_control.key")),
    Identity(files=("/etc/cockpit/ws-certs.d/0-self-signed*",)),
    Identity(files=("/var/lib/mysql/auto.cnf", "/var/lib/mysql/*-key.pem")),
    Identity(files=("/var/lib/mysql/private_key.pem", "/var/lib/mysql/public_key.pem")),
    Identity(files=("/var/lib/NetworkManager/secret_key", "/var/lib/rabbitmq/.erlang.cookie")),
    Identity(files=("/var/lib/systemd/credential.secret", "/etc/docker/key.json")),
    Identity(files=("/etc/openvswitch/system-id.conf", "/etc/salt/minion_id")),
    Identity(files=("/etc/salt/pki/minion/minion.p*",)),
    # dhcpcd(8): what it tells DHCP servers apart by.
    Identity(files=("/var/lib/dhcpcd/duid", "/var/lib/dhcpcd/secret")),
    Identity(files=("/etc/dhcpcd.duid", "/etc/dhcpcd.secret")),
)


def patterns(*, renewed: bool) -> tuple[str, ...]:
    """Return the files' patterns: of those that our unit renews, or of those that need none."""
    return tuple(path for each in IDENTITIES if bool(each.renew) is renewed for path in each.files)


def guest_files() -> dict[str, tuple[str, int]]:
    """Return the files by which a guest makes its own identities: text and mode, by path."""
    return {
        RENEW: (_text("renew-identities.sh"), 0o755),
        RENEW_UNIT: (_text("renew-identities.service"), 0o644),
        SSH_UNIT: (_text("ssh-host-keys.service"), 0o644),
    }


def finish_script(operations: Iterable[Operation] = (), users: Iterable[str] = ()) -> str:
    """Return ``finish.sh`` with what it is given, to be followed by a call of its functions.

    Args:
        operations: The spec's commands.
        users: Those whose passwords the spec sets.
    """
    given = {
        "IDENTITIES": " ".join(patterns(renewed=False)),
        "RENEWED": " ".join(patterns(renewed=True)),
        # Not the selectors: they may be passwords, and name no file of the guest.
        "SPEC": "\n".join(each.argument for each in operations if each.name not in SELECTORS),
        "USERS": "\n".join(users),
    }
    first, rest = _text("finish.sh").split("\n", 1)
    lines = [f"{name}={shlex.quote(text)}" for name, text in given.items()]
    return "\n".join((first, *lines, _place_units(), rest))


def _place_units() -> str:
    """Return the shell function that writes our units into a guest."""
    lines = ["place_units() {"]
    for path, (text, mode) in guest_files().items():
        lines += _written(path, text, mode)
    for path, target in WANTED_BY.items():
        wants = f"{UNITS}/{target}.wants"
        lines += [f"mkdir -p {wants}", f"ln -sf {path} {wants}/"]
    lines.append("if [ -e /usr/lib/virt-sysprep/firstboot.sh ]; then")
    lines += _written(WAIT_FOR_NETWORK, wait_for_network(), 0o644)
    return "\n".join((*lines, "fi", "}"))


def _written(path: str, text: str, mode: int) -> list[str]:
    # A link in its place, which could lead anywhere, is not followed.
    return [
        f"mkdir -p {path.rpartition('/')[0]}",
        f"rm -f {path}",
        f"printf %s {shlex.quote(text)} >{path}",
        f"chmod {mode:o} {path}",
    ]


def wait_for_network() -> str:
    """Return the drop-in by which first-boot commands wait for the network."""
    return _text("network-online.conf")


def not_named(operations: Iterable[Operation], paths: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns that no command names: what a spec puts there is meant to be there."""
    text = "\n".join(operation.argument for operation in operations)
    # A shell's pattern as a regular expression.
    shapes = {path: re.escape(path).replace(r"\*", r"[^\s/]*") for path in paths}
    return tuple(path for path, shape in shapes.items() if not re.search(shape, text))


def unnamed(operations: Sequence[Operation], files: Iterable[str]) -> tuple[str, ...]:
    """Return the files of the guest that no command names, nor copies in with their folder."""
    copied = [f"{_copied_to(each)}/" for each in operations if each.name == "copy-in"]
    left = not_named(operations, files)
    return tuple(path for path in left if not any(map(path.startswith, copied)))


def in_every_machine(files: Iterable[str]) -> str:
    """Return the words for private keys and identities that an image has, a few by their names."""
    named = first_of([*map(clean, files)], _SHOWN)
    return f"these private keys or identities, and every machine made of it the same: {named}"


def _copied_to(operation: Operation) -> str:
    source, _, folder = operation.argument.partition(":")
    return posixpath.normpath(posixpath.join(folder, posixpath.basename(source.rstrip("/"))))


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
