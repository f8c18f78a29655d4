"""Hold a user namespace, and a network namespace in it, that programs enter one after another.

Its root is none of this host's users: a block of sub-ids (subuid(5)), also where root builds. What
gets out of it has the rights of a stranger with no files.
"""

import os
import pwd
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lago_images.errors import CommandError, Error
from lago_images.host.process import PIPE, Runner

# As many as a guest's own, whose nobody is 65534.
IDS = 65536
# Where root has no sub-ids: the last but one of those that systemd gives to containers
# (https://systemd.io/UIDS-GIDS). The last are of who makes namespaces for root.
_STRANGERS = 1879048192 - IDS
_ROOTS_FIRST = _STRANGERS - IDS
# libguestfs's appliance has 4788 of memory's making.
MOST_PROCESSES = 4096
_SUBIDS = (Path("/etc/subuid"), Path("/etc/subgid"))
_WAIT, _POLL = 20.0, 0.02
# What clouds tell a machine about itself, its keys among that: AWS, GCP, Azure and OpenStack;
# Azure's agent; Alibaba; Oracle.
METADATA = ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32")
# slirp4netns(1): its forwarder of names.
NAMES_AT = "10.0.2.3"


class UnavailableError(Error):
    """This host gives no namespaces that are safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The ids of this host that a namespace's ids from 0 stand for."""

    first_uid: int
    first_gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A user and a network namespace, as long as the process ``pid`` lives."""

    pid: int

    def prefix(self, *, network: bool = False) -> tuple[str, ...]:
        """Return a command's prefix: as root of the namespace, in its network or in the host's."""
        where = ("--net",) if network else ()
        return ("nsenter", f"--target={self.pid}", "--user", *where, "--")

    def runner(self, runner: Runner, *, network: bool = False) -> Runner:
        """Return a runner whose programs run in the namespace."""
        return replace(runner, prefix=(*runner.prefix, *self.prefix(network=network)))


def block() -> Block:
    """Return the sub-ids of who builds; raises ``UnavailableError`` where there are too few."""
    user = os.geteuid()
    uid, gid = (_first(file, user) for file in _SUBIDS)
    if uid is not None and gid is not None:
        return Block(first_uid=uid, first_gid=gid)
    if user == 0:
        return Block(first_uid=_ROOTS_FIRST, first_gid=_ROOTS_FIRST)
    raise UnavailableError(
        f"this user has no {IDS} sub-ids in /etc/subuid and /etc/subgid",
        hint="as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
    )


def _first(file: Path, user: int) -> int | None:
    try:
        names = {str(user), pwd.getpwuid(user).pw_name}
        lines = [line.split(":") for line in file.read_text("utf-8").splitlines()]
    except (KeyError, OSError, UnicodeDecodeError):
        return None
    for fields in lines:
        if fields[0] in names and len(fields) == 3 and all(map(str.isdecimal, fields[1:])):  # noqa: PLR2004
            first, count = map(int, fields[1:])
            if count >= IDS:
                return first
    return None


@contextmanager
def namespace(runner: Runner, ids: Block) -> Iterator[Namespace]:
    """Hold new user and network namespaces for the block.

    Raises:
        UnavailableError: The kernel, or its administrator, does not give them.
    """
    with _held(runner, [(0, ids.first_uid, ids.first_gid, IDS)]) as held:
        yield held


@contextmanager
def keeper(runner: Runner, ids: Block) -> Iterator[Namespace]:
    """Hold a namespace in which one's own files are root's, and the block's begin with 1."""
    mine = (0, os.geteuid(), os.getegid(), 1)
    with _held(runner, [mine, (1, ids.first_uid, ids.first_gid, IDS)]) as held:
        yield held


@contextmanager
def _held(runner: Runner, maps: Sequence[tuple[int, int, int, int]]) -> Iterator[Namespace]:
    argv = ["unshare", "--user", "--net", "--", "sh", "-c", "echo ready; read -r _"]
    # The limit at this moment bounds all users of the namespace together (user_namespaces(7)), but
    # not where this host's root makes it.
    limits = ["prlimit", f"--nproc={MOST_PROCESSES}", "--"]
    with runner.started([*_stranger(), *limits, *argv], stdin=PIPE, stdout=PIPE) as child:
        assert child.stdout is not None  # noqa: S101 -- PIPE was asked for
        if child.stdout.readline().strip() != b"ready":
            raise UnavailableError("this host gives users no namespaces (unshare --user --net)")
        try:
            _map(runner, child.pid, maps)
        except (CommandError, OSError) as error:
            raise UnavailableError(f"sub-ids cannot be used here: {error}") from error
        yield Namespace(pid=child.pid)


def _stranger() -> tuple[str, ...]:
    """Return the prefix by which root is nobody of this host while it makes a namespace.

    Another nobody each time: of what one made, all processes count together, and a build that uses
    them up leaves none to those beside it.
    """
    if os.geteuid() != 0:
        return ()
    other = _STRANGERS + secrets.randbelow(IDS)
    return ("setpriv", f"--reuid={other}", f"--regid={other}", "--clear-groups", "--")


def _map(runner: Runner, pid: int, maps: Sequence[tuple[int, int, int, int]]) -> None:
    for number, (name, program) in enumerate((("gid_map", "newgidmap"), ("uid_map", "newuidmap"))):
        wanted = [(each[0], each[2 - number], each[3]) for each in maps]
        if os.geteuid() == 0:
            lines = "".join(f"{inner} {outer} {count}\n" for inner, outer, count in wanted)
            Path(f"/proc/{pid}/{name}").write_text(lines, encoding="ascii")
        else:
            numbers = [str(value) for each in wanted for value in each]
            runner.capture([program, str(pid), *numbers], doing="mapping sub-ids")


@contextmanager
def networked(
    runner: Runner, held: Namespace, allowed: frozenset[str] = frozenset()
) -> Iterator[None]:
    """Connect a namespace to the network of the host: not to its loopback, addresses or cloud.

    Args:
        runner: Starts slirp4netns and ip.
        held: The namespace.
        allowed: Addresses of this host that may be reached all the same.

    Raises:
        UnavailableError: It cannot be connected.
    """
    # As root of the namespace it has none of the rights of who builds, either.
    # fmt: off
    argv = [
        *held.prefix(), "slirp4netns",
        "--configure",
        "--mtu=65520",
        "--disable-host-loopback",
        "--enable-sandbox",
        "--enable-seccomp",
        "--netns-type=path", f"/proc/{held.pid}/ns/net", "tap0",
    ]
    # fmt: on
    with runner.started(argv) as child:
        limit = time.monotonic() + _WAIT
        while not _has_route(held.pid):
            if child.poll() is not None or time.monotonic() > limit:
                raise UnavailableError("slirp4netns cannot connect a namespace to the network")
            runner.children.pause(_POLL)
        closed = [*METADATA, *(f"{each}/32" for each in own_addresses(runner) - allowed)]
        batch = "".join(f"route add prohibit {network}\n" for network in closed)
        _ip(runner, held, batch)
        yield


def loopback(runner: Runner, held: Namespace) -> None:
    """Bring up a namespace's own loopback interface, as the appliance has it."""
    _ip(runner, held, "link set lo up\n")


def _ip(runner: Runner, held: Namespace, batch: str) -> None:
    argv = [*held.prefix(network=True), "ip", "-batch", "-"]
    try:
        runner.capture(argv, stdin=batch.encode(), doing="setting up a namespace's network")
    except CommandError as error:
        raise UnavailableError(f"a namespace's network cannot be set up: {error}") from error


def own_addresses(runner: Runner) -> frozenset[str]:
    """Return this host's IPv4 addresses but its loopback's; raises ``UnavailableError``."""
    try:
        out = runner.capture(["ip", "-4", "-oneline", "address"], doing="asking for addresses")
    except CommandError as error:
        raise UnavailableError(f"this host's addresses are not known: {error}") from error
    addresses = (line.split()[3].partition("/")[0] for line in out.decode().splitlines())
    return frozenset(each for each in addresses if not each.startswith("127."))


def _has_route(pid: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/net/route").read_text("ascii").splitlines()[1:]
    except OSError:
        return False
    return any(line.split()[1] == "00000000" for line in lines)
