"""What operators took back: withdrawn, or passed over by a rollback."""

from collections.abc import Mapping

from lago_images.repository.release import Release
from lago_images.repository.state import withdrawn

History = tuple[Release, ...]


def held(history: History) -> Mapping[str, Release]:
    """The fingerprints that were taken back and not released since, each with what did it.

    Without this the next plan would build again, or a publisher that planned before would
    publish, what an operator has just taken back.
    """
    found: dict[str, Release] = {}
    taken_back = withdrawn(history)
    for position, release in enumerate(history):
        earlier = history[:position]
        if release.withdraws is not None:
            gone = [one for one in earlier if one.revision == release.withdraws]
        else:
            rolls_back = release.reason and release.revision not in taken_back
            gone = _passed_over(earlier, release) if rolls_back else []
        found |= {one.fingerprint: release for one in gone}
        found.pop(release.fingerprint, None)
    return found


def _passed_over(earlier: History, rollback: Release) -> list[Release]:
    """What was released after the build that a rollback goes back to."""
    originals = [one.revision for one in earlier if one.build == rollback.build]
    first = max(originals, default=rollback.revision)
    return [one for one in earlier if one.build is not None and one.revision > first]
