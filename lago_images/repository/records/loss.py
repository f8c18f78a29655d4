"""Record that an operator accepts the loss of release records that no copy is left of.

It brings nothing back: what the lost records said stays unknown, and no revision before them is
offered. It says who gave them up, when and why, so that nobody is told of them for ever.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from lago_images.errors import NotFoundError, RepositoryError
from lago_images.repository.records.fields import Arch, Name, Sha256
from lago_images.repository.records.gaps import Gap
from lago_images.repository.records.layout import LossKey, ReleaseKey, loss_key
from lago_images.repository.records.manifest import canonical
from lago_images.repository.records.parsing import (
    LARGEST,
    Count,
    DocumentError,
    Positive,
    Text,
    from_plain,
    parse_json,
)
from lago_images.repository.records.release import Released
from lago_images.storage.base import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedLoss:
    """The acceptance that the records of some revisions of an image are lost.

    Attributes:
        first: The first of the revisions.
        last: The last of them, all of which are lost.
        sha256: Of the bytes of the one record that is there and cannot be read; None where the
            records are missing. Of other bytes nothing was accepted.
        reason: Why; the operator's words.
        accepted: When, in whole seconds since the epoch.
        by: The person or CI run that accepted it, and what was checked out there.
    """

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a record of an accepted loss"

    name: Name
    arch: Arch
    first: Positive
    last: Positive
    reason: Text
    accepted: Count
    by: Released
    sha256: Sha256 | None = None

    @property
    def key(self) -> LossKey:
        return LossKey(name=self.name, arch=self.arch, first=self.first, last=self.last)

    def is_of(self, data: bytes) -> bool:
        """Return whether these bytes of a record are those that were looked at and given up."""
        return self.sha256 == hashlib.sha256(data).hexdigest()

    def to_json(self) -> bytes:
        return canonical({"schema": self.SCHEMA, **msgspec.to_builtins(self)})

    @classmethod
    def parse(cls, data: bytes, key: LossKey) -> "AcceptedLoss":
        """Read the record ``key``; raises ``RepositoryError`` with all that is wrong with it."""
        plain = parse_json(data, f"{key} is not {cls.WHAT}", largest=LARGEST)
        record = from_plain(plain, cls, str(key))
        problems = [] if record.key == key else [f"it is the record {record.key}"]
        if record.sha256 is not None and record.first != record.last:
            problems.append("it has one sha256 and is about several records")
        if not record.reason.strip():
            problems.append("it has no reason")
        if problems:
            raise DocumentError(str(key), cls.WHAT, problems)
        return record


def accepted_losses(
    store: Store, names: Iterable[str], damaged: Iterable[ReleaseKey]
) -> frozenset[LossKey]:
    """Return the acceptances among the names of objects.

    One that is about a damaged record counts for the very bytes that were given up: it and the
    record are read for that.
    """
    accepted = frozenset(loss for name in names if (loss := loss_key(name)))
    return frozenset(
        loss
        for loss in accepted
        if all(is_given_up(store, key, [loss]) for key in damaged if covers([loss], key))
    )


def is_given_up(
    store: Store, key: ReleaseKey, accepted: Iterable[LossKey], data: bytes | None = None
) -> bool:
    """Return whether the bytes of a damaged record are those that an operator gave up.

    ``data`` are the bytes, where they were read. What cannot be read accepts nothing.
    """
    loss = covers(accepted, key)
    if loss is None:
        return False
    try:
        found = store.get(str(key)).data if data is None else data
        return AcceptedLoss.parse(store.get(str(loss)).data, loss).is_of(found)
    except (NotFoundError, RepositoryError):
        return False


def covers(accepted: Iterable[LossKey], lost: Gap | ReleaseKey) -> LossKey | None:
    """Return the acceptance that all of a loss is in; None for none."""
    first, last = (lost.first, lost.last) if isinstance(lost, Gap) else (lost.revision,) * 2
    for each in accepted:
        if each.image == lost.image and each.first <= first and last <= each.last:
            return each
    return None
