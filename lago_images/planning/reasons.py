"""Explain why an image is built, in sentences that name the files and commits behind it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from lago_images.console import first_of
from lago_images.planning.git_output import Commit
from lago_images.planning.history import (
    Current,
    History,
    Holdings,
    ImageHoldings,
    Since,
)
from lago_images.planning.model import WORK, Action, Reason, ReasonKind, Tree
from lago_images.planning.paths import Paths
from lago_images.planning.uncommitted import Uncommitted
from lago_images.repository.records.changes import Upstream
from lago_images.repository.records.release import NO_COMMIT
from lago_images.settings import FILE
from lago_images.specs.folder import is_left_out, test_places
from lago_images.specs.model import BaseKind, Spec

_SHORT = 7
DAY = 86_400
# As many changes as a reason names.
_SHOWN = 3
_UNCOMMITTED = "differs from what is committed"


def short(commit: str) -> str:
    """Shorten a commit's id as people read it."""
    return commit[:_SHORT]


def origin(current: Current) -> str:
    """Return where a release comes from: ``, of commit 1a2b3c4``."""
    if current.made_of == NO_COMMIT:
        return ", of files that were not committed" if current.dirty else ", made outside git"
    dirty = " and files that were not committed then" if current.dirty else ""
    return f", of commit {short(current.made_of)}{dirty}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Find the reasons for one image after the other, from the same facts."""

    tree: Tree
    holdings: Holdings
    history: History
    uncommitted: Uncommitted

    @classmethod
    def of(cls, tree: Tree, holdings: Holdings, history: History) -> "Why":
        uncommitted = Uncommitted.of(tree)
        return cls(tree=tree, holdings=holdings, history=history, uncommitted=uncommitted)

    def absent(self, spec: Spec, published: ImageHoldings) -> Reason:
        """Return why an image without a release is built."""
        if published.newest:
            last = next(iter(reversed([*published.taken_back.values()])), "")
            detail = f"every revision of it is withdrawn{f': {last}' if last else ''}"
            return Reason(kind=ReasonKind.MISSING, detail=detail)
        commit = self.holdings.commit
        if commit is None:
            detail = f"{spec.path}: nothing is published yet"
            return Reason(kind=ReasonKind.NEW, detail=detail)
        since = self.history.since.get(commit)
        if since is None:
            detail = f"it is not published, and commit {short(commit)} is not known here"
            return Reason(kind=ReasonKind.NEW, detail=detail)
        return self._absent_since(spec, since)

    def _absent_since(self, spec: Spec, since: Since) -> Reason:
        way = self.tree.way(spec.path)
        change = next((since.changes[path] for path in way if path in since.changes), None)
        dirty = next((path for path in way if path in self.tree.dirty), None)
        if change is None and dirty:
            return Reason(kind=ReasonKind.NEW, detail=f"{dirty} {_UNCOMMITTED}")
        # Git's letters: added, renamed. Changed only is no reason for it to be missing.
        if change is None or change.status not in "AR":
            detail = f"it is not published, though {spec.path} was there at {short(since.commit)}"
            return Reason(kind=ReasonKind.MISSING, detail=detail)
        how = f"was renamed from {change.old}" if change.old else "was added"
        behind = _in(since.commits.get(change.path, ()))
        return Reason(kind=ReasonKind.NEW, detail=f"{change.path} {how}{behind}")

    def lost(self, current: Current) -> Reason:
        """Return why an image is built whose release names a build that is missing or damaged."""
        detail = (
            f"revision {current.revision} names build {current.build}, which is missing or damaged"
        )
        return Reason(kind=ReasonKind.MISSING, detail=detail)

    def lacks(self, current: Current, forms: Sequence[str]) -> Reason:
        """Return why an image is built whose disk is not there in every form that is wanted."""
        detail = (
            f"publish-also asks for {' and '.join(forms)}, which revision {current.revision} lacks"
        )
        return Reason(kind=ReasonKind.INPUT, detail=detail)

    def changed(self, spec: Spec, current: Current, base: Action | None) -> tuple[Reason, ...]:
        """Return why the fingerprint is not the release's."""
        since = self.history.since.get(current.commit)
        uncommitted = tuple(self._uncommitted(spec))
        # A force-push or a clone's cut took the commit away that the release was made of.
        if since is None:
            return uncommitted or (self._unknown(current, base),)
        reasons = (*self._committed(spec, since), *uncommitted)
        if reasons or base in WORK:
            return reasons
        return (self._otherwise(current, since),)

    def _committed(self, spec: Spec, since: Since) -> Iterator[Reason]:
        for path, changed in self._met([spec.path], since.paths):
            behind = _in(since.commits.get(changed, ()))
            detail = f"{_named(changed, path)}{_linked(path, spec)} changed{behind}"
            yield Reason(kind=ReasonKind.SPEC, detail=detail)
        for path, changed in self._met(self._reads(spec), since.paths):
            behind = _in(since.commits.get(changed, ()))
            detail = f"{_named(changed, path)}, which {spec.path} reads, changed{behind}"
            yield Reason(kind=ReasonKind.INPUT, detail=detail)
        for changed in self._tests(spec, since.paths):
            behind = _in(since.commits.get(changed, ()))
            detail = f"{changed}, which tests {spec.name}, changed{behind}"
            yield Reason(kind=ReasonKind.INPUT, detail=detail)

    def _uncommitted(self, spec: Spec) -> Iterator[Reason]:
        for path, dirty in self._met([spec.path], self.uncommitted.paths):
            detail = f"{dirty}{_linked(path, spec)} {_UNCOMMITTED}"
            yield Reason(kind=ReasonKind.SPEC, detail=detail)
        for _, dirty in self._met(self._reads(spec), self.uncommitted.paths):
            detail = f"{dirty}, which {spec.path} reads, {_UNCOMMITTED}"
            yield Reason(kind=ReasonKind.INPUT, detail=detail)
        for dirty in self._tests(spec, self.uncommitted.paths):
            detail = f"{dirty}, which tests {spec.name}, {_UNCOMMITTED}"
            yield Reason(kind=ReasonKind.INPUT, detail=detail)

    def _reads(self, spec: Spec) -> Iterator[str]:
        tests = {test.path for test in spec.own_tests}
        yield from (path for path in self.tree.inputs.get(spec.name, ()) if path not in tests)

    def _tests(self, spec: Spec, paths: Paths) -> Iterator[str]:
        """Yield each of ``paths`` that is a test of a spec, or was one."""
        written = (*(test.path for test in spec.own_tests), *test_places(spec.path))
        touched = dict.fromkeys(each for _, each in self._met(written, paths))
        yield from (path for path in touched if not is_left_out(path.rpartition("/")[2]))

    def _met(self, written: Iterable[str], paths: Paths) -> Iterator[tuple[str, str]]:
        """Yield what is read where something is written, with each of ``paths`` that touches it."""
        read = chain.from_iterable(map(self.tree.way, written))
        for path in dict.fromkeys(read):
            for touched in paths.touching(path):
                yield path, touched

    def _unknown(self, current: Current, base: Action | None) -> Reason:
        kind = ReasonKind.BASE if base in WORK else ReasonKind.SPEC
        history = "" if current.commit == NO_COMMIT else ", whose history is not known here"
        revision = f"revision {current.revision}{origin(current)}{history}"
        detail = f"its fingerprint is not that of {revision}"
        return Reason(kind=kind, detail=detail)

    def _otherwise(self, current: Current, since: Since) -> Reason:
        if FILE in since.changes:
            detail = f"{FILE} changed{_in(since.commits.get(FILE, ()))}"
        else:
            detail = (
                f"its fingerprint is not that of revision {current.revision}, though no file of "
                f"it changed since {short(current.commit)}"
            )
        return Reason(kind=ReasonKind.INPUT, detail=detail)

    def base(self, spec: Spec, action: Action) -> Reason:
        """Return why a layer is built again though its spec may be the same."""
        how = {Action.BUILD: "is built", Action.PROMOTE: "is promoted"}
        detail = (
            f"its base {spec.base.name} {how.get(action, 'was released since as another build')}"
        )
        return Reason(kind=ReasonKind.BASE, detail=detail)

    def stale(self, current: Current, now: float, unknown: str = "") -> Reason:
        """Return why an image is built for its age; ``unknown`` is why nothing better is known."""
        days = age(current, now)
        detail = f"revision {current.revision} was built {days} days ago"
        if unknown:
            detail += f", and {unresolved(unknown)}"
        return Reason(kind=ReasonKind.STALE, detail=detail)

    def outdated(self, upstream: Upstream) -> Reason:
        """Return why an image is built of the same spec: it would get something newer."""
        return Reason(kind=ReasonKind.OUTDATED, detail=first_of(upstream.texts, _SHOWN))

    def is_touched(self, spec: Spec) -> bool:
        """Return whether the plan's limit changes the image itself."""
        scope = self.history.scope
        if scope is None:
            return True
        if spec.base.kind is BaseKind.LIBGUESTFS and FILE in scope.changes:
            return True
        written = (spec.path, *self.tree.inputs.get(spec.name, ()))
        tested = self._tests(spec, scope.paths)
        return any((*self._met(written, scope.paths), *tested, *self._uncommitted(spec)))

    def retired(self, name: str, current: Current) -> str:
        """Return what became of the spec of an image that has none."""
        specs = (self.tree.way(spec.path) for spec in self.tree.specs.values())
        folders = {path.rpartition("/")[0] for way in specs for path in way}
        for path in sorted(self.tree.dirty):
            folder, _, last = path.rpartition("/")
            if last == name and (folder in folders or not folders):
                return f"{path} is removed, not committed; what is published stays"
        # From the later one first: a name may have been given up and taken again.
        for commit in (self.holdings.commit or "", current.commit):
            since = self.history.since.get(commit)
            removal = _removal(name, since) if since else None
            if removal:
                return f"{removal}; what is published stays"
        return "it has no spec any more; what is published stays"


def unresolved(why: str) -> str:
    """Return that it is not known what a build would get from outside."""
    return f"whether a build would give something else cannot be known: {why}"


def _removal(name: str, since: Since) -> str | None:
    """Return how the spec of a name was removed, if it was."""
    for change in since.changes.values():
        former = change.old or (change.path if change.status == "D" else "")
        if former.rpartition("/")[2] == name:
            how = f"renamed to {change.path}" if change.old else "removed"
            return f"{former} was {how}{_in(since.commits.get(former, ())[:1])}"
    return None


def age(current: Current, now: float) -> int:
    """Return the whole days since the release's build was made."""
    return int((now - current.built.created) // DAY) if current.built else 0


def lacking(tree: Tree, current: Current) -> list[str]:
    """Return the forms that the settings ask for and a release's disk is not there in."""
    return sorted(tree.also - current.built.also) if current.built else []


def _linked(path: str, spec: Spec) -> str:
    return "" if path == spec.path else f", which {spec.path} is read from,"


def _named(changed: str, path: str) -> str:
    """Name a changed file, and how it is read as ``path``: in a folder, or from a submodule."""
    if changed == path:
        return path
    return f"{changed} in {path}" if changed.startswith(f"{path}/") else f"{changed} (with {path})"


def _in(commits: Sequence[Commit]) -> str:
    if not commits:
        return ""
    more = f" and {len(commits) - 1} more" if len(commits) > 1 else ""
    return f" in {commits[0]}{more}"
