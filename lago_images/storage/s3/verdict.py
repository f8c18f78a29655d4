"""Judge a store by its answers to the probe: no I/O."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lago_images.storage.s3.etags import Abilities, Dialect

WRITTEN, MISMATCH = 200, 412


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Race holds the HTTP statuses of creators and replacers that wrote to one object at once.

    Attributes:
        rivals: Of the writers whose condition held when they began: one may succeed.
        misfits: Of those whose condition never holds: none may succeed.
        keeps_winner: The object has the bytes of the only writer that was answered 200.
    """

    rivals: tuple[int, ...]
    misfits: tuple[int, ...] = ()
    keeps_winner: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Findings holds the HTTP statuses of the probe's conditional writes.

    Attributes:
        create_again: If-None-Match on an object that exists.
        stale: If-Match with an ETag that is not the object's.
        absent: If-Match on a missing object; None if it was not asked.
        fresh_quoted: If-Match with the object's ETag, in quotes.
        fresh_bare: The same without quotes; None if it was not needed.
        creations: Races for an object that was missing, by If-None-Match, a round each; with
            If-Match for misfits.
        replacements: Races for an object that existed, by If-Match with its ETag, in the same
            rounds; with If-None-Match for misfits.
        abilities: Optional features that were seen at work.
        is_versioned: An answer to a write had a version id.
    """

    create_again: int
    stale: int
    absent: int | None = None
    fresh_quoted: int
    fresh_bare: int | None = None
    creations: tuple[Race, ...] = ()
    replacements: tuple[Race, ...] = ()
    abilities: Abilities = field(default_factory=Abilities)
    is_versioned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Verdict has the dialect ``PLAIN`` if the store is unsafe, and the reasons for that."""

    dialect: Dialect
    reasons: tuple[str, ...] = ()
    abilities: Abilities = field(default_factory=Abilities)
    is_versioned: bool = False

    @property
    def is_safe(self) -> bool:
        return self.dialect is not Dialect.PLAIN


def judge(findings: Findings) -> Verdict:
    """Decide whether a store that answered like this keeps conditional writes, in which form."""
    reasons = [
        *_sequential("If-None-Match: * on an object that exists", findings.create_again),
        *_sequential("If-Match with an outdated ETag", findings.stale),
        # Stores refuse this with 412 or 404. A release of MinIO took it for fulfilled.
        *(["If-Match on a missing object was answered 200"] if findings.absent == WRITTEN else []),
        *_fresh(findings),
        *_races(
            findings.creations,
            "created the same object",
            "If-Match on a missing object that others were creating",
        ),
        *_races(
            findings.replacements,
            "replaced the same version of an object",
            "If-None-Match: * on an object that others were replacing",
        ),
    ]
    dialect = Dialect.QUOTED if findings.fresh_quoted == WRITTEN else Dialect.BARE
    return Verdict(
        dialect=Dialect.PLAIN if reasons else dialect,
        reasons=tuple(reasons),
        abilities=findings.abilities,
        is_versioned=findings.is_versioned,
    )


def _sequential(request: str, status: int) -> list[str]:
    match status:
        case 412:
            return []
        case 200:
            return [f"{request} was answered 200, and the object was overwritten"]
        case 501:
            return [f"{request} was answered 501: the store does not have it"]
        case _:
            return [f"{request} was answered {status} instead of 412"]


def _fresh(findings: Findings) -> list[str]:
    if WRITTEN in {findings.fresh_quoted, findings.fresh_bare}:
        return []
    answers = Counter([findings.fresh_quoted, findings.fresh_bare or findings.fresh_quoted])
    statuses = " and ".join(str(status) for status in sorted(answers))
    return [f"If-Match with the object's own ETag was answered {statuses} instead of 200"]


def _races(races: Sequence[Race], action: str, misfit: str) -> Iterator[str]:
    most = max((race.rivals.count(WRITTEN) for race in races), default=0)
    if most > 1:
        writers = max(len(race.rivals) for race in races)
        yield f"{most} of {writers} simultaneous writers {action}, each answered 200"
    if any(WRITTEN in race.misfits for race in races):
        yield f"{misfit} was answered 200"
    if not all(race.keeps_winner for race in races):
        yield f"of writers who {action} one was answered 200, and another's bytes were kept"
