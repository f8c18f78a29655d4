"""Ask a guest that has started for the facts by which it is judged."""

import re
import shlex
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lago_images.building.boot import ssh_login
from lago_images.building.boot.guest_agent import ASK
from lago_images.building.boot.running import LEASED, Guest
from lago_images.building.customise.identities import finish_script
from lago_images.errors import BootError
from lago_images.host.process import Runner
from lago_images.specs.logins import NONE, Logins

# Seconds that a script may take under emulation.
SCRIPT = 4 * ASK
_SECTOR = 512
_GREETING = 10.0
# What a guest may tell: it goes into messages and records, and no honest one has as much to say.
_MOST_LINES, _LONGEST_LINE = 2000, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedUnit:
    """A unit of systemd's that failed, how, and its last lines in the journal.

    Attributes:
        result: As systemd has it, such as ``exit-code`` or ``timeout``; empty where it is not told.
    """

    name: str
    result: str = ""
    journal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What no two machines may have in common, and one keeps for its life.

    Attributes:
        machine_id: Of systemd; empty without.
        host_keys: The public keys of sshd.
        dhcp: The identifiers that its DHCP client made.
        sent: By what its DHCP clients made themselves known on the network when it first started,
            as ``dhcp_packets.identities`` names it.
    """

    machine_id: str = ""
    host_keys: frozenset[str] = frozenset()
    dhcp: frozenset[str] = frozenset()
    sent: frozenset[str] = frozenset()


NOBODY = Identity()


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Where the root partition is; in bytes.

    Attributes:
        disk: The size of its disk.
    """

    device: str
    start: int
    size: int
    disk: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The facts that programs in the guest tell.

    Attributes:
        failed: Units that failed.
        jobs: Units that were still being started.
        early: Why the first boot's commands may run before there is a network; empty if they wait,
            None if there are none.
        recovered: The kernel's lines about file systems that were not unmounted before.
        sshd: The states of the enabled units of sshd.
        root: None where it is on no partition.
        grows: Who promises that the root file system grows; empty for nobody.
        baked: Files that make a machine itself and were in the image.
        writable: Files in /etc that others than root may write to.
        logins: Whether the documented ones work, such as ``password of root``, as far as the guest
            can tell.
    """

    failed: tuple[FailedUnit, ...] = ()
    jobs: tuple[str, ...] = ()
    early: str | None = None
    recovered: tuple[str, ...] = ()
    sshd: tuple[str, ...] = ()
    root: Root | None = None
    grows: str = ""
    identity: Identity = NOBODY
    baked: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    logins: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is known of a guest that has started.

    Attributes:
        answers: None where the agent may not run programs.
        is_starting: Whether systemd was still starting units when it was waited for no longer.
        addresses: Of the network card; None where the agent does not tell.
        root_used: Bytes that the root file system's files take; None where the agent does not tell.
        root_total: Bytes that they may take.
        greets: Whether sshd greets who comes from outside; None where nobody tried.
    """

    answers: Answers | None = None
    is_starting: bool = False
    addresses: tuple[str, ...] | None = None
    root_used: int | None = None
    root_total: int | None = None
    greets: bool | None = None


def inspect(
    guest: Guest, runner: Runner, logins: Logins = NONE, *, is_again: bool = False
) -> Facts:
    """Wait until a guest has started all of its units and has an address, and ask it for the facts.

    Args:
        guest: Its agent answers.
        runner: Its log gets what could not be asked.
        logins: The documented ones.
        is_again: Whether the machine has started before: what it was made of is known then.

    Raises:
        BootError: The guest came to an end meanwhile.
    """
    is_starting = _wait_for_units(guest, runner)
    addresses = _wait_for_address(guest, runner)
    call = script("inspect_again" if is_again else "inspect", logins)
    answers = _answers(guest, call, runner)
    used, total = _root_bytes(guest, runner)
    greets = None
    if answers and leased(addresses or ()) and set(answers.sshd) & {"active", "socket"}:
        greets = _wait_for_greeting(guest)
    if answers and greets:
        answers = _tried_keys(guest, answers, logins, runner)
    return Facts(
        answers=answers,
        is_starting=is_starting,
        addresses=addresses,
        root_used=used,
        root_total=total,
        greets=greets,
    )


def script(call: str, logins: Logins = NONE) -> str:
    """Return the script that is run in the guest, with the call of one of its functions."""
    given = {
        "PASSWORDS": "\n".join(f"{user}:{text}" for user, text in logins.passwords.items()),
        "KEYS": "\n".join(f"{user} {' '.join(keys)}" for user, keys in logins.keys.items()),
        "LEASED": LEASED,
    }
    lines = [f"{name}={shlex.quote(text)}" for name, text in given.items()]
    text = Path(__file__).with_name("inspect.sh").read_text(encoding="utf-8")
    return "\n".join((finish_script(), *lines, text, call, "exit 0\n"))


def parse(text: str) -> Answers:
    """Read what ``inspect.sh`` prints."""
    failed: list[FailedUnit] = []
    values: dict[str, list[str]] = {}
    for line in text.splitlines()[:_MOST_LINES]:
        name, _, value = line[:_LONGEST_LINE].partition(" ")
        if name == "unit":
            failed.append(FailedUnit(name=value))
        elif name == "result" and failed:
            failed[-1] = replace(failed[-1], result=value)
        elif name == "journal" and failed:
            failed[-1] = replace(failed[-1], journal=(*failed[-1].journal, value))
        else:
            values.setdefault(name, []).append(value)

    def all_of(name: str) -> tuple[str, ...]:
        return tuple(values.get(name, ()))

    return Answers(
        failed=tuple(failed),
        jobs=all_of("job"),
        early=" ".join(all_of("first-boot")) if "first-boot" in values else None,
        recovered=all_of("recovered"),
        sshd=all_of("sshd"),
        root=_root(all_of("root")),
        grows=" ".join(all_of("grows")),
        identity=Identity(
            machine_id=" ".join(all_of("machine-id")),
            host_keys=frozenset(all_of("host-key")),
            dhcp=frozenset(all_of("dhcp-duid")),
        ),
        baked=tuple(sorted(set(all_of("baked")))),
        writable=tuple(sorted(set(all_of("writable")))),
        logins={
            **dict.fromkeys(all_of("login-works"), True),
            **dict.fromkeys(all_of("login-fails"), False),
        },
    )


def _root(values: Sequence[str]) -> Root | None:
    match = re.fullmatch(r"(\S+) (\d+) (\d+) (\d+)", values[0]) if values else None
    if match is None:
        return None
    start, size, disk = (int(number) * _SECTOR for number in match.groups()[1:])
    return Root(device=match[1], start=start, size=size, disk=disk)


def _wait_for_units(guest: Guest, runner: Runner) -> bool:
    """Return whether systemd is still starting units when that has taken too long."""
    try:
        return not guest.agent.wait_for_units(guest.watch.limit)
    except BootError as error:
        guest.check(patience=0)
        runner.note(f"the guest agent did not say whether systemd is done: {error}")
        return False


def _wait_for_address(guest: Guest, runner: Runner) -> tuple[str, ...] | None:
    found: tuple[str, ...] = ()

    def has_address() -> bool:
        nonlocal found
        guest.agent.settle(timeout=ASK)
        interfaces = guest.agent.ask("guest-network-get-interfaces", timeout=ASK)
        found = addresses(interfaces, guest.mac)
        return bool(leased(found))

    try:
        guest.agent.until(has_address, guest.watch.limit / 4)
    except BootError as error:
        guest.check(patience=0)
        runner.note(f"the guest agent did not list its addresses: {error}")
        return None
    return found


def addresses(interfaces: Sequence[Mapping[str, Any]], mac: str) -> tuple[str, ...]:
    """Return the IPv4 addresses of a network card, or of a bridge or bond with its address."""
    return tuple(
        address["ip-address"]
        for interface in interfaces
        if interface.get("hardware-address", "").lower() == mac
        for address in interface.get("ip-addresses", ())
        if address["ip-address-type"] == "ipv4"
    )


def leased(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return those addresses that DHCP gave, and no configuration."""
    return tuple(each for each in addresses if re.fullmatch(LEASED, each))


def _answers(guest: Guest, call: str, runner: Runner) -> Answers | None:
    try:
        guest.agent.settle(timeout=ASK)
        text = guest.agent.run(("/bin/sh", "-c", call), timeout=SCRIPT).decode(errors="replace")
    except BootError as error:
        guest.check(patience=0)
        runner.note(f"the guest agent did not look inside: {error}")
        return None
    for line in text.splitlines():
        runner.note(f"guest: {line}")
    return parse(text)


def _root_bytes(guest: Guest, runner: Runner) -> tuple[int | None, int | None]:
    try:
        guest.agent.settle(timeout=ASK)
        filesystems = guest.agent.ask("guest-get-fsinfo", timeout=ASK)
    except BootError as error:
        guest.check(patience=0)
        runner.note(f"the guest agent did not list its file systems: {error}")
        return None, None
    for each in filesystems:
        if each.get("mountpoint") == "/":
            return each.get("used-bytes"), each.get("total-bytes")
    return None, None


def _tried_keys(guest: Guest, answers: Answers, logins: Logins, runner: Runner) -> Answers:
    """Return the answers with what logins by a key in the place of the documented ones told."""
    tried = {
        name: works
        for user, keys in logins.keys.items()
        if answers.logins.get(name := f"key of {user}")
        and (works := ssh_login.is_let_in(guest, user, keys, runner)) is not None
    }
    return replace(answers, logins={**answers.logins, **tried})


def _wait_for_greeting(guest: Guest) -> bool | None:
    """Return whether sshd greets who comes by the network; None where it is not forwarded."""
    port = guest.monitor.forwarded_port()
    if port is None:
        return None
    return guest.agent.until(lambda: _greets(port), guest.watch.limit / 4)


def _greets(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), _GREETING) as ssh:
        return ssh.recv(4) == b"SSH-"
    return False
