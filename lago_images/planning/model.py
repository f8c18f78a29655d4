"""Hold the plan, as a value: what will be built, and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar

from lago_images.repository.records.parsing import Count, Text
from lago_images.specs.model import Spec
from lago_images.specs.quarantine import NONE, Quarantine


class Action(StrEnum):
    """The action on an image."""

    BUILD = "build"
    PROMOTE = "promote"
    KEEP = "keep"
    RETIRE = "retire"


# What leads to a release.
WORK = frozenset({Action.BUILD, Action.PROMOTE})


class ReasonKind(StrEnum):
    """The kind of a reason to build an image."""

    NEW = "new"
    SPEC = "spec"
    INPUT = "input"
    BASE = "base"
    MISSING = "missing"
    STALE = "stale"
    OUTDATED = "outdated"
    FORCED = "forced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason, with a sentence that names the files and commits behind it."""

    kind: ReasonKind
    detail: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedImage:
    """The plan's entry for one image.

    Attributes:
        base: As the spec writes it; empty for a retired image.
        fingerprint: Of the spec as it is now; empty for a retired image.
        promote: The build to release, for ``promote``.
        promote_sha256: Of that build's manifest, which is what was judged.
        revision: The newest revision that was published when the plan was made; 0 for none.
        note: Why nothing is built, for ``keep`` and ``retire``.
    """

    name: Text
    arch: Text
    action: Action
    base: Text
    fingerprint: Text
    reasons: tuple[Reason, ...] = ()
    promote: Text | None = None
    promote_sha256: Text | None = None
    revision: Count = 0
    note: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan: what will be done to a repository.

    Attributes:
        head: The commit the plan was made at; None outside git.
        dirty: Whether any spec, or a file that a spec reads, differs from ``head``.
        published: The commit published last; None for an empty repository.
        made: When the plan was made, in whole seconds since the epoch: what was built before
            that is not the answer to a forced, stale or outdated entry.
        images: One entry an image, by name.
        chains: What can be built side by side; within a chain, in order. What is promoted is in a
            chain only where a layer on it is built.
        partial: Whether there is work that was not asked for, and is left aside.
    """

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a plan"

    head: Text | None
    dirty: bool
    published: Text | None
    made: Count
    images: tuple[PlannedImage, ...]
    chains: tuple[tuple[Text, ...], ...]
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Hold the specs at one moment, with what their builds depend on.

    Attributes:
        specs: By name.
        fingerprints: By name.
        inputs: By name, every host file or folder the spec's build reads, relative to the root.
        ways: By path of a spec or an input, where git knows of other paths: the symbolic links
            that reading it follows, in order, and the file or folder that they lead to.
        dirty: The specs, their inputs and the links to them that are not as in git's head.
        quarantine: What may fail for now; no input of a build.
        also: The forms beside the xz that the settings ask for. In no fingerprint: what a disk
            holds is the same in each.
    """

    specs: Mapping[str, Spec]
    fingerprints: Mapping[str, str]
    inputs: Mapping[str, tuple[str, ...]]
    ways: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    dirty: frozenset[str] = frozenset()
    quarantine: Quarantine = NONE
    also: frozenset[str] = frozenset()

    def way(self, path: str) -> tuple[str, ...]:
        """Return what git has to be asked about where ``path`` is read."""
        return self.ways.get(path, (path,))

    def paths(self) -> Iterator[tuple[str, ...]]:
        """Yield everything that is read, as written and as links lead to it."""
        yield from self.inputs.values()
        yield from self.ways.values()
