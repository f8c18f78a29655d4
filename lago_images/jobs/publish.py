"""The job that makes builds public: release what was planned and built, render, check."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from lago_images.building.model import Result
from lago_images.errors import RepositoryError, TamperedError
from lago_images.jobs import judge
from lago_images.jobs.plan import tree_of
from lago_images.jobs.workspace import Workspace
from lago_images.planning.line import Line, published_branch
from lago_images.planning.model import WORK, Action, Plan, PlannedImage, ReasonKind, Tree
from lago_images.repository.publishing import releasing
from lago_images.repository.publishing.copying import Judged
from lago_images.repository.publishing.publisher import Publisher, publishing
from lago_images.repository.publishing.releasing import Decision, IsAncestor, ReleaseOutcome
from lago_images.repository.records.layout import BuildKey, ImageId
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.release import NO_COMMIT, Release
from lago_images.repository.records.state import State, digest, survey
from lago_images.repository.rendering.lago import metadata_file
from lago_images.repository.rendering.site import site_of
from lago_images.repository.statements.making import BUILDER, Statements
from lago_images.repository.statements.provenance import Origin, public_url
from lago_images.repository.verifying.after_publish import quick
from lago_images.repository.verifying.findings import Finding, problem

_ASKED = {ReasonKind.FORCED, ReasonKind.STALE}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicationOutcome:
    """Tell how a publication ended.

    Attributes:
        outcomes: Of every image that had a build, by name.
        missing: The images that were to be released and have no build.
        written: The rendered files that changed.
        findings: What a check of the published files found wrong.
        failed: By name, why an image that has a build was not released.
    """

    outcomes: Mapping[str, ReleaseOutcome]
    missing: tuple[str, ...]
    written: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    failed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def ok(self) -> bool:
        return not (self.missing or self.findings or self.failed)


def prove(work: Workspace) -> None:
    """Find out, before hours of building, whether what is built could be published.

    Raises as ``publish`` does, and ``StorageError`` for a repository that cannot be written.
    """
    with _publishing(work):
        pass


def refuse_settings(work: Workspace) -> None:
    """Raise ``SettingsError`` when what the settings say of the repository cannot be published."""
    site_of(work.settings, work.store.url)


def publish(
    work: Workspace,
    made: Plan,
    results: Iterable[Result],
    *,
    seen: State | None = None,
    tree: Tree | None = None,
) -> PublicationOutcome:
    """Release every build that the plan asked for, and bring the rendered files in line.

    Works from what is in the repository: a build is found by its fingerprint where its result
    did not get here or tells of a failure, unless settings say that no other run's is to be
    promoted. An image without a build is named, and keeps no other from being published.
    Rendering happens also when there is nothing to release: an earlier run may have died before.
    Nothing that the plan, the results or a manifest say is believed where the checkout says
    something else; see ``judge``.

    Args:
        work: Where the job works.
        made: The plan.
        results: How the builds that the plan asked for ended.
        seen: The repository as it was read earlier in this run: when nothing is to be done by
            that, it is not read again.
        tree: The specs as they were checked out when this run began; by default as they are now.

    Raises:
        RepositoryError: The plan asks for what the checkout does not.
        SigningError: The signing key is missing or cannot sign; nothing was written.
        UnsafeStoreError: The store does not keep conditional writes; nothing was written.
    """
    is_ancestor = _is_ancestor(work)
    tree, results = tree or tree_of(work), tuple(results)
    _refuse_other_plan(work, made, tree)
    with _publishing(work) as publisher:
        job = _Job(
            publisher=publisher,
            made=made,
            tree=tree,
            is_ancestor=is_ancestor,
            objection=work.objection,
            origin=_origin(work),
            own=frozenset(
                result.manifest.key
                for result in results
                if result.manifest and result.manifest.created >= made.made
            ),
        )
        state = seen or survey(work.store)
        if job.is_done(state):
            return PublicationOutcome(outcomes={}, missing=(), written=())
        # What is written must be listed after the ETags that the publisher has read.
        state = survey(work.store) if seen else state
        builds, missing = _builds(state, work, made, tree, results)
        outcomes, failed = job.release(builds, state)
        if not outcomes and not state.releases:
            # Nothing was ever published, and nothing is now: an empty repository stays empty.
            return PublicationOutcome(outcomes={}, missing=missing, written=(), failed=failed)
        head = None if missing or failed else job.to_record
        # Released, recorded, listed, looked at: the order that the argument in ``releasing`` needs.
        if head:
            releasing.record_commit(work.store, head, is_ancestor=is_ancestor)
        refreshed = publisher.refresh()
        replaced = job.replaced(refreshed.state) if head else []
        if replaced:
            again, failed = job.release(replaced, refreshed.state)
            outcomes |= again
            refreshed = publisher.refresh()
        findings = quick(publisher, [outcome.release for outcome in outcomes.values()])
        findings += _damaged(refreshed.state)
    return PublicationOutcome(
        outcomes=outcomes,
        missing=missing,
        written=refreshed.written,
        findings=findings,
        failed=failed,
    )


def _publishing(work: Workspace) -> AbstractContextManager[Publisher]:
    return publishing(
        work.store,
        work.settings,
        console=work.console,
        environ=work.environ,
        now=work.clock,
    )


def _is_ancestor(work: Workspace) -> IsAncestor:
    """Ask git, and its remote, which of two commits is newer; outside git that is not known."""
    if work.git is None:
        return lambda _old, _new: None
    branch = published_branch(work.environ, work.settings.branch)
    return Line(git=work.git, branch=branch).is_older


def _origin(work: Workspace) -> Origin:
    """State what is true of every build: ``spec`` is the folder that their paths start from."""
    settings = work.settings
    return Origin(
        spec=work.git.prefix if work.git else "",
        repository=public_url((work.git and work.git.url()) or ""),
        builder=BUILDER,
        settings={
            "compression-level": str(settings.compression_level),
            "network": "true" if settings.network else "false",
        },
    )


def _refuse_other_plan(work: Workspace, made: Plan, tree: Tree) -> None:
    """Refuse a plan that somebody changed, or that was made for another checkout."""
    if not any(image.action in WORK for image in made.images):
        return
    head = work.git.head() if work.git else None
    promote = work.settings.promote != "never"
    if wrong := judge.plan_problems(made, tree, head, promote=promote):
        raise RepositoryError(
            f"the plan is not one of what is checked out here: {'; '.join(wrong)}",
            hint="check out the plan's commit, or make the plan again",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One publication of what a plan says.

    ``own`` are the builds that this very run made; ``origin`` is what all builds have in common.
    """

    publisher: Publisher
    made: Plan
    tree: Tree
    is_ancestor: IsAncestor
    origin: Origin
    own: frozenset[BuildKey]
    objection: Callable[[Manifest], str | None] | None = None

    @property
    def to_record(self) -> str | None:
        """Return the commit that is published when all that the plan says is done."""
        return None if self.made.dirty or self.made.partial else self.made.head

    def is_done(self, state: State) -> bool:
        """Tell whether nothing is to be released, recorded or rendered."""
        if state.damaged or any(image.action in WORK for image in self.made.images):
            return False
        if head := self.to_record:
            recorded = state.published.commit if state.published else None
            if recorded != head or self.replaced(state):
                return False
        return self.publisher.is_rendered(state)

    def release(
        self, builds: Iterable[tuple[PlannedImage, Judged | Release]], state: State
    ) -> tuple[dict[str, ReleaseOutcome], dict[str, str]]:
        """Release builds; by name, what became of each, and why those that failed did."""
        outcomes: dict[str, ReleaseOutcome] = {}
        failed: dict[str, str] = {}
        store, commit = self.publisher.store, self.made.head or NO_COMMIT
        for image, build in builds:
            if why := self.why_not(build):
                failed[image.name] = why
                continue
            decision = Decision(
                released=self.publisher.author.of(commit, dirty=self.made.dirty),
                known_revision=image.revision,
                is_ancestor=self.is_ancestor,
                now=self.publisher.now,
                statements=None if isinstance(build, Release) else self._statements(build),
            )
            try:
                if isinstance(build, Release):
                    outcome = releasing.release_again(store, build, decision, state=state)
                else:
                    self._refuse_other(image, build, state, outcomes)
                    outcome = releasing.release(store, build, decision, state=state)
                outcomes[image.name] = outcome
            except (RepositoryError, TamperedError) as error:
                # A damaged build keeps no other image from being published.
                failed[image.name] = error.message
        return outcomes, failed

    def why_not(self, build: Judged | Release) -> str | None:
        """Say why a build must not be made public; what is public already was judged then."""
        if self.objection is None or isinstance(build, Release):
            return None
        return self.objection(build.manifest)

    def _statements(self, judged: Judged) -> Statements:
        manifest, author = judged.manifest, self.publisher.author
        origin = replace(
            self.origin,
            spec=f"{self.origin.spec}{self.tree.specs[manifest.name].path}",
            run=author.run if manifest.key in self.own else "",
        )
        return Statements(signer=self.publisher.signer, origin=origin)

    def _refuse_other(
        self,
        image: PlannedImage,
        judged: Judged,
        state: State,
        outcomes: Mapping[str, ReleaseOutcome],
    ) -> None:
        """Raise ``TamperedError`` for a build that is not what the plan and the checkout want."""
        manifest, staging = judged.manifest, judged.manifest.key.staging
        staged = state.staged.get(manifest.key)
        if staged and digest(staged) != judged.sha256:
            raise TamperedError(
                f"{staging.manifest} has sha256 {digest(staged)}; what was judged has "
                f"{judged.sha256}"
            )
        wrong = judge.problems(
            manifest,
            digest(manifest),
            image,
            self.tree.specs.get(image.name),
            self.tree,
            self.publisher.now(),
            base_sha256=_base_disk(manifest, state, outcomes),
        )
        if wrong:
            raise TamperedError(f"{staging.folder} is not what is wanted: {'; '.join(wrong)}")

    def replaced(self, state: State) -> list[tuple[PlannedImage, Release]]:
        """Find what an older commit's publisher replaced, each with what to release again."""
        releases = []
        for image in self.made.images:
            release = releasing.replaced_by_older(
                state,
                ImageId(image.name, image.arch),
                image.fingerprint,
                commit=self.made.head or "",
                known_revision=image.revision,
                is_ancestor=self.is_ancestor,
            )
            if release:
                releases.append((image, release))
        return releases


def _base_disk(
    manifest: Manifest, state: State, outcomes: Mapping[str, ReleaseOutcome]
) -> str | None:
    """The SHA-256 of the disk that a layer's base is offered with, or was released with here."""
    base = manifest.base_key
    if base is None:
        return None
    offered = list(state.live(base.name, base.arch))
    if base.name in outcomes:
        offered.append(outcomes[base.name].release)
    same = [one for one in offered if one.build == base.build_id]
    released = (same or offered)[-1:]
    return next((one.manifest.disk.sha256 for one in released if one.manifest), None)


def _damaged(state: State) -> tuple[Finding, ...]:
    """Name the releases that could not be read, each of which harms its image alone."""
    repair = "restore it from a copy: lago-images repo verify lists all that is wrong"
    return tuple(problem(str(key), what, repair) for key, what in sorted(state.damaged.items()))


def _builds(
    state: State, work: Workspace, made: Plan, tree: Tree, results: Iterable[Result]
) -> tuple[list[tuple[PlannedImage, Judged | Release]], tuple[str, ...]]:
    """Find the build of each image that is to be released, a base before its layers."""
    # Of builds that nobody released, this run's alone are to be released then.
    others = work.is_promoting
    ended = {(result.name, result.arch): result for result in results}
    places = {name: number for chain in made.chains for number, name in enumerate(chain)}
    builds: list[tuple[PlannedImage, Judged | Release]] = []
    missing = []
    for image in made.images:
        if image.action not in WORK:
            continue
        result = ended.get((image.name, image.arch))
        judged = _build_of(state, made, image, result, others=others)
        if judged is None:
            missing.append(image.name)
        else:
            spec = tree.specs[image.name]
            metadata = metadata_file(judged.manifest, spec)
            builds.append((image, replace(judged, metadata=metadata)))
    builds.sort(key=lambda pair: places.get(pair[0].name, 0))
    return builds, tuple(missing)


def _build_of(
    state: State, made: Plan, image: PlannedImage, result: Result | None, *, others: bool
) -> Judged | None:
    if image.action is Action.PROMOTE and image.promote:
        return _promoted(state, image, image.promote)
    if result is not None and result.manifest is not None:
        judged = _built(state, image, result.manifest)
        # A result is a file that somebody wrote: the build it names may be another run's.
        is_ours = judged is not None and (others or judged.manifest.created >= made.made)
        return judged if is_ours else None
    # After a failure, a later attempt of this run may have built what it could not report.
    failed = result is not None
    asked = any(reason.kind in _ASKED for reason in image.reasons)
    # What a forced or stale entry asks for is a build that was made after it was asked.
    since = made.made if asked or failed else 0
    unreleased = state.unreleased(image.fingerprint) if others else ()
    fitting = (
        Judged(manifest=manifest, sha256=digest(manifest))
        for manifest in (*unreleased, *_released(state, image))
        if manifest.name == image.name
        and manifest.arch == image.arch
        and manifest.fingerprint == image.fingerprint
        and manifest.created >= since
    )
    return next(fitting, None)


def _promoted(state: State, image: PlannedImage, build_id: str) -> Judged | None:
    """Return the staged build that the plan promotes, by the digest that the plan has of it."""
    key = BuildKey(name=image.name, arch=image.arch, build_id=build_id)
    if not _is_there(state, key):
        return None
    manifest = state.staged.get(key) or _of_release(state, key)
    if manifest is None or manifest.fingerprint != image.fingerprint:
        return None
    return Judged(manifest=manifest, sha256=image.promote_sha256 or digest(manifest))


def _built(state: State, image: PlannedImage, manifest: Manifest) -> Judged | None:
    """The build that a result reports: what is staged under its name must have its digest."""
    key = BuildKey(name=image.name, arch=image.arch, build_id=manifest.build_id)
    is_other = manifest.key != key or manifest.fingerprint != image.fingerprint
    if is_other or not _is_there(state, key):
        return None
    return Judged(manifest=manifest, sha256=digest(manifest))


def _is_there(state: State, key: BuildKey) -> bool:
    """Tell whether a build is staged, be it damaged, or was released already."""
    if key in state.released_builds or key in state.unreadable:
        return True
    return key in state.staged and key not in state.incomplete


def _of_release(state: State, key: BuildKey) -> Manifest | None:
    history = state.history(key.name, key.arch)
    manifests = (release.manifest for release in history)
    return next((one for one in manifests if one and one.key == key), None)


def _released(state: State, image: PlannedImage) -> tuple[Manifest, ...]:
    """Return the build of the current release, where another run was faster than this one."""
    current = state.current(image.name, image.arch)
    newer = current is not None and current.revision > image.revision
    return (current.manifest,) if newer and current and current.manifest else ()
