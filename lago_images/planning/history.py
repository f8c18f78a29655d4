"""Gather what a plan is decided from besides the specs: the repository's state, git's history."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from lago_images.errors import UsageError
from lago_images.planning.git import Git
from lago_images.planning.git_output import Change, Commit
from lago_images.planning.line import Line
from lago_images.planning.paths import Paths
from lago_images.repository.records.layout import ImageId


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """Describe a complete build in the repository.

    Attributes:
        created: In seconds since the epoch.
        base: The manifest's digest of what it stands on: for a layer, of its base's disk.
        sha256: Of its own disk, as layers on it record it.
        manifest_sha256: Of its manifest's bytes, as a promotion names them.
        also: The forms beside the xz that its disk is there in.
        failed: What failed and was held back by a quarantine: names of tests, or ``boot test``.
    """

    build: str
    fingerprint: str
    commit: str
    created: int
    base: str
    sha256: str = ""
    manifest_sha256: str = ""
    also: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """Describe the release that clients get now.

    Attributes:
        commit: What it stands for when commits are compared.
        made_of: The commit that its build was made of, which a rollback leaves behind.
        dirty: Whether it was built from files that ``made_of`` does not have.
        built: None when the repository no longer has the build that the release names.
    """

    revision: int
    fingerprint: str
    commit: str
    build: str
    built: Built | None
    made_of: str
    dirty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHoldings:
    """Hold what the repository has of one image.

    Attributes:
        current: None when nothing is released, or everything is withdrawn.
        newest: The highest revision ever taken; 0 for none.
        taken_back: By fingerprint, why an operator took it back: it is not built again unasked.
        waiting: Builds without a release that may get one, oldest first.
        missing: Lost releases, in a line: what they took back is not known. Empty for none.
    """

    current: Current | None = None
    newest: int = 0
    taken_back: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    waiting: tuple[Built, ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Hold what the repository has; ``commit`` was published last, None for one that never was."""

    images: Mapping[ImageId, ImageHoldings] = field(default_factory=lambda: MappingProxyType({}))
    commit: str | None = None

    def without(self, builds: Container[str]) -> "Holdings":
        """Return the same without these waiting builds."""
        images = {
            image: replace(
                holding, waiting=tuple(each for each in holding.waiting if each.build not in builds)
            )
            for image, holding in self.images.items()
        }
        return replace(self, images=images)


class Relation(StrEnum):
    """Relate a commit to the one that is checked out.

    ``NEWER`` is one on the branch that is published; ``APART`` also one that a force-push took
    back.
    """

    OLDER = "older"
    SAME = "same"
    NEWER = "newer"
    APART = "apart"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """Hold what changed from ``commit`` to the head: ``changes`` and ``commits`` by path.

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
    """Hold what git knows. Everything is empty outside git.

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
    """The scope of a plan.

    Attributes:
        changed: Everything that changed or is missing; else only what the rest says.
        force: Names, or patterns of names, to build whatever the repository holds.
        everything: Build all.
        stale_days: Build what was last built this many days ago, or longer; with ``outdated``, of
            what cannot be known to be up to date.
        outdated: Build what would get other packages, or another base, from outside.
        promote: Whether a build that waits may be released instead of building again.
        promote_days: For how many days after it was made it may; None for no limit.
    """

    changed: bool = True
    force: frozenset[str] = frozenset()
    everything: bool = False
    stale_days: int | None = None
    outdated: bool = False
    promote: bool = True
    promote_days: int | None = None


# Each costs two calls of git; images whose release is of yet another commit get a plainer reason.
_MOST_SINCE = 20


def gather(
    git: Git,
    *,
    commits: Iterable[str],
    published: str | None,
    paths: Iterable[str],
    scope: str | None = None,
    branch: str = "",
) -> History:
    """Ask git about ``commits`` and the last published one.

    Args:
        git: The repository; what a shallow clone lacks is fetched.
        commits: Of the releases that may be replaced.
        published: The commit published last.
        paths: Where specs, their inputs and the settings are.
        scope: The revision a plan is limited to what changed since: a branch or a commit, of
            which the newest common ancestor with the head counts.
        branch: The branch that is published; see ``Line``.

    Raises:
        GitError: The remote does not say whether a commit is still on that branch.
        UsageError: There is no commit ``scope``, or it has nothing in common with the head.
    """
    head = git.head()
    if head is None and scope:
        raise UsageError(
            f"what changed since {scope!r} is not known: nothing is committed yet",
            hint="leave --base out, or commit the specs",
        )
    # A clone of an empty repository has a branch and no commit.
    if head is None:
        return History()
    below = tuple(paths)
    # Not the revision itself: what the branch got since the fork is not this pull request's.
    start = git.fork(scope, head) if scope else None
    wanted = {*commits, *([published] if published else [])}
    relations = _relations(Line(git=git, branch=branch), wanted, head)
    known = sorted(commit for commit in wanted if relations[commit] is not Relation.UNKNOWN)
    # The last published commit explains most reasons, so it is among those that are asked for.
    if published in known:
        known.remove(published)
        known.insert(0, published)
    return History(
        head=head,
        relations=relations,
        since={commit: _since(git, commit, head, below) for commit in known[:_MOST_SINCE]},
        scope=_since(git, start, head, below) if start else None,
    )


def _relations(line: Line, commits: Iterable[str], head: str) -> Mapping[str, Relation]:
    git = line.git
    relations = dict.fromkeys(commits, Relation.UNKNOWN)
    present = relations.keys() - git.ensure_all(relations)
    strangers = git.strangers(present, head)
    for commit in present:
        relations[commit] = Relation.OLDER
    for commit in sorted(strangers):
        # Outside the head's history, or only beyond the cut of a shallow clone.
        if git.is_ancestor(commit, head):
            relations[commit] = Relation.OLDER
        else:
            is_newer = line.is_older(head, commit)
            relations[commit] = Relation.NEWER if is_newer else Relation.APART
    if head in relations:
        relations[head] = Relation.SAME
    return relations


def _since(git: Git, commit: str, head: str, paths: tuple[str, ...]) -> Since:
    changes = git.changes(commit, head, paths)
    return Since.of(commit, changes, git.commits(commit, head, paths) if changes else {})
