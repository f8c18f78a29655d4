"""Decide what is built, promoted, kept and retired: pure, from facts that were read before."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from lago_images.planning import reasons
from lago_images.planning.chains import chains, components, in_order
from lago_images.planning.history import (
    Ask,
    Built,
    Current,
    History,
    Holdings,
    ImageHoldings,
    Relation,
)
from lago_images.planning.model import WORK, Action, Plan, PlannedImage, Reason, ReasonKind, Tree
from lago_images.repository.records.changes import Upstream
from lago_images.repository.records.guest_tests import BOOT
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.release import NO_COMMIT
from lago_images.specs.choosing import chosen
from lago_images.specs.model import BaseKind, Spec
from lago_images.specs.quarantine import day

_ASKED = {ReasonKind.FORCED, ReasonKind.STALE, ReasonKind.OUTDATED}
# What these ask for is a new build, and never whatever waits: what was published before is lost
# or was taken back, which says nothing for a build of the same spec.
ANEW = {*_ASKED, ReasonKind.MISSING}
_NOTHING = ImageHoldings()


_NO_UPSTREAM: Mapping[str, Upstream] = MappingProxyType({})


def make(
    tree: Tree,
    holdings: Holdings,
    history: History,
    ask: Ask,
    now: float,
    upstream: Mapping[str, Upstream] = _NO_UPSTREAM,
) -> Plan:
    """Make the plan.

    Args:
        tree: The specs as they are checked out.
        holdings: What the repository holds.
        history: What git knows of the commits behind both.
        ask: What the plan shall cover, with ``named`` names.
        now: Seconds since the epoch, for what is stale.
        upstream: By name, what is known of what is outdated, where ``ask`` says so.
    """
    why = reasons.Why.of(tree, holdings, history)
    decider = _Decider(
        tree=tree,
        holdings=holdings,
        history=history,
        ask=ask,
        now=now,
        upstream=upstream,
        why=why,
    )
    decided = decider.all()
    images = [*decided.values(), *_retired(why)]
    return Plan(
        head=history.head,
        dirty=bool(tree.dirty),
        published=holdings.commit,
        made=int(now),
        images=tuple(sorted(images, key=lambda image: (image.name, image.arch))),
        chains=chains(tree, decided),
        partial=bool(decider.aside),
    )


def named(ask: Ask, tree: Tree) -> Ask:
    """Return what is asked for with the names that patterns mean.

    Raises ``UsageError`` for a name of no spec, and for a pattern that matches none.
    """
    names = chosen(sorted(ask.force), tree.specs, otherwise="lago-images ci plan lists all names")
    return replace(ask, force=frozenset(names))


def suspects(tree: Tree, holdings: Holdings, ask: Ask) -> frozenset[str]:
    """Return the commits that git is asked about: those of releases that may be replaced."""
    commits = set()
    for (name, arch), published in holdings.images.items():
        if published.current is None:
            continue
        spec = tree.specs.get(name)
        same = tree.fingerprints.get(name) == published.current.fingerprint
        same = same and not reasons.lacking(tree, published.current)
        settled = spec is not None and spec.arch == arch and same
        timed = ask.outdated or ask.stale_days is not None
        if not settled or ask.everything or ask.force or timed:
            commits.add(published.current.commit)
    return frozenset(commits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decider:
    tree: Tree
    holdings: Holdings
    history: History
    ask: Ask
    now: float
    upstream: Mapping[str, Upstream]
    why: reasons.Why
    decided: dict[str, PlannedImage] = field(default_factory=dict)
    aside: set[str] = field(default_factory=set)

    def all(self) -> Mapping[str, PlannedImage]:
        """Decide of every spec, bases before their layers, then limited to what is asked."""
        for name in in_order(self.tree.specs):
            self.decided[name] = self._decide(self.tree.specs[name])
        if self.ask.changed and self.history.scope is None:
            return self.decided
        return self._limited()

    def _decide(self, spec: Spec) -> PlannedImage:
        published = self._published(spec)
        why_so = tuple(self._reasons(spec, published))
        why_not = self._objection(spec, published, why_so)
        waiting = None if why_not else self._promotable(spec, published, why_so)
        action = Action.BUILD if waiting is None else Action.PROMOTE
        return PlannedImage(
            name=spec.name,
            arch=spec.arch,
            action=Action.KEEP if why_not else action,
            base=str(spec.base),
            fingerprint=self.tree.fingerprints[spec.name],
            reasons=() if why_not else why_so,
            promote=waiting.build if waiting else None,
            promote_sha256=waiting.manifest_sha256 if waiting else None,
            revision=published.newest,
            note=why_not or "",
        )

    def _reasons(self, spec: Spec, published: ImageHoldings) -> Iterator[Reason]:
        current, base = published.current, self._base(spec)
        if self.ask.everything or spec.name in self.ask.force:
            yield Reason(kind=ReasonKind.FORCED, detail="it was asked for")
        if current is None:
            yield self.why.absent(spec, published)
        else:
            yield from self._against(current, spec, base.action if base else None)
        if base and base.action in WORK:
            yield self.why.base(spec, base.action)
        elif (
            base
            and current
            and current.built
            # The same fingerprint may be built twice, and the layer holds the older one's bytes.
            and self._base_digest(spec) not in {None, current.built.base}
            and self._base_is_published(spec)
        ):
            yield self.why.base(spec, Action.KEEP)

    def _against(self, current: Current, spec: Spec, base: Action | None) -> Iterator[Reason]:
        if current.built is None:
            yield self.why.lost(current)
        yield from self._outside(current, spec)
        if current.fingerprint != self.tree.fingerprints[spec.name]:
            yield from self.why.changed(spec, current, base)
        elif forms := reasons.lacking(self.tree, current):
            yield self.why.lacks(current, forms)

    def _outside(self, current: Current, spec: Spec) -> Iterator[Reason]:
        """Yield why a build of the same spec would give something else by now."""
        upstream, days = self.upstream.get(spec.name), self.ask.stale_days
        unknown = upstream.unknown if upstream else ""
        if upstream and upstream.is_outdated:
            yield self.why.outdated(upstream)
        # Age says less: it counts where nobody asked for more, or nobody knows more.
        elif days is None or not current.built or (self.ask.outdated and not unknown):
            return
        elif reasons.age(current, self.now) >= days:
            yield self.why.stale(current, self.now, unknown)

    def _objection(
        self, spec: Spec, published: ImageHoldings, why_so: tuple[Reason, ...]
    ) -> str | None:
        """Return why an image is left alone; None when it is not."""
        current, base = published.current, self._base(spec)
        if current and not why_so:
            return f"unchanged since revision {current.revision}{self._origin(spec, current)}"
        # A run that was queued for hours must not undo what a later commit's run published.
        if current and self.history.relation(current.commit) is Relation.NEWER:
            return _newer(current)
        if base and base.action is Action.KEEP and not self._base_is_published(spec):
            return f"it cannot be built while its base {spec.base.name} is kept: {base.note}"
        forced = any(reason.kind is ReasonKind.FORCED for reason in why_so)
        if published.missing and not forced:
            lost = f"{published.missing} is missing"
            return f"{lost}; restore it from a copy, or name {spec.name} to build it"
        taken_back = published.taken_back.get(self.tree.fingerprints[spec.name])
        if taken_back and not forced and not (base and base.action in WORK):
            return f"{taken_back}; change its spec, or name it to build it again"
        return None

    def _origin(self, spec: Spec, current: Current) -> str:
        upstream = self.upstream.get(spec.name)
        unknown = upstream.unknown if upstream else ""
        more = [reasons.unresolved(unknown)] if unknown else []
        # What is published would stay as no commit has it for as long as nobody changes the spec.
        in_no_commit = current.dirty or current.made_of == NO_COMMIT
        if in_no_commit and self.history.head and not self.why.uncommitted.behind([spec.name]):
            more += [f"lago-images ci rebuild {spec.name} makes it of the commit"]
        return "; ".join([reasons.origin(current), *more])

    def _promotable(
        self, spec: Spec, published: ImageHoldings, why_so: tuple[Reason, ...]
    ) -> Built | None:
        """Return the newest build that can be released instead of building again.

        A layer must stand on the very bytes that its base is offered with, or promoted with here.
        """
        if not self.ask.promote or any(reason.kind in ANEW for reason in why_so):
            return None
        is_layer = spec.base.kind is BaseKind.LAYER
        wanted, days = self._base_digest(spec), self.ask.promote_days
        for built in reversed(published.waiting):
            # Of an older build repo gc may remove the objects before this plan is carried out.
            is_safe = days is None or self.now - built.created < days * reasons.DAY
            is_same = built.fingerprint == self.tree.fingerprints[spec.name]
            is_whole = self.tree.also <= built.also and self._is_held(spec, built)
            if is_safe and is_same and is_whole and (built.base == wanted or not is_layer):
                return built
        return None

    def _is_held(self, spec: Spec, built: Built) -> bool:
        """Return whether the quarantine holds all back that failed in a build, today."""
        today = day(self.now)
        return all(
            self.tree.quarantine.holding(spec.name, None if what == BOOT else what, today)
            for what in built.failed
        )

    def _base(self, spec: Spec) -> PlannedImage | None:
        """Return what was decided of a layer's base."""
        return self.decided[spec.base.name] if spec.base.kind is BaseKind.LAYER else None

    def _base_digest(self, spec: Spec) -> str | None:
        """Return what the manifest of a layer must say that it stands on.

        None for other bases, and where that is not known yet: the base is to be built.
        """
        base = self._base(spec)
        if base is None or base.action is Action.BUILD:
            return None
        published = self._published(self.tree.specs[base.name])
        built = published.current.built if published.current else None
        if base.action is Action.PROMOTE:
            built = next(build for build in published.waiting if build.build == base.promote)
        return f"sha256:{built.sha256}" if built else None

    def _base_is_published(self, spec: Spec) -> bool:
        """Return whether what clients get of the base is what its spec says here."""
        current = self._published(self.tree.specs[spec.base.name]).current
        wanted = self.tree.fingerprints[spec.base.name]
        return current is not None and current.fingerprint == wanted

    def _published(self, spec: Spec) -> ImageHoldings:
        return self.holdings.images.get(ImageId(spec.name, spec.arch), _NOTHING)

    def _limited(self) -> Mapping[str, PlannedImage]:
        """Keep what was not asked for: but never a layer without its base."""
        wanted = {
            name
            for name, image in self.decided.items()
            if any(reason.kind in _ASKED for reason in image.reasons)
            or (self.ask.changed and self.why.is_touched(self.tree.specs[name]))
        }
        at_work = {name for name, image in self.decided.items() if image.action in WORK}
        for members in components(self.tree.specs, at_work):
            if wanted.isdisjoint(members):
                self.aside.update(members)
                for name in members:
                    image = self.decided[name]
                    note = f"not asked for here: {image.reasons[0].detail}"
                    self.decided[name] = replace(
                        image,
                        action=Action.KEEP,
                        reasons=(),
                        promote=None,
                        promote_sha256=None,
                        note=note,
                    )
        return self.decided


def _retired(why: reasons.Why) -> Iterator[PlannedImage]:
    for (name, arch), published in why.holdings.images.items():
        spec, current = why.tree.specs.get(name), published.current
        # A spec that changed its architecture leaves an image of the older one behind.
        if current is None or (spec is not None and spec.arch == arch):
            continue
        newer = why.history.relation(current.commit) is Relation.NEWER
        here = f"{spec.path} is for {spec.arch} now; what is published stays" if spec else None
        yield PlannedImage(
            name=name,
            arch=arch,
            action=Action.KEEP if newer else Action.RETIRE,
            base="",
            fingerprint="",
            revision=published.newest,
            note=_newer(current) if newer else here or why.retired(name, current),
        )


def _newer(current: Current) -> str:
    commit = reasons.short(current.commit)
    return f"revision {current.revision} of commit {commit} is newer than this checkout"
