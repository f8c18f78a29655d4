"""Tell what happened to an image, event by event, from the records in ``releases/``."""

from dataclasses import dataclass
from enum import StrEnum

from lago_images.repository.records.release import Release
from lago_images.repository.records.state import standing


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
        about: The revision that was released, withdrawn, or whose build was gone back to.
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
    for position, record in enumerate(history):
        earlier = history[:position]
        stood = standing(earlier)
        kind, about = EventKind.RELEASED, record.revision
        if record.withdraws is not None:
            kind, about = EventKind.WITHDRAWN, record.withdraws
        elif record.reason:
            # Only rollbacks and withdrawals have a reason. Its text names the revision for people.
            kind = EventKind.ROLLED_BACK
            same = (each.revision for each in earlier if each.public == record.public)
            about = max(same, default=record.revision)
        before = stood[-1] if stood else None
        happened.append(Event(kind=kind, record=record, about=about, before=before))
    return tuple(happened)
