"""Follow what an image stands on, and what stands on it."""

from collections.abc import Iterator
from dataclasses import dataclass

from lago_images.repository.records import layout
from lago_images.repository.records.fields import line
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.release import Release, ReleasedImage
from lago_images.repository.records.state import State
from lago_images.repository.rendering.families import Families


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """A base or a layer of an image.

    Attributes:
        revision: The base's that was built on; the layer's that is offered. None for a base that is
            not of this repository.
        note: What is not as one would expect, such as a newer revision of the base.
        layers: What was built on a layer.
    """

    name: str
    revision: int | None
    note: str = ""
    layers: "tuple[Relative, ...]" = ()

    @property
    def page(self) -> str:
        """Return the address of its page, from that of another image."""
        return layout.page(self.name).removeprefix(layout.CATALOGUE_PAGES)


def bases_of(state: State, image: ReleasedImage) -> Iterator[Relative]:
    """Return what an image stands on, down to what is not of this repository."""
    seen = {image.public}
    while base := image.base:
        current = state.current(base.name, base.arch)
        note = "no longer offered"
        if current:
            is_same = current.image is not None and current.image.build == base.build
            note = "" if is_same else f"revision {current.revision} is offered now"
        yield Relative(name=base.name, revision=base.revision, note=note)
        history = state.history(base.name, base.arch)
        bound = next(
            (release.image for release in history if release.revision == base.revision), None
        )
        if bound is None or bound.public in seen:
            return
        image = bound
        seen.add(image.public)
    ref = line(image.manifest.base.ref)
    yield Relative(name=ref, revision=None, note=line(image.manifest.base.detail))


def layers_of(
    state: State, image: ImageId, families: Families, below: frozenset[str] = frozenset()
) -> Iterator[Relative]:
    """Return what is offered and was built on an image, and what was built on that.

    ``below`` are the names on the way there: two images may have changed their places since.
    """
    offered, below = state.current(*image), below | {image.name}
    for name in sorted(families.layers.get(image.name, frozenset()) - below):
        layer = state.current(name, image.arch)
        base = layer.image.base if layer and layer.image else None
        if layer is None or base is None or base.name != image.name:
            continue
        yield Relative(
            name=name,
            revision=layer.revision,
            note=_outdated(base.build, base.revision, offered),
            layers=tuple(layers_of(state, ImageId(name, image.arch), families, below)),
        )


def _outdated(build: str, revision: int, offered: Release | None) -> str:
    """Return that a layer was built on something else than what its base offers now."""
    if offered and offered.image and offered.image.build == build:
        return ""
    return f"built on revision {revision}"
