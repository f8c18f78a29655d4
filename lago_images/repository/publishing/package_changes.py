"""Summarise what a release changes for clients, while both builds are still there.

The summary is part of the release: rendering needs nothing else then (promise 3), and it outlives
what ``repo gc`` deletes. See decision 11.
"""

import hashlib

from lago_images.errors import NotFoundError
from lago_images.repository.records import layout
from lago_images.repository.records.changes import Package, compare_packages, parse_packages
from lago_images.repository.records.parsing import LARGEST
from lago_images.repository.records.release import PackageDiff, Release, ReleasedImage
from lago_images.repository.records.standing import standing
from lago_images.storage.base import Store

# Of each kind. A new distribution changes all packages, and a release is read with every other.
_MOST = 250


def package_changes(
    store: Store, history: tuple[Release, ...], wanted: Release
) -> PackageDiff | None:
    """Compare what clients are offered before and after a record that is about to be created.

    ``history`` is the image's, ascending by revision. Two objects are read, or none.

    Returns None where the same build is offered, none was or is, or the packages of one of the two
    are missing or not those that were released: nothing rests on it but text for people.

    Raises:
        StorageError: The store did not answer.
    """
    before, after = standing(history)[-1:], standing((*history, wanted))[-1:]
    if not before or not after or before[0].public == after[0].public:
        return None
    old, new = _packages(store, before[0].image), _packages(store, after[0].image)
    if old is None or new is None:
        return None
    lines = compare_packages(old, new).lines().first(_MOST)
    return PackageDiff(
        since=before[0].revision,
        added=lines.added,
        removed=lines.removed,
        upgraded=lines.upgraded,
        omitted=lines.omitted,
    )


def _packages(store: Store, image: ReleasedImage | None) -> tuple[Package, ...] | None:
    """Read the packages of a public copy, if they are those that its release binds."""
    released = image and image.objects.get(layout.PACKAGES)
    if not image or not released or released.size > LARGEST:
        return None
    try:
        data = store.get(image.public.packages).data
    except NotFoundError:
        return None
    # It may have been overwritten since, and what a release says here is never corrected.
    if hashlib.sha256(data).hexdigest() != released.sha256:
        return None
    # The list comes out of a guest, which may write any bytes.
    return parse_packages(data.decode(errors="replace"))
