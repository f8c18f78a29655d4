"""Judge an image's releases: which of them stand, what was taken back, for which commit each is."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeVar

from lago_images.repository.records.outline import ImageOutline
from lago_images.repository.records.release import Release, ReleasedImage


class _WithCommit(Protocol):
    @property
    def commit(self) -> str: ...
    @property
    def dirty(self) -> bool: ...


class Recorded(Protocol):
    """What histories are judged by: of a ``Release``, or of its outline."""

    @property
    def revision(self) -> int: ...
    @property
    def image(self) -> ReleasedImage | ImageOutline | None: ...
    @property
    def released(self) -> _WithCommit: ...
    @property
    def withdraws(self) -> int | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def build(self) -> str | None: ...
    @property
    def fingerprint(self) -> str: ...


R = TypeVar("R", bound=Recorded)

# An image's releases and withdrawals, ascending by revision.
History = tuple[Release, ...]


def withdrawn(history: Iterable[Recorded]) -> frozenset[int]:
    """Return the revisions that a history takes back."""
    return frozenset(release.withdraws for release in history if release.withdraws is not None)


def standing(history: tuple[R, ...]) -> tuple[R, ...]:
    """Return the releases of a history that name a build and were not withdrawn."""
    taken_back = withdrawn(history)
    return tuple(r for r in history if r.image is not None and r.revision not in taken_back)


def deciding_commit(release: R, history: tuple[R, ...]) -> str:
    """Return the commit that a release stands for when commits are compared.

    An operator's release stands for what it takes away or passes over, whatever the operator had
    checked out: older commits that finish late must not replace it.
    """
    # Strictly downwards: each turn leads to an earlier revision, so this ends.
    while release.withdraws is not None or release.reason:
        earlier = tuple(each for each in history if each.revision < release.revision)
        if release.withdraws is not None:
            replaced = [each for each in earlier if each.revision == release.withdraws]
        else:
            replaced = list(standing(earlier))
        if not replaced:
            break
        release = replaced[-1]
    return release.released.commit


def taken_back(history: tuple[R, ...]) -> Mapping[str, R]:
    """Find the fingerprints that operators took back and that were not released since.

    Each with the withdrawal or rollback that did it. Without this the next plan would build
    again, or a publisher that planned before would publish, what was just taken back.
    """
    by_fingerprint: dict[str, R] = {}
    withdrawn_revisions = withdrawn(history)
    for position, release in enumerate(history):
        earlier = history[:position]
        taken: list[R] = []
        if release.withdraws is not None:
            taken = _withdrawn_by(release, earlier, withdrawn_revisions)
        elif not release.reason:
            by_fingerprint.pop(release.fingerprint, None)
        elif release.revision not in withdrawn_revisions:
            # A rollback brings back a build, and not what its spec would be built to today:
            # what was released after that build is passed over.
            originals = [each.revision for each in earlier if each.build == release.build]
            first = max(originals, default=release.revision)
            taken = [each for each in earlier if each.image and each.revision > first]
        by_fingerprint |= {each.fingerprint: release for each in taken}
    return by_fingerprint


def _withdrawn_by(
    withdrawal: R, earlier: tuple[R, ...], withdrawn_revisions: AbstractSet[int]
) -> list[R]:
    """Return what a withdrawal is about, unless the same was released again between the two."""
    targets = [each for each in earlier if each.revision == withdrawal.withdraws]
    since = {
        each.fingerprint
        for each in earlier
        for target in targets
        if each.revision > target.revision
        and each.image is not None
        and not each.reason
        and each.revision not in withdrawn_revisions
    }
    return [target for target in targets if target.fingerprint not in since]
