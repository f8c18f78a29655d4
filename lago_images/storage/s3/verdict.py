"""Judging a store by its answers to the probe: no I/O."""

from collections import Counter
from dataclasses import dataclass, field

from lago_images.storage.s3.etags import Abilities, Dialect

WRITTEN, MISMATCH = 200, 412


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """HTTP statuses of the probe's conditional writes.

    Attributes:
        create_again: If-None-Match on an object that exists.
        stale: If-Match with an ETag that is not the object's.
        fresh_quoted: If-Match with the object's ETag, in quotes.
        fresh_bare: The same without quotes; None if it was not needed.
        creators: A round of simultaneous creations of one key: each writer's status.
        replacers: A round of simultaneous replacements of one version: each writer's status.
        abilities: Optional features that were seen at work.
        is_versioned: An answer to a write had a version id.
    """

    create_again: int
    stale: int
    fresh_quoted: int
    fresh_bare: int | None = None
    creators: tuple[tuple[int, ...], ...] = ()
    replacers: tuple[tuple[int, ...], ...] = ()
    abilities: Abilities = field(default_factory=Abilities)
    is_versioned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``dialect`` is ``PLAIN`` if the store is unsafe; ``reasons`` then say what it did."""

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
        *_fresh(findings),
        *_race("created the same object", findings.creators),
        *_race("replaced the same version of an object", findings.replacers),
    ]
    dialect = Dialect.QUOTED if findings.fresh_quoted == WRITTEN else Dialect.BARE
    return Verdict(
        dialect=Dialect.PLAIN if reasons else dialect,
        reasons=tuple(reasons),
        abilities=findings.abilities,
        is_versioned=findings.is_versioned,
    )


def _sequential(what: str, status: int) -> list[str]:
    match status:
        case 412:
            return []
        case 200:
            return [f"{what} was answered 200, and the object was overwritten"]
        case 501:
            return [f"{what} was answered 501: the store does not have it"]
        case _:
            return [f"{what} was answered {status} instead of 412"]


def _fresh(findings: Findings) -> list[str]:
    if WRITTEN in {findings.fresh_quoted, findings.fresh_bare}:
        return []
    answers = Counter([findings.fresh_quoted, findings.fresh_bare or findings.fresh_quoted])
    statuses = " and ".join(str(status) for status in sorted(answers))
    return [f"If-Match with the object's own ETag was answered {statuses} instead of 200"]


def _race(what: str, rounds: tuple[tuple[int, ...], ...]) -> list[str]:
    most = max((one.count(WRITTEN) for one in rounds), default=0)
    if most <= 1:
        return []
    return [f"{most} of {max(map(len, rounds))} simultaneous writers {what}, each answered 200"]
