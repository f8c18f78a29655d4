"""What a plan is decided from, besides the specs: the repository's state and git's history."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from lago_images.planning.gitdata import Change, Commit
from lago_images.planning.paths import Paths
from lago_images.repository.layout import ImageId


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A complete build in the repository. ``created`` is in seconds since the epoch.

    ``base`` is the manifest's digest of the base: ``build:<build id>`` for a layer.
    """

    build: str
    fingerprint: str
    commit: str
    created: int
    base: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The release that clients get now.

    ``built`` is None when the repository no longer has the build that the release names.
    """

    revision: int
    fingerprint: str
    commit: str
    build: str
    built: Built | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHoldings:
    """What the repository holds of one image.

    Attributes:
        current: None when nothing is released, or everything is withdrawn.
        newest: The highest revision ever taken; 0 for none.
        taken_back: By fingerprint, why an operator took it back: it is not built again unasked.
        waiting: Builds without a release that may get one, oldest first.
    """

    current: Current | None = None
    newest: int = 0
    taken_back: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    waiting: tuple[Built, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What the repository holds; ``commit`` was published last, None for one that never was."""

    images: Mapping[ImageId, ImageHoldings] = field(default_factory=lambda: MappingProxyType({}))
    commit: str | None = None


class Relation(StrEnum):
    """What a commit is to the one that is checked out."""

    OLDER = "older"
    SAME = "same"
    NEWER = "newer"
    APART = "apart"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """What changed from ``commit`` to the head: ``changes`` and ``commits`` by path.

    ``paths`` are all changed paths, the former ones of renamed files included.
    """

    commit: str
    changes: Mapping[str, Change]
    commits: Mapping[str, tuple[Commit, ...]]
    paths: Paths

    @classmethod
    def of(
        cls, commit: str, changes: Iterable[Change], commits: Mapping[str, tuple[Commit, ...]]
    ) -> "Since":
        by_path = {change.path: change for change in changes}
        former = {change.old for change in by_path.values() if change.old}
        paths = Paths.of(by_path.keys() | former)
        return cls(commit=commit, changes=by_path, commits=commits, paths=paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What git knows. Everything is empty outside git.

    Attributes:
        head: The commit that is checked out.
        relations: By commit, what it is to the head.
        since: By commit, what changed since.
        scope: What changed since the commit that this plan is limited to; None for no limit.
    """

    head: str | None = None
    relations: Mapping[str, Relation] = field(default_factory=lambda: MappingProxyType({}))
    since: Mapping[str, Since] = field(default_factory=lambda: MappingProxyType({}))
    scope: Since | None = None

    def relation(self, commit: str) -> Relation:
        return self.relations.get(commit, Relation.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What the plan is asked to cover.

    Attributes:
        changed: Everything that changed or is missing; else only what the rest says.
        force: Names to build whatever the repository holds.
        everything: Build all.
        stale_days: Build what was last built this many days ago, or longer.
        promote: Whether a build that waits may be released instead of building again.
        promote_days: For how many days after it was made it may; None for no limit.
    """

    changed: bool = True
    force: frozenset[str] = frozenset()
    everything: bool = False
    stale_days: int | None = None
    promote: bool = True
    promote_days: int | None = None
