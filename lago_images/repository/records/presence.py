"""Tell a repository of ours, a damaged one too, from a place where there is none."""

import re
from enum import StrEnum

from lago_images.errors import MANUAL, NotFoundError
from lago_images.repository.records import layout
from lago_images.storage.base import PROBED, PROBING, Store

# The layout before led clients to where builders write: that is for others to refuse.
_NAMES_OTHERS = re.compile(
    f"^file=(?!{layout.IMAGES}|{layout.BUILDS})".encode(),
    re.MULTILINE,
)


class Presence(StrEnum):
    """What is in a place; ``OURS`` may be damaged, down to its last record."""

    OURS = "a repository of lago-images"
    ANOTHER = "a repository of another program"
    STRANGE = "no repository"
    EMPTY = "nothing"


def names_others(index: bytes) -> bool:
    """Return whether an index leads clients to disks that are not where ours are."""
    return _NAMES_OTHERS.search(index) is not None


def another(url: str) -> tuple[str, str]:
    """Return why another program's repository is none of ours, and what to do about it."""
    what = (
        f"{url}: it has an {layout.INDEX} of another program and no {layout.RELEASES}: "
        "it is no repository of lago-images"
    )
    return what, f"how its images move to one: {MANUAL}/moving.md"


def look(store: Store) -> Presence:
    """Return what is in a store; where there is a record of ours, nothing is read for that.

    That it was probed, as ``doctor`` does, makes no repository of it.
    """
    # Nobody else writes these; an index can be damaged in any way, and disks be anybody's.
    if any(_has(store, root) for root in (layout.RELEASES, layout.STATE)):
        return Presence.OURS
    if not _has(store):
        return Presence.EMPTY
    try:
        index = store.get(layout.INDEX).data
    except NotFoundError:
        return Presence.OURS if _is_left(store) else Presence.STRANGE
    is_others = names_others(index) and not _is_rendered(store)
    return Presence.ANOTHER if is_others else Presence.OURS


def _is_left(store: Store) -> bool:
    """Return whether there are builds of ours, or what only we render, without an index."""
    roots = (layout.IMAGES, layout.BUILDS)
    return any(_has(store, root) for root in roots) or _is_rendered(store)


def _is_rendered(store: Store) -> bool:
    """Return whether there is what no other program makes; publishing refuses to, beside theirs."""
    try:
        store.head(layout.IMAGES_JSON)
    except NotFoundError:
        return False
    return True


def _has(store: Store, prefix: str = "") -> bool:
    """Return whether there is an object, but for those that are there once a store was probed."""
    return any(not stat.key.startswith((PROBED, PROBING)) for stat in store.list(prefix))
