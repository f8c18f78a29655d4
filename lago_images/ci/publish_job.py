"""The job that makes builds public: release what was planned and built, render, check."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType

from lago_images.building.model import Result
from lago_images.ci.workspace import Workspace
from lago_images.errors import RepositoryError
from lago_images.planning.model import WORK, Action, Plan, PlannedImage, ReasonKind
from lago_images.repository.held import held
from lago_images.repository.layout import BuildKey
from lago_images.repository.manifest import Manifest
from lago_images.repository.publisher import Publisher, publishing
from lago_images.repository.release import NO_COMMIT
from lago_images.repository.releasing import IsAncestor, Outcome
from lago_images.repository.site import site_of
from lago_images.repository.state import State, read
from lago_images.repository.verify_model import Finding
from lago_images.repository.verify_quick import quick

_ASKED = {ReasonKind.FORCED, ReasonKind.STALE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """How a publication ended.

    Attributes:
        outcomes: Of every image that had a build, by name.
        missing: The images that were to be released and have no build.
        written: The rendered files that changed.
        findings: What a check of the published files found wrong.
        failed: By name, why an image that has a build was not released.
    """

    outcomes: Mapping[str, Outcome]
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
    """Raises ``SettingsError`` when what the settings say of the repository cannot be published."""
    site_of(work.settings, work.store.url)


def publish(
    work: Workspace, made: Plan, results: Iterable[Result], *, seen: State | None = None
) -> Published:
    """Release every build that the plan asked for, and bring the rendered files in line.

    Works from what is in the repository: a build is found by its fingerprint where its result
    did not get here or tells of a failure, unless settings say that no other run's is to be
    promoted. An image without a build is named, and keeps no other from being published.
    Rendering happens also when there is nothing to release: an earlier run may have died before.
    ``seen`` is the repository as it was read earlier in this run: when nothing is to be done by
    that, it is not read again.

    Raises:
        SigningError: The signing key is missing or cannot sign; nothing was written.
        UnsafeStoreError: The store does not keep conditional writes; nothing was written.
    """
    with _publishing(work) as publisher:
        state = seen or read(work.store)
        if _is_done(publisher, made, state, _ancestry(work)):
            return Published(outcomes={}, missing=(), written=())
        # What is written must be listed after the ETags that the publisher has read.
        state = read(work.store) if seen else state
        builds, missing = _builds(state, work, made, results)
        outcomes, failed = _release_all(work, publisher, made, builds, state)
        if not outcomes and not state.releases:
            # Nothing was ever published, and nothing is now: an empty repository stays empty.
            return Published(outcomes={}, missing=missing, written=(), failed=failed)
        head = None if missing or failed else _to_record(made)
        if head:
            # First: an older commit's publisher that does not see it yet is seen by the refresh.
            publisher.record(head, is_ancestor=_ancestry(work))
        refreshed = publisher.refresh()
        replaced = _replaced(refreshed.state, made, _ancestry(work)) if head else []
        if replaced:
            again, failed = _release_all(work, publisher, made, replaced, refreshed.state)
            outcomes |= again
            refreshed = publisher.refresh()
        findings = quick(publisher, [outcome.release for outcome in outcomes.values()])
    return Published(
        outcomes=outcomes,
        missing=missing,
        written=refreshed.written,
        findings=findings,
        failed=failed,
    )


def _is_done(publisher: Publisher, made: Plan, state: State, is_ancestor: IsAncestor) -> bool:
    """Whether nothing is to be released, recorded or rendered."""
    if any(image.action in WORK for image in made.images):
        return False
    if head := _to_record(made):
        published = state.published.commit if state.published else None
        if published != head or _replaced(state, made, is_ancestor):
            return False
    return publisher.is_rendered(state)


def _to_record(made: Plan) -> str | None:
    """The commit that is published when all that a plan says is done."""
    return None if made.dirty or made.partial else made.head


def _publishing(work: Workspace) -> AbstractContextManager[Publisher]:
    return publishing(
        work.store,
        work.settings,
        console=work.console,
        environ=work.environ,
        now=work.clock,
    )


def _builds(
    state: State, work: Workspace, made: Plan, results: Iterable[Result]
) -> tuple[list[tuple[PlannedImage, Manifest]], tuple[str, ...]]:
    # Of builds that nobody released, this run's alone are to be released then.
    others = work.settings.promote != "never"
    ended = {(result.name, result.arch): result for result in results}
    found, missing = [], []
    for image in made.images:
        if image.action not in WORK:
            continue
        result = ended.get((image.name, image.arch))
        manifest = _build_of(state, made, image, result, others=others)
        if manifest is None:
            missing.append(image.name)
        else:
            found.append((image, manifest))
    return found, tuple(missing)


def _build_of(
    state: State, made: Plan, image: PlannedImage, result: Result | None, *, others: bool
) -> Manifest | None:
    if image.action is Action.PROMOTE and image.promote:
        return _in(state, image, image.promote)
    if result is not None and result.manifest is not None:
        manifest = _in(state, image, result.manifest.build_id)
        # A result is a file that somebody wrote: the build it names may be another run's.
        return manifest if manifest and (others or manifest.created >= made.made) else None
    # After a failure, a later attempt of this run may have built what it could not tell of.
    failed = result is not None
    asked = any(reason.kind in _ASKED for reason in image.reasons)
    # What a forced or stale entry asks for is a build that was made after it was asked.
    since = made.made if asked or failed else 0
    unreleased = state.unreleased(image.fingerprint) if others else ()
    fitting = (
        manifest
        for manifest in (*unreleased, *_released(state, image))
        if manifest.name == image.name
        and manifest.arch == image.arch
        and manifest.fingerprint == image.fingerprint
        and manifest.created >= since
    )
    return next(fitting, None)


def _in(state: State, image: PlannedImage, build_id: str) -> Manifest | None:
    key = BuildKey(name=image.name, arch=image.arch, build_id=build_id)
    manifest = None if key in state.incomplete else state.manifests.get(key)
    return manifest if manifest and manifest.fingerprint == image.fingerprint else None


def _released(state: State, image: PlannedImage) -> tuple[Manifest, ...]:
    """The build of the current release, where another run was faster than this one."""
    current = state.current(image.name, image.arch)
    manifest = current and state.manifest(current)
    return (manifest,) if current and manifest and current.revision > image.revision else ()


def _release_all(
    work: Workspace,
    publisher: Publisher,
    made: Plan,
    builds: Iterable[tuple[PlannedImage, Manifest]],
    state: State,
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """What became of each image, and why those that failed did."""
    outcomes: dict[str, Outcome] = {}
    failed: dict[str, str] = {}
    for image, manifest in builds:
        try:
            outcomes[image.name] = _release(work, publisher, made, image, manifest, state)
        except RepositoryError as error:
            # A damaged build keeps no other image from being published.
            failed[image.name] = error.message
    return outcomes, failed


def _release(
    work: Workspace,
    publisher: Publisher,
    made: Plan,
    image: PlannedImage,
    manifest: Manifest,
    state: State,
) -> Outcome:
    return publisher.release(
        manifest,
        commit=made.head or NO_COMMIT,
        known_revision=image.revision,
        is_ancestor=_ancestry(work),
        state=state,
    )


def _replaced(
    state: State, made: Plan, is_ancestor: IsAncestor
) -> list[tuple[PlannedImage, Manifest]]:
    """What an older commit's publisher replaced before it could see that this one published."""
    found = ((image, _wanted(state, made, image, is_ancestor)) for image in made.images)
    return [(image, manifest) for image, manifest in found if manifest]


def _wanted(
    state: State, made: Plan, image: PlannedImage, is_ancestor: IsAncestor
) -> Manifest | None:
    """The build that clients are to get, if they get an older commit's, released meanwhile."""
    current = state.current(image.name, image.arch)
    if current is None or current.revision <= image.revision:
        return None
    taken_back = held(state.history(image.name, image.arch))
    if image.fingerprint in {current.fingerprint, *taken_back}:
        return None
    if current.commit != made.head and not is_ancestor(current.commit, made.head or ""):
        return None
    live = state.live(image.name, image.arch)
    wanted = [one for one in live if one.fingerprint == image.fingerprint]
    return state.manifest(wanted[-1]) if wanted else None


def _ancestry(work: Workspace) -> IsAncestor:
    return work.git.is_ancestor if work.git else _unknown


def _unknown(_old: str, _new: str) -> None:
    """Outside git no commit is known to come from another."""
