"""List the events of an image from the records in ``releases/``."""

from dataclasses import dataclass
from enum import StrEnum

from lago_images.repository.records.release import Release


class EventKind(StrEnum):
    """The kind of an event."""

    RELEASED = "released"
    WITHDRAWN = "withdrawn"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One record of an image's history.

    Attributes:
        kind: What happened.
        record: Who did it, when, from which commit and run, and why.
        about: The revision that was released, withdrawn, or whose build was rolled back to.
        before: The release that was the newest one standing until then; None for none. What
            changed with a release is its difference to this one.
    """

    kind: EventKind
    record: Release
    about: int
    before: Release | None


def events(history: tuple[Release, ...]) -> tuple[Event, ...]:
    """Return the events of one image, the oldest first, from its history as ``State`` has it."""
    happened = []
    # By revision, what stands so far. Releases are never deleted: a history may have thousands.
    stood: dict[int, Release] = {}
    for position, record in enumerate(history):
        before = next(reversed(stood.values()), None)
        kind, about = EventKind.RELEASED, record.revision
        if record.withdraws is not None:
            kind, about = EventKind.WITHDRAWN, record.withdraws
            stood.pop(record.withdraws, None)
        elif record.reason:
            # Only rollbacks and withdrawals have a reason. Its text names the revision for people.
            kind = EventKind.ROLLED_BACK
            earlier = history[:position]
            same = (each.revision for each in earlier if each.public == record.public)
            about = max(same, default=record.revision)
        if record.image is not None:
            stood[record.revision] = record
        happened.append(Event(kind=kind, record=record, about=about, before=before))
    return tuple(happened)
