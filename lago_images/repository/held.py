"""What operators took back: withdrawn, or passed over by a rollback."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

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
            gone = _withdrawn(earlier, release, taken_back)
        elif release.reason:
            # It brings back a build, and not what its spec would be built to today.
            gone = [] if release.revision in taken_back else _passed_over(earlier, release)
        else:
            gone = []
            found.pop(release.fingerprint, None)
        found |= {one.fingerprint: release for one in gone}
    return found


def _withdrawn(
    earlier: History, withdrawal: Release, taken_back: AbstractSet[int]
) -> list[Release]:
    """What a withdrawal is about, unless the same was released again between the two."""
    about = [one for one in earlier if one.revision == withdrawal.withdraws]
    since = {
        one.fingerprint
        for one in earlier
        for gone in about
        if one.revision > gone.revision
        and one.build is not None
        and not one.reason
        and one.revision not in taken_back
    }
    return [one for one in about if one.fingerprint not in since]


def _passed_over(earlier: History, rollback: Release) -> list[Release]:
    """What was released after the build that a rollback goes back to."""
    originals = [one.revision for one in earlier if one.build == rollback.build]
    first = max(originals, default=rollback.revision)
    return [one for one in earlier if one.build is not None and one.revision > first]
