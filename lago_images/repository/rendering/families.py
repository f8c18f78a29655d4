"""Find the images on a page: the image itself, those it was ever built on, and those on it.

What a page is rendered from must never shrink, or a slower publisher could change it back (see
``index.listing_mark``). So what was built on what is taken from all releases there ever were, and
not from those that are offered now.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lago_images.repository.records.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Families:
    """The relations between the images of a state, by name.

    Attributes:
        bases: The names that some release of an image was built on.
        layers: The names of which some release was built on an image.
        records: The records of each name that a page is rendered from, each with its ETag.
    """

    bases: Mapping[str, frozenset[str]]
    layers: Mapping[str, frozenset[str]]
    records: Mapping[str, tuple[tuple[str, str], ...]]

    @classmethod
    def of(cls, state: State) -> "Families":
        bases: dict[str, set[str]] = {}
        layers: dict[str, set[str]] = {}
        records: dict[str, list[tuple[str, str]]] = {}
        for image, history in state.releases.items():
            own = records.setdefault(image.name, [])
            for release in history:
                key = str(release.key)
                own.append((key, state.objects[key].etag if key in state.objects else ""))
                if release.public is not None and release.public in state.retired:
                    # Without its ETag: that there is such a record is all that it tells.
                    own.append((release.public.retirement, ""))
                if release.image and release.image.base:
                    base = release.image.base.name
                    bases.setdefault(image.name, set()).add(base)
                    layers.setdefault(base, set()).add(image.name)
        for damaged in state.damaged:
            records.setdefault(damaged.name, []).append((f"{damaged} is damaged", ""))
        return cls(
            bases={name: frozenset(some) for name, some in bases.items()},
            layers={name: frozenset(some) for name, some in layers.items()},
            records={name: tuple(sorted(some)) for name, some in records.items()},
        )

    def of_image(self, name: str) -> tuple[str, ...]:
        """Return the names that a page of an image is about, sorted; its own too."""
        return tuple(sorted(_reached(name, self.bases) | _reached(name, self.layers)))

    def mark(self, names: Iterable[str]) -> str:
        """Return the digest of the set of records of these names; see ``index.listing_mark``."""
        keys = (key for name in names for key, _etag in self.records.get(name, ()))
        return hashlib.sha256("\n".join(keys).encode()).hexdigest()

    def inputs(self, names: Iterable[str]) -> str:
        """Return the digest of what the records of these names say: of their keys and ETags."""
        pairs = (f"{key} {etag}" for name in names for key, etag in self.records.get(name, ()))
        return hashlib.sha256("\n".join(pairs).encode()).hexdigest()


def _reached(name: str, relation: Mapping[str, frozenset[str]]) -> set[str]:
    reached, waiting = set[str](), [name]
    while waiting:
        each = waiting.pop()
        if each not in reached:
            reached.add(each)
            waiting.extend(relation.get(each, ()))
    return reached
