"""Decide what can be built side by side, and in what order the rest must be."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from lago_images.planning.model import Action, PlannedImage, Tree
from lago_images.specs.model import BaseKind, Spec


def in_order(specs: Mapping[str, Spec], names: Collection[str] | None = None) -> Iterator[str]:
    """Yield bases before their layers, each base followed by its own; otherwise by name.

    With ``names``, only those: a layer whose base is not among them comes as if it had none.
    """
    wanted = specs.keys() if names is None else set(names)
    layers = _layers(specs, wanted)
    waiting = sorted((name for name in wanted if _base(specs[name]) not in wanted), reverse=True)
    while waiting:
        name = waiting.pop()
        yield name
        waiting += sorted(layers.get(name, ()), reverse=True)


def components(specs: Mapping[str, Spec], names: Collection[str]) -> list[tuple[str, ...]]:
    """Return ``names`` in groups that stand on each other, each in order."""
    wanted = set(names)
    groups: list[list[str]] = []
    for name in in_order(specs, wanted):
        if _base(specs[name]) not in wanted:
            groups.append([])
        groups[-1].append(name)
    return [tuple(members) for members in groups]


def chains(tree: Tree, images: Mapping[str, PlannedImage]) -> tuple[tuple[str, ...], ...]:
    """Return one chain a group of images to build, with the promoted images that they stand on."""
    built = {name for name, image in images.items() if image.action is Action.BUILD}
    needed = set(built)
    for name in built:
        base = _base(tree.specs[name])
        while base in images and images[base].action is Action.PROMOTE and base not in needed:
            needed.add(base)
            base = _base(tree.specs[base])
    return tuple(sorted(components(tree.specs, needed)))


def _layers(specs: Mapping[str, Spec], names: Collection[str]) -> Mapping[str, Sequence[str]]:
    layers: dict[str, list[str]] = {}
    for name in names:
        base = _base(specs[name])
        if base in names:
            layers.setdefault(base, []).append(name)
    return layers


def _base(spec: Spec) -> str:
    """Return the name of a layer's base; empty for other bases."""
    return spec.base.name if spec.base.kind is BaseKind.LAYER else ""
