"""Specs made of values, for every test that needs one and reads none."""

from dataclasses import replace

from lago_images.specs.model import Base, BaseKind, Operation, Spec
from lago_images.specs.parse import parse

# What both clients need of any spec.
COMPLETE = ("#arch=x86_64", "#distro=debian")


def spec(
    name: str = "debian-12",
    base: str = "bootstrap:debian-12",
    *operations: str | tuple[str, str],
    arch: str = "x86_64",
    **properties: str,
) -> Spec:
    """Return a spec of these parts, as if each stood on the first line of its file.

    An operation is its name, or its name and its argument.
    """
    kind, _, base_name = base.partition(":")
    pairs = [(each, "") if isinstance(each, str) else each for each in operations]
    return Spec(
        name=name,
        path=f"image-specs/{name}",
        base=Base(kind=BaseKind(kind), name=base_name, line=1),
        arch=arch,
        properties=properties,
        operations=tuple(Operation(name=one, argument=what, line=1) for one, what in pairs),
    )


def parsed(text: str, name: str = "image") -> Spec:
    """Return the spec of a text that has no problems."""
    made, problems = parse(text, name=name, path=f"image-specs/{name}")
    assert made is not None
    assert not problems
    return made


def lines(*more: str, base: str = "layer:b") -> Spec:
    """Return the spec of a base and these lines, complete for both clients."""
    return parsed("\n".join([f"#base={base}", *COMPLETE, *more]) + "\n")


def buildable(name: str, base: str, **properties: str) -> Spec:
    """Return a spec that is built without a boot test."""
    plain = {"base": base, "boot-test": "no", "distro": "debian"}
    return replace(spec(name, base), properties={**plain, **properties})
