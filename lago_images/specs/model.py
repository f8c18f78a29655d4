"""Hold what a spec says, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class BaseKind(StrEnum):
    """A kind of base."""

    LIBGUESTFS = "libguestfs"
    LAYER = "layer"
    SIMPLE = "simple"
    BOOTSTRAP = "bootstrap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A ``base=`` property: ``<kind>:<name>``; ``line`` is where it stands."""

    kind: BaseKind
    name: str
    line: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A virt-builder command of a spec; ``name`` without dashes, ``argument`` as written.

    A command that takes no argument has an empty one. ``line`` is where the command starts.
    """

    name: str
    argument: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A file of ``image-specs/``.

    Attributes:
        name: The file's name, and the image's.
        path: The file, relative to the root of the git repository, with ``/``.
        base: What the image stands on.
        arch: The architecture, as virt-builder and ``uname -m`` spell it.
        properties: All ``#key=value`` lines, in order, ``base`` and ``arch`` included.
        operations: The commands, in order.
        lines: The line of each property.
    """

    name: str
    path: str
    base: Base
    arch: str
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    operations: tuple[Operation, ...] = ()
    lines: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
