"""Do what ``retention.plan`` says, in its order, beside running publishers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lago_images.errors import ConflictError, NotFoundError, RepositoryError, StorageError
from lago_images.repository.publishing.publisher import Publisher
from lago_images.repository.publishing.retention import Retention, Step, Sweep, plan, retirement
from lago_images.repository.records.layout import (
    BUILDS,
    IMAGES,
    INDEX,
    METADATA,
    RELEASES,
    ImageId,
    headers,
    release_key,
)
from lago_images.repository.records.state import State, survey
from lago_images.repository.rendering import index, lago
from lago_images.storage.base import Store, Unfinished
from lago_images.storage.s3.multipart import lists_uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The outcome of a sweep.

    Attributes:
        sweep: What was planned, less what was not done after all.
        left: Images that were published meanwhile, and so left alone this time.
        written: The rendered files that changed.
    """

    sweep: Sweep
    left: tuple[ImageId, ...]
    written: tuple[str, ...]


def look(store: Store, retention: Retention, now: float) -> Sweep:
    """Plan what would be removed now; reads only."""
    return plan(survey(store), _unfinished(store), retention, now)


def sweep(publisher: Publisher, retention: Retention) -> Swept:
    """Remove what retention lets go.

    Raises:
        RepositoryError: The repository is damaged, or its rendered files name what would be
            deleted: nothing was deleted.
    """
    store, now = publisher.store, publisher.now()
    state = survey(store)
    planned = plan(state, _unfinished(store), retention, now)
    retired, left = _retire(store, state, planned, now)
    # Between retiring and deleting: from here on no published file names what is retired.
    refreshed = publisher.refresh()
    _refuse_named(store, planned.delete)
    for step in planned.delete:
        # The manifest first, in a request of its own: a crash between the two leaves no build that
        # looks whole.
        store.delete(step.objects[:1])
        store.delete(step.objects[1:])
    # Their parts are in no list of objects, and take room until somebody aborts the upload.
    for upload in planned.abort:
        store.abort(upload)
    store.delete(planned.forget)
    return Swept(
        sweep=replace(planned, retire=retired),
        left=left,
        written=refreshed.written,
    )


def _unfinished(store: Store) -> tuple[Unfinished, ...]:
    """List unfinished uploads; none where a store cannot: the rest is cleared up all the same."""
    try:
        return (*store.unfinished(BUILDS), *store.unfinished(IMAGES))
    except StorageError as error:
        if lists_uploads(error):
            raise
        return ()


def _retire(
    store: Store, state: State, planned: Sweep, now: float
) -> tuple[tuple[Step, ...], tuple[ImageId, ...]]:
    by_image: dict[ImageId, list[Step]] = {}
    for step in planned.retire:
        by_image.setdefault(step.build.key.image, []).append(step)
    done: list[Step] = []
    left = []
    for image, steps in by_image.items():
        # A withdrawal or a rollback may have come since the survey, and need what is to be retired.
        # A release that is created later lists the retirement, and is refused.
        listed = store.list(f"{RELEASES}{image.name}/{image.arch}/")
        revisions = (key.revision for stat in listed if (key := release_key(stat.key)))
        if max(revisions, default=0) != state.newest(*image):
            left.append(image)
            continue
        for step in steps:
            _record(store, step, now)
            done.append(step)
    return tuple(done), tuple(left)


def _record(store: Store, step: Step, now: float) -> None:
    key = step.build.retirement
    try:
        store.put(key, retirement(step, now), expected=None, headers=headers(key))
    except ConflictError:
        # Another sweep was faster; a copy is retired only once.
        return


def _refuse_named(store: Store, steps: tuple[Step, ...]) -> None:
    """Refuse to delete what is named: rendering left it out, so no rendering of ours names it."""
    named = set(_named_disks(store))
    still_named = sorted(step.build.folder for step in steps if step.build.disk in named)
    if still_named:
        raise RepositoryError(
            f"the published files name what is retired: {', '.join(still_named)}",
            hint="lago-images repo verify names what is wrong with them; nothing was deleted",
        )


def _named_disks(store: Store) -> Iterator[str]:
    """List the disks that the published files name now."""
    try:
        for entry in index.parse(store.get(INDEX).data)[0]:
            yield entry.file
        for version in lago.parse(store.get(METADATA).data)[0]:
            yield f"{version.handle}.xz"
    except NotFoundError:
        return
