"""Record what is outdated: a number of a revision is taken by creating its record, as releases are.

Publishers that find the same at once leave one record; those that find different things one each.
"""

from lago_images.errors import ConflictError, NotFoundError, RepositoryError
from lago_images.repository.records.changes import Upstream
from lago_images.repository.records.layout import OutdatedKey, headers
from lago_images.repository.records.outdated import FoundUpstream, Outdated, about
from lago_images.repository.records.parsing import size_problem
from lago_images.repository.records.release import Release
from lago_images.repository.records.state import State
from lago_images.storage.base import Store

_MOST_NUMBERS_LOST = 20


def record(
    store: Store, state: State, release: Release, upstream: Upstream, now: float
) -> Outdated | None:
    """Record what was found about a current release, where that differs from what is recorded.

    Args:
        store: The repository.
        state: As it was read before.
        release: A current one of ``state``.
        upstream: What was found.
        now: When it was asked, in seconds since the epoch: who asked later knows better.

    Returns:
        The new record; None where there is no news.

    Raises:
        RepositoryError: Others took the next numbers, every time.
        StorageError: The store did not answer, or cannot be written.
    """
    key, before = state.outdated.get(release.key.image, (None, None))
    number = key.number if key else 0
    for _ in range(_MOST_NUMBERS_LOST):
        number += 1
        found = FoundUpstream.of(upstream, now, before.upstream if before else None)
        if found is None:
            return None
        wanted = Outdated(
            name=release.name,
            arch=release.arch,
            revision=release.revision,
            number=number,
            build=release.build or "",
            upstream=found,
        )
        try:
            place = str(wanted.key)
            store.put(place, wanted.to_json(), expected=None, headers=headers(place))
        except ConflictError:
            # By another publisher; or by an earlier try of this write, whose answer was lost.
            before = _read(store, wanted.key, release) or before
            if before and before.upstream.found > found.found:
                return None
        else:
            return wanted
    raise RepositoryError(
        f"{release.name} ({release.arch}): {_MOST_NUMBERS_LOST} records in a row of what is "
        "outdated were made by others",
        hint="run it again when fewer publishers are at work",
    )


def _read(store: Store, key: OutdatedKey, release: Release) -> Outdated | None:
    """Read a record; None for one that cannot be read, or is about another build."""
    try:
        if size_problem(store.head(str(key))):
            return None
        return about(release, Outdated.parse(store.get(str(key)).data, key))
    except (NotFoundError, RepositoryError):
        return None
