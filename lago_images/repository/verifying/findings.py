"""Define the findings of ``repo verify``, and the sources that it looks at."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from lago_images.repository.records.layout import RELEASES, BuildFolder, owner
from lago_images.storage.base import Blob, Stat

REFRESH = "lago-images repo refresh"
RESTORE = "restore it from a copy"
_NO_COPY = "where no copy is left: lago-images repo accept-loss --help"
RESTORE_RECORD = (
    f"{RESTORE}, before any other repair: no revision before it is offered until then; {_NO_COPY}"
)
RESTORE_WITH_OTHERS = f"with the others: see {RELEASES}"
WENT_BACK = f"the repository went back in time: restore {RELEASES} from a newer copy"


class Severity(StrEnum):
    """The severity of a finding: with ``problem`` a client, or the next run, can come to harm."""

    PROBLEM = "problem"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Report one thing that is not as it should be.

    Attributes:
        where: The object, with a line where one is meant.
        what: What is wrong with it.
        repair: What to do about it.
        before_others: Whether that comes first: a record is lost, and what else is wrong may come
            of that.
    """

    severity: Severity
    where: str
    what: str
    repair: str
    before_others: bool = False


def problem(where: str, what: str, repair: str) -> Finding:
    return Finding(severity=Severity.PROBLEM, where=where, what=what, repair=repair)


def lost_record(where: str, what: str, repair: str) -> Finding:
    return replace(problem(where, what, repair), before_others=True)


def note(where: str, what: str, repair: str = "") -> Finding:
    return Finding(severity=Severity.NOTE, where=where, what=what, repair=repair)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Hold all that was found. A note keeps nothing from being ``ok``.

    ``images`` and ``versions`` are counted as the clients see them; ``read`` is the
    number of bytes of disks that were read.
    """

    url: str
    images: int
    versions: int
    read: int
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.PROBLEM)

    @property
    def ok(self) -> bool:
        return not self.problems

    def repaired_by(self, completed: Callable[[str], str]) -> "Report":
        """Return the report with the commands of its repairs completed by what knows the call."""
        findings = (replace(each, repair=completed(each.repair)) for each in self.findings)
        return replace(self, findings=tuple(findings))


def yank(name: str, arch: str, revision: int | None, *, reason: str) -> str:
    """Return the command that withdraws a revision; None stands for the newest one."""
    which = "" if revision is None else f" --revision {revision}"
    return f"lago-images repo yank {name} --arch {arch}{which} --reason '{reason}'"


def restore_or_withdraw(copy: BuildFolder, revisions: Sequence[int], reason: str) -> str:
    """Return what to do about a damaged public copy of these revisions, which one yank takes."""
    name, arch = copy.key.image
    newest = max(revisions, default=None)
    others = sorted(set(revisions) - {newest})
    # One build may have several revisions, which rollbacks made: they go together.
    also = f", which takes revision {' and '.join(map(str, others))} too" if others else ""
    command = yank(name, arch, newest, reason=reason)
    return f"restore {copy.folder} from a copy; or withdraw it: {command}{also}"


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return one finding for all that is wrong with one object and repaired in one way.

    Problems come before notes, and records that are lost before what may come of that.
    """
    alike: dict[Finding, dict[str, None]] = {}
    for each in findings:
        alike.setdefault(replace(each, what=""), {})[each.what] = None
    every: list[Finding] = []
    for finding, said in alike.items():
        # Only of a build's objects: those of a rendered file are told apart by what they say.
        texts = ["; ".join(said)] if owner(finding.where) else list(said)
        every += [replace(finding, what=text) for text in texts]
    return tuple(sorted(every, key=_turn))


def _turn(finding: Finding) -> tuple[bool, bool, str, str]:
    is_problem = finding.severity is Severity.PROBLEM
    return not is_problem, not finding.before_others, finding.where, finding.what


class Source(Protocol):
    """Read objects by their keys: a store, or a web server. See ``storage.base``."""

    @property
    def url(self) -> str: ...

    def head(self, key: str) -> Stat: ...

    def get(self, key: str) -> Blob: ...

    def read(self, key: str, *, start: int = 0) -> Iterator[bytes]: ...
