"""Accept, on record, that release records are lost for good. Nothing is deleted by that."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lago_images.errors import ConflictError, NotFoundError, UsageError
from lago_images.repository.publishing.publisher import Publisher
from lago_images.repository.publishing.withdrawals import arch_of
from lago_images.repository.records.gaps import Gap
from lago_images.repository.records.layout import ImageId, LossKey, ReleaseKey, headers
from lago_images.repository.records.loss import AcceptedLoss
from lago_images.repository.records.release import Released
from lago_images.repository.records.state import read
from lago_images.storage.base import Store

_VERIFY = "lago-images repo verify lists what is lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Name release records that are lost, and that nobody has accepted yet.

    Attributes:
        key: Where the acceptance goes.
        what: What is lost, in words.
        sha256: Of the record that is there and cannot be read; None where they are missing.
    """

    key: LossKey
    what: str
    sha256: str | None = None


def look_at_losses(
    store: Store, name: str, *, arch: str = "", revisions: Sequence[int] = ()
) -> tuple[Lost, ...]:
    """Return what an image has lost: all of it, or that which the revisions are among.

    Raises ``UsageError`` for an unknown image, and for a revision, or an image, that lost nothing.
    """
    image = ImageId(name, arch_of(store, name, arch))
    state = read(store)
    missing = [_missing(gap) for gap in state.missing_unaccepted if gap.image == image]
    damaged = [
        _damaged(store, key, why)
        for key, why in state.damaged_unaccepted.items()
        if key.image == image
    ]
    every = sorted([*missing, *damaged], key=lambda lost: lost.key)
    for revision in revisions:
        if not any(_has(lost.key, revision) for lost in every):
            raise UsageError(
                f"the record of revision {revision} of {image} is not lost, or was accepted",
                hint=_VERIFY,
            )
    chosen = [
        lost
        for lost in every
        if not revisions or any(_has(lost.key, number) for number in revisions)
    ]
    if not chosen:
        raise UsageError(f"{image} has no lost record that is still to be accepted", hint=_VERIFY)
    return tuple(chosen)


def _has(key: LossKey, revision: int) -> bool:
    return key.first <= revision <= key.last


def _missing(gap: Gap) -> Lost:
    until = "" if gap.first == gap.last else f", as are all up to revision {gap.last}"
    key = LossKey(name=gap.name, arch=gap.arch, first=gap.first, last=gap.last)
    return Lost(key=key, what=f"{gap.key} is missing{until}")


def _damaged(store: Store, key: ReleaseKey, why: str) -> Lost:
    at = LossKey(name=key.name, arch=key.arch, first=key.revision, last=key.revision)
    try:
        data = store.get(str(key)).data
    except NotFoundError:
        return Lost(key=at, what=f"{key} is missing")
    return Lost(key=at, what=why, sha256=hashlib.sha256(data).hexdigest())


def accept(
    publisher: Publisher, losses: Iterable[Lost], *, reason: str, by: Released
) -> tuple[AcceptedLoss, ...]:
    """Record that losses are accepted, and return the records.

    Raises:
        ConflictError: Somebody accepted one of them at the same time; what comes before is done.
    """
    made = []
    for lost in losses:
        record = AcceptedLoss(
            name=lost.key.name,
            arch=lost.key.arch,
            first=lost.key.first,
            last=lost.key.last,
            sha256=lost.sha256,
            reason=reason,
            accepted=int(publisher.now()),
            by=by,
        )
        place = str(lost.key)
        try:
            publisher.store.put(place, record.to_json(), expected=None, headers=headers(place))
        except ConflictError as error:
            error.hint = f"somebody else accepted it: see {place}"
            raise
        made.append(record)
    return tuple(made)
