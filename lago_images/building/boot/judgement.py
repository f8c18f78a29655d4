"""Judge a guest by the facts: what is wrong with it, and what to do about that."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lago_images.building.boot.console_signs import Fault
from lago_images.building.boot.inspection import Answers, Facts, Identity, Root, leased
from lago_images.building.customise.identities import in_every_machine
from lago_images.console import clean, human_size

# The part of a disk that partitions may leave unused at its end, and a file system for itself.
_UNUSED = 2**26
_OVERHEAD = 0.8
# Less than this part of the root file system is no room.
_ROOM = 0.01
# How systemd calls it where a unit did not get ready, or did not answer, in its time.
_LATE = frozenset(("timeout", "watchdog"))
_SENT = (
    "look for a client identifier, a DUID or a MAC address in the settings of its DHCP client; "
    "what it makes of the machine id, or keeps in a file, is removed after the commands of a spec "
    "that has any, such as touch /etc/hostname"
)
_CLEANED = (
    "give the spec a command, such as touch /etc/hostname: what only one machine may have is "
    "removed after the commands"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A reason not to release an image.

    Attributes:
        check: The name of what was judged.
        text: What is wrong.
        advice: What to do next.
        tail: The guest's own lines about it.
        is_starvation: Whether an emulated processor that gets no time shows it, too.
    """

    check: str
    text: str
    advice: str
    tail: tuple[str, ...] = ()
    is_starvation: bool = False

    def __str__(self) -> str:
        return f"{self.check}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was judged, by name, and the problems."""

    checks: tuple[str, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """By what a guest is judged, besides what it tells.

    Attributes:
        mac: The address of its network card.
        size: Bytes of the image's own disk, which it was started on a larger one than.
        grows: Whether the image's root file system has to grow; else only if something in the
            guest is there to make it grow.
        secrets: Files of the image with private keys or identities that no command names, as far
            as they are known.
        is_again: Whether it has started before, so that its identity is its own by now.
    """

    mac: str
    size: int
    grows: bool = False
    secrets: tuple[str, ...] = ()
    is_again: bool = False


def judge(facts: Facts, console: Sequence[Fault] | None, terms: Terms) -> Verdict:
    """Judge a guest that has started.

    Args:
        facts: What the guest tells.
        console: What its console shows of troubles; None if its kernel does not write there.
        terms: By what else.
    """
    checks = [] if console is None else ["console"]
    problems = [*_console(console or ()), *_starting(facts)]
    if facts.addresses is not None:
        checks.append("network")
        problems += _network(facts.addresses, terms.mac)
    answers = facts.answers
    if answers is not None:
        checks += ["units", *(["sshd"] if answers.sshd else [])]
        problems += [*_units(answers), *_sshd(answers.sshd), *_unclean(answers.recovered)]
        checks += map(clean, sorted(answers.logins))
        problems += _logins(answers.logins)
    if facts.greets is not None:
        checks.append("ssh")
        problems += _greeting(facts.greets)
    if not terms.is_again:
        problems += _left_over(set(terms.secrets).difference(answers.baked if answers else ()))
    if answers is not None and not terms.is_again:
        checks += ["identity", *([] if answers.early is None else ["first boot"])]
        checks.append("permissions")
        problems += [*_baked(answers.baked), *_first_boot(answers.early or "")]
        problems += _writable(answers.writable)
        if facts.root_used is not None and facts.root_total:
            checks.append("room")
            problems += _room(answers.root, facts.root_used, facts.root_total, terms)
        if answers.root and facts.root_total:
            checks += ["root grows"] if answers.grows or terms.grows else []
            problems += _grown(answers, answers.root, facts.root_total, terms)
    return Verdict(checks=tuple(checks), problems=tuple(problems))


def changed(first: Identity, again: Identity) -> Iterator[Problem]:
    """Yield what a machine did not keep over a restart."""
    pairs = (
        ("machine id", first.machine_id, again.machine_id),
        ("ssh host keys", first.host_keys, again.host_keys),
        ("DHCP client id", first.dhcp, again.dhcp),
    )
    for what, before, after in pairs:
        if before and before != after:
            yield Problem(
                check="second boot",
                text=f"the machine has another {what} than before"
                if after
                else f"the machine has lost its {what}",
                advice="look for a unit or a script that makes it at every boot",
            )


def shared(first: Identity, other: Identity) -> Iterator[Problem]:
    """Yield what two machines have in common that were made of one image."""
    pairs: tuple[tuple[str, object], ...] = (
        ("machine id", first.machine_id == other.machine_id and first.machine_id),
        ("ssh host keys", first.host_keys & other.host_keys),
        ("DHCP client id", first.dhcp & other.dhcp),
    )
    for what, common in pairs:
        if common:
            yield Problem(
                check="clones",
                text=f"two machines made of the image have the same {what}",
                advice=_CLEANED,
            )
    if sent := first.sent & other.sent:
        yield Problem(
            check="clones",
            text="two machines made of the image send DHCP servers the same "
            f"{', '.join(sorted(sent))}: they would get one address",
            advice=_SENT,
        )


def _left_over(files: Collection[str]) -> Iterator[Problem]:
    if files:
        yield Problem(
            check="identity",
            text=f"whoever has the image would have {in_every_machine(sorted(files))}",
            advice="delete what each machine is to make for itself; what all are to have is named "
            "by its path in a command of the spec, such as run-command chmod 600 FILE",
        )


def _console(faults: Sequence[Fault]) -> Iterator[Problem]:
    for fault in faults:
        yield Problem(check="console", text=str(fault), advice=fault.sign.advice)


def _starting(facts: Facts) -> Iterator[Problem]:
    if facts.is_starting:
        jobs = facts.answers.jobs if facts.answers else ()
        units = ", ".join(map(clean, jobs)) or "some of its units"
        yield Problem(
            check="units",
            text=f"systemd was still starting {units} when all other things were done",
            advice="a unit that never ends, such as a oneshot service without TimeoutStartSec=, "
            "keeps what waits for it from starting: look at what it waits for",
        )


def _network(addresses: Sequence[str], mac: str) -> Iterator[Problem]:
    if not leased(addresses):
        others = f"; it has {', '.join(map(clean, addresses))}" if addresses else ""
        yield Problem(
            check="network",
            text=f"no IPv4 address of DHCP's on the network card ({mac}){others}",
            advice="configure the first network card, whatever its name, for DHCP, and look for "
            "the addresses of another machine's card in the image",
        )


def _units(answers: Answers) -> Iterator[Problem]:
    for unit in answers.failed:
        name = clean(unit.name)
        last = f" ({clean(unit.journal[-1])})" if unit.journal else ""
        yield Problem(
            check="units",
            text=f"{name} {'took too long' if unit.result in _LATE else 'failed'}{last}",
            advice=f"repair it, or leave it out: run-command systemctl mask {name}",
            tail=tuple(f"{name}: {clean(line)}" for line in unit.journal),
            is_starvation=unit.result in _LATE,
        )


def _unclean(recovered: Sequence[str]) -> Iterator[Problem]:
    if recovered:
        yield Problem(
            check="shutdown",
            text=f"the guest did not unmount its file systems: {clean(recovered[0])}",
            advice="look for what is killed late at shutdown: its last lines are on the console",
            tail=tuple(map(clean, recovered)),
        )


def _first_boot(early: str) -> Iterator[Problem]:
    if early:
        yield Problem(
            check="first boot",
            text=f"commands of the first boot may run without a network: {clean(early)}",
            advice="enable what makes network-online.target wait, such as "
            "systemd-networkd-wait-online.service or ifupdown-wait-online.service",
        )


def _sshd(states: Sequence[str]) -> Iterator[Problem]:
    if "failed" in states:
        yield Problem(
            check="sshd",
            text="sshd is enabled and does not start: ssh -v cannot reach the guest",
            advice="look at its host keys, which each machine makes for itself at its first start, "
            "and at its configuration: sshd -t",
        )


def _greeting(greets: bool) -> Iterator[Problem]:
    if not greets:
        yield Problem(
            check="ssh",
            text="sshd runs, and nobody answers at the network card's port 22",
            advice="look at its Port and ListenAddress, and at the firewall",
        )


def _logins(logins: Mapping[str, bool]) -> Iterator[Problem]:
    for login, works in logins.items():
        if not works:
            yield Problem(
                check=clean(login),
                text="the spec documents it, and the guest does not take it",
                advice="of a password, look for what sets it again or locks the account; of a key, "
                "at the owners and modes of the home folder and .ssh",
            )


def _baked(files: Sequence[str]) -> Iterator[Problem]:
    if files:
        yield Problem(
            check="identity",
            text="every machine made of the image would have the same "
            + ", ".join(map(clean, files)),
            advice=_CLEANED,
        )


def _writable(files: Sequence[str]) -> Iterator[Problem]:
    if files:
        yield Problem(
            check="permissions",
            text=f"others than root may write to {', '.join(map(clean, files))}",
            advice="look at the modes and access control lists of what is copied into the image: "
            "run-command chmod go-w FILE",
        )


def _grown(answers: Answers, root: Root, total: int, terms: Terms) -> Iterator[Problem]:
    end = root.start + root.size
    if terms.grows and not answers.grows:
        yield Problem(
            check="root grows",
            text="nothing in the guest is there to grow its root file system, as bootstrap: "
            "images have it",
            advice="do not disable grow-root.service, or leave cloud-init's growpart on",
        )
    elif answers.grows and end < root.disk - _UNUSED:
        yield Problem(
            check="root grows",
            text=f"{root.device} ends at {human_size(end)} of a disk of {human_size(root.disk)}, "
            f"although {answers.grows} is there to grow it",
            advice="look at what that unit said, and whether the root partition is the last one",
        )
    elif answers.grows and total < root.size * _OVERHEAD:
        yield Problem(
            check="root grows",
            text=f"the root file system has {human_size(total)}, and its partition "
            f"{human_size(root.size)}, although {answers.grows} is there to grow it",
            advice="look at what that unit said",
        )


def _room(root: Root | None, used: int, total: int, terms: Terms) -> Iterator[Problem]:
    own: float = total
    # On a disk of the image's own size the partition ends with that, and the rest in proportion.
    if root:
        end = min(root.start + root.size, terms.size)
        own *= min(1, (end - root.start) / root.size)
    if own - used < own * _ROOM:
        yield Problem(
            check="room",
            text=f"the root file system is full: {human_size(used)} of {human_size(int(own))}",
            advice="remove what is not needed, or give the spec a larger size=",
        )
