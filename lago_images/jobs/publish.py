"""Make builds public: release what was planned and built, render, check."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from lago_images.building.model import Result
from lago_images.errors import RepositoryError, TamperedError
from lago_images.jobs import judge
from lago_images.jobs.build_offers import BuildOffers
from lago_images.jobs.outdated import record_outdated
from lago_images.jobs.plan import PLAN_ANEW, is_dirty, tree_of
from lago_images.jobs.workspace import Workspace
from lago_images.planning.line import Line, published_branch
from lago_images.planning.model import WORK, Action, Plan, PlannedImage, Tree
from lago_images.planning.uncommitted import Uncommitted
from lago_images.repository.publishing import releasing
from lago_images.repository.publishing.copying import Judged
from lago_images.repository.publishing.publisher import Publisher, publishing
from lago_images.repository.publishing.releasing import Decision, IsAncestor, ReleaseOutcome
from lago_images.repository.records.fields import line
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.release import NO_COMMIT, Release
from lago_images.repository.records.state import State, digest, survey
from lago_images.repository.rendering import spec_text
from lago_images.repository.rendering.access import access
from lago_images.repository.rendering.lago import metadata_file
from lago_images.repository.rendering.site import site_of
from lago_images.repository.statements.making import BUILDER, Statements
from lago_images.repository.statements.provenance import Origin, public_url
from lago_images.repository.verifying.after_publish import quick
from lago_images.repository.verifying.findings import (
    Finding,
    Severity,
    problem,
    restore_or_withdraw,
)
from lago_images.repository.verifying.web import base_url_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicationOutcome:
    """The outcome of a publication.

    Attributes:
        outcomes: Of every image that had a build, by name.
        missing: The images that were to be released and have no build.
        unbuilt: Why there is none, by name, of those that this run could not build.
        written: The rendered files that changed.
        findings: What a check of the published files found wrong.
        failed: By name, why an image that has a build was not released.
        waiting: The newest builds that no release was made of, of images that the plan keeps.
    """

    outcomes: Mapping[str, ReleaseOutcome]
    missing: tuple[str, ...]
    written: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    failed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    unbuilt: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    waiting: tuple[Manifest, ...] = ()

    @property
    def ok(self) -> bool:
        return not (self.missing or self.findings or self.failed)

    def why_missing(self, name: str) -> str:
        """Return why an image that is missing has no build."""
        return self.unbuilt.get(name, "it has no build")


def prove(workspace: Workspace) -> None:
    """Find out, before hours of building, whether what is built could be published.

    Raises as ``publish`` does, and ``StorageError`` for a repository that cannot be written.
    """
    with _publishing(workspace):
        pass


def refuse_settings(workspace: Workspace) -> None:
    """Raise ``SettingsError`` when what the settings say of the repository cannot be published."""
    site_of(workspace.settings, workspace.store.url)


def publish(
    workspace: Workspace,
    plan: Plan,
    results: Iterable[Result],
    *,
    seen: State | None = None,
    tree: Tree | None = None,
    outdated: bool = False,
    is_proven: bool = False,
) -> PublicationOutcome:
    """Release every build that the plan asked for, and bring the rendered files in line.

    Works from what is in the repository: a build is found by its fingerprint where its result
    did not get here or tells of a failure, unless settings say that no other run's is to be
    promoted. An image without a build is named, and keeps no other from being published.
    Rendering happens also when there is nothing to release: an earlier run may have died before.
    Nothing that the plan, the results or a manifest say is believed where the checkout says
    something else; see ``judge``.

    Args:
        workspace: Where the job works.
        plan: What was planned.
        results: How the builds that the plan asked for ended.
        seen: The repository as it was read earlier in this run: when nothing is to be done by
            that, it is not read again.
        tree: The specs as they were checked out when this run began; by default as they are now.
        outdated: Whether to ask outside what is outdated then, and record it.
        is_proven: Whether this run called ``prove``, which said what changes of name and URL.

    Raises:
        RepositoryError: The plan asks for what the checkout does not.
        SigningError: The signing key is missing or cannot sign; nothing was written.
        UnsafeStoreError: The store does not keep conditional writes; nothing was written.
    """
    tree, results = tree or tree_of(workspace), tuple(results)
    _refuse_other_plan(workspace, plan, tree)
    with _publishing(workspace, is_told=is_proven) as publisher:
        job = _Job(
            workspace=workspace,
            publisher=publisher,
            plan=plan,
            tree=tree,
            results={(result.name, result.arch): result for result in results},
            is_ancestor=_is_ancestor(workspace),
            origin=_origin(workspace),
            outdated=outdated,
        )
        return job.publish(seen)


def _publishing(
    workspace: Workspace, *, is_told: bool = False
) -> AbstractContextManager[Publisher]:
    return publishing(
        workspace.store,
        workspace.settings,
        console=workspace.console,
        environ=workspace.environ,
        now=workspace.clock,
        is_told=is_told,
    )


def _is_ancestor(workspace: Workspace) -> IsAncestor:
    """Ask git, and its remote, which of two commits is newer; outside git that is not known."""
    if workspace.git is None:
        return lambda _old, _new: None
    branch = published_branch(workspace.environ, workspace.settings.branch)
    return Line(git=workspace.git, branch=branch).is_older


def _origin(workspace: Workspace) -> Origin:
    """State what is true of every build: ``spec`` is the folder that their paths start from."""
    settings = workspace.settings
    return Origin(
        spec=workspace.git.prefix if workspace.git else "",
        repository=public_url((workspace.git and workspace.git.url()) or ""),
        builder=BUILDER,
        settings={
            "compression-level": str(settings.compression_level),
            "network": "true" if settings.network else "false",
            **({"publish-also": " ".join(settings.publish_also)} if settings.publish_also else {}),
        },
    )


def _refuse_other_plan(workspace: Workspace, plan: Plan, tree: Tree) -> None:
    """Refuse a plan that somebody changed, or that was made for another checkout."""
    if not any(image.action in WORK for image in plan.images):
        return
    head = workspace.git.head() if workspace.git else None
    promote = workspace.settings.promote != "never"
    if problems := judge.plan_problems(plan, tree, head, promote=promote):
        raise RepositoryError(
            f"the plan is not one of what is checked out here: {'; '.join(problems)}",
            hint=PLAN_ANEW,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Carry out one publication of what a plan says.

    Attributes:
        results: How the builds of this run ended, by name and architecture.
        is_ancestor: Asks git and its remote which of two commits is newer.
        origin: What the builds' statements have in common.
        outdated: Whether to record what is outdated.
    """

    workspace: Workspace
    publisher: Publisher
    plan: Plan
    tree: Tree
    results: Mapping[tuple[str, str], Result]
    is_ancestor: IsAncestor
    origin: Origin
    outdated: bool = False

    def publish(self, seen: State | None) -> PublicationOutcome:
        """Release, record the commit, render and check; ``seen`` is what was read before."""
        store = self.workspace.store
        # What was read earlier in this run is good enough to find that nothing is to be done: a
        # publisher that came since has rendered what it released.
        state = seen or survey(store)
        if not self.outdated and self.is_done(state):
            lost, waiting = tuple(_lost(state, state)), self.waiting(state)
            return PublicationOutcome(
                outcomes={}, missing=(), written=(), findings=lost, waiting=waiting
            )
        # What is written must be listed after the ETags that the publisher has read.
        state = survey(store) if seen else state
        builds, missing = self.builds(state)
        outcomes, failed = self.release(builds, state)
        if not outcomes and not state.releases:
            # Nothing was ever published, and nothing is now: an empty repository stays empty.
            return PublicationOutcome(
                outcomes={}, missing=missing, written=(), failed=failed, unbuilt=self.unbuilt
            )
        head = None if missing or failed else self.to_record
        # Released, recorded, listed, looked at: the order that the argument in ``releasing`` needs.
        if head:
            releasing.record_commit(store, head, is_ancestor=self.is_ancestor)
        refreshed = self.publisher.refresh()
        if head and (replaced := self.replaced(refreshed.state)):
            again, failed = self.release(replaced, refreshed.state)
            outcomes |= again
            refreshed = self.publisher.refresh()
        # At last: sources that do not answer keep nothing from clients.
        if self.outdated and record_outdated(self.workspace, self.tree):
            refreshed = self.publisher.refresh()
        return PublicationOutcome(
            outcomes=outcomes,
            missing=missing,
            written=refreshed.written,
            findings=(
                *self.check([each.release for each in outcomes.values()], refreshed.state),
                *_lost(state, refreshed.state),
            ),
            failed=failed,
            unbuilt=self.unbuilt,
            waiting=self.waiting(state),
        )

    def waiting(self, state: State) -> tuple[Manifest, ...]:
        """Find the builds that are newer than all that was released of the same kept spec."""
        newest = {(each.key.image, each.fingerprint): each for each in state.unreleased()[::-1]}
        kept = [image for image in self.plan.images if image.action is Action.KEEP]
        builds = (newest.get((ImageId(each.name, each.arch), each.fingerprint)) for each in kept)
        return tuple(build for build in builds if build and _is_newer(state, build))

    @property
    def unbuilt(self) -> dict[str, str]:
        """Return, by name, why this run has no build of what it was to build."""
        return {
            result.name: f"its base {result.skipped} failed"
            if result.skipped
            else "its build failed"
            for result in self.results.values()
            if not result.ok
        }

    def check(self, releases: list[Release], state: State) -> tuple[Finding, ...]:
        """Return what is wrong with what was published, as clients see it; a note is a warning."""
        # Each of these harms its image alone, which rendering left as it was.
        repair = "restore it from a copy: lago-images repo verify lists all that is wrong"
        damaged = [
            problem(str(key), message, repair)
            for key, message in sorted(state.damaged_unaccepted.items())
        ]
        base_url = self.publisher.site.base_url
        finding = base_url_problem(self.workspace.store, base_url, self.workspace.environ)
        if finding and finding.severity is Severity.NOTE:
            self.workspace.console.warn(f"{finding.where}: {finding.what}; {finding.repair}")
            finding = None
        return (*quick(self.publisher, releases), *damaged, *([finding] if finding else []))

    def builds(
        self, state: State
    ) -> tuple[list[tuple[PlannedImage, Judged | Release]], tuple[str, ...]]:
        """Find the build of each image to release, a base before its layers; and name the rest."""
        offers = BuildOffers(
            state=state,
            plan=self.plan,
            results=self.results,
            forms=self.tree.also,
            is_promoting=self.workspace.is_promoting,
        )
        places = {name: number for chain in self.plan.chains for number, name in enumerate(chain)}
        builds: list[tuple[PlannedImage, Judged | Release]] = []
        missing = []
        for image in self.plan.images:
            if image.action not in WORK:
                continue
            judged = offers.build_of(image)
            if judged is None:
                missing.append(image.name)
            else:
                spec = self.tree.specs[image.name]
                wanted = replace(
                    judged,
                    metadata=metadata_file(judged.manifest, spec),
                    spec=spec_text.render(spec),
                    access=access(spec, self.tree.specs),
                    also=self.tree.also,
                )
                builds.append((image, wanted))
        # A layer's release binds that of its base, which has to exist by then.
        builds.sort(key=lambda pair: places.get(pair[0].name, 0))
        return builds, tuple(missing)

    @property
    def to_record(self) -> str | None:
        """Return the commit that is published when all that the plan says is done."""
        return None if self.plan.dirty or self.plan.partial else self.plan.head

    def is_done(self, state: State) -> bool:
        """Return whether nothing is to be released, recorded or rendered."""
        if state.damaged or any(image.action in WORK for image in self.plan.images):
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
        store = self.publisher.store
        uncommitted = Uncommitted.of(self.tree)
        for image, build in builds:
            # What is public already was judged when it was released first.
            object_to = self.workspace.objection
            if object_to and isinstance(build, Judged) and (why := object_to(build.manifest)):
                failed[image.name] = why
                continue
            decision = Decision(
                released=self.publisher.author.of(
                    self.plan.head or NO_COMMIT,
                    dirty=is_dirty(self.plan, uncommitted, image.name),
                    repository=line(self.origin.repository),
                ),
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
                failed[image.name] = "; ".join(filter(None, (error.message, error.hint)))
        return outcomes, failed

    def _statements(self, judged: Judged) -> Statements:
        """Return what makes the statements of a build of ours, or of another run's."""
        manifest, author = judged.manifest, self.publisher.author
        result = self.results.get((manifest.name, manifest.arch))
        reported = result.manifest if result else None
        # The run's URL is stated only of what this very run built.
        is_own = reported is not None and (
            reported.key == manifest.key and reported.created >= self.plan.made
        )
        origin = replace(
            self.origin,
            spec=f"{self.origin.spec}{self.tree.specs[manifest.name].path}",
            run=author.run if is_own else "",
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
        problems = judge.problems(
            manifest,
            digest(manifest),
            image,
            self.tree.specs.get(image.name),
            self.tree,
            self.publisher.now(),
            base_sha256=_base_disk(manifest, state, outcomes),
        )
        if problems:
            raise TamperedError(f"{staging.folder} is not what is wanted: {'; '.join(problems)}")

    def replaced(self, state: State) -> list[tuple[PlannedImage, Release]]:
        """Find what an older commit's publisher replaced, each with what to release again."""
        releases = []
        for image in self.plan.images:
            release = releasing.replaced_by_older(
                state,
                ImageId(image.name, image.arch),
                image.fingerprint,
                commit=self.plan.head or "",
                known_revision=image.revision,
                is_ancestor=self.is_ancestor,
            )
            if release:
                releases.append((image, release))
        return releases


def _base_disk(
    manifest: Manifest, state: State, outcomes: Mapping[str, ReleaseOutcome]
) -> str | None:
    """Return the SHA-256 of the disk that a layer's base is offered with, or got released here."""
    base = manifest.base_key
    if base is None:
        return None
    offered = list(state.live(base.name, base.arch))
    if base.name in outcomes:
        offered.append(outcomes[base.name].release)
    same = [release for release in offered if release.build == base.build_id]
    released = (same or offered)[-1:]
    return next((release.manifest.disk.sha256 for release in released if release.manifest), None)


def _is_newer(state: State, build: Manifest) -> bool:
    """Return whether the same spec was released, and only of older builds."""
    released = [
        release.manifest.created
        for release in state.history(build.name, build.arch)
        if release.manifest and release.fingerprint == build.fingerprint
    ]
    return bool(released) and build.created >= max(released)


def _lost(surveyed: State, state: State) -> Iterator[Finding]:
    """Find what clients get now and what the list, made before, lacks or has of another size."""
    for image in state.images:
        release = state.current(*image)
        if release and release.public in surveyed.lost:
            repair = restore_or_withdraw(release.public, [release.revision], "lost")
            message = f"an object of {release.key}, which clients are offered, is lost or cut"
            yield problem(release.public.folder, message, repair)
