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
class GuestTest:
    """A test of a spec's own: a program that runs in the guest, as root, when it has booted.

    Attributes:
        spec: The spec whose test it is; it runs for the layers on that, too.
        name: Its path below the specs' folder: ``NAME.test`` or ``NAME.tests/FILE``.
        path: The file, relative to the root of the git repository, with ``/``.
        timeout: Seconds that it may take with KVM; four times that without.
        reboot: Whether the guest is started again before it.
        network: Whether the guest has a network while it runs.
    """

    spec: str
    name: str
    path: str
    timeout: int = 120
    reboot: bool = False
    network: bool = False


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
        tests: What its image is tested by, in order: what it stands on has its tests first.
    """

    name: str
    path: str
    base: Base
    arch: str
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    operations: tuple[Operation, ...] = ()
    lines: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    tests: tuple[GuestTest, ...] = ()

    @property
    def own_tests(self) -> tuple[GuestTest, ...]:
        """Return the tests without those of what it stands on."""
        return tuple(test for test in self.tests if test.spec == self.name)
