"""Run the job that builds: what a plan names, on this host, into ``builds/``."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from lago_images.building.chain import build_chains
from lago_images.building.model import Request, Result
from lago_images.errors import RepositoryError, UsageError
from lago_images.host import kvm
from lago_images.host.process import Runner
from lago_images.jobs.plan import PLAN_ANEW, is_dirty, tree_of
from lago_images.jobs.workspace import Workspace
from lago_images.planning.model import Action, Plan, PlannedImage, Tree
from lago_images.planning.uncommitted import Uncommitted
from lago_images.repository.records.layout import BuildKey
from lago_images.repository.records.release import NO_COMMIT
from lago_images.repository.records.state import State, StoredBuild, survey
from lago_images.specs.bases import descent, required_firmwares
from lago_images.specs.choosing import chosen
from lago_images.specs.model import BaseKind

_HINT = "lago-images ci plan shows what it has; make the plan again if the specs changed"


def build(
    workspace: Workspace, plan: Plan, names: Sequence[str], *, goal: str = ""
) -> list[Result]:
    """Build what ``names`` mean of a plan, side by side where they do not stand on each other.

    They are names, or patterns of names. Everything lands in ``builds/`` of the repository, and
    nothing is made public. When the image ``goal`` fails, those that it stands on are stopped.

    Raises:
        UsageError: A name is not in the plan, or a pattern matches nothing there.
        HostError: Working KVM is required and does not work.
        RepositoryError: A promoted base is not the one that the plan names.
    """
    # Judged again here: a plan comes as an artifact, and another commit may be checked out.
    requests = _requests(workspace, plan, names)
    chains = [
        chain
        for members in plan.chains
        if (chain := [requests[name] for name in members if name in requests])
    ]
    if not chains:
        return []
    may_start_guest = any(request.may_start_guest for chain in chains for request in chain)
    is_asked = may_start_guest or workspace.settings.require_kvm
    accel = kvm.detect(Runner(environ=workspace.environ)) if is_asked else kvm.UNASKED
    jobs = workspace.settings.jobs
    return build_chains(chains, workspace, accel=accel, jobs=jobs, goal=goal)


def _requests(workspace: Workspace, plan: Plan, names: Sequence[str]) -> Mapping[str, Request]:
    tree = tree_of(workspace)
    # What is retired has no fingerprint, and may have a spec's name and another architecture.
    planned = {image.name: image for image in plan.images if image.fingerprint}
    wanted = [
        image
        for name in chosen(names, planned, otherwise=_HINT, where=" in the plan")
        if (image := planned[name]).action is Action.BUILD
    ]
    _refuse_other_specs(tree, wanted)
    here = {image.name for image in wanted}
    state = survey(workspace.store)
    bases = _bases(state, tree, planned, here)
    uncommitted = Uncommitted.of(tree)
    lines = {image.name: tuple(descent(tree.specs[image.name], tree.specs)) for image in wanted}
    return {
        image.name: Request(
            spec=tree.specs[image.name],
            fingerprint=image.fingerprint,
            commit=plan.head or NO_COMMIT,
            dirty=is_dirty(plan, uncommitted, image.name),
            base=bases.get(image.name),
            expected=_expected(state, image),
            below=lines[image.name][1:],
            firmwares=required_firmwares(tree.specs[image.name], tree.specs),
            grows=lines[image.name][-1].base.kind is BaseKind.BOOTSTRAP,
            quarantine=tree.quarantine,
        )
        for image in wanted
    }


def _expected(state: State, image: PlannedImage) -> float | None:
    """Return how long the published build of an image took."""
    current = state.current(image.name, image.arch)
    return current.manifest.seconds if current and current.manifest else None


def _refuse_other_specs(tree: Tree, wanted: Iterable[PlannedImage]) -> None:
    for image in wanted:
        if tree.fingerprints.get(image.name) != image.fingerprint:
            raise UsageError(
                f"the plan was not made for what is checked out here: {image.name} differs",
                hint=PLAN_ANEW,
            )


def _bases(
    state: State, tree: Tree, planned: Mapping[str, PlannedImage], here: set[str]
) -> Mapping[str, StoredBuild]:
    """Find the builds in the repository that layers to build here stand on, by layer."""
    bases = {}
    for name in here:
        base = tree.specs[name].base
        if base.kind is not BaseKind.LAYER or base.name in here:
            continue
        stored = _base_build(state, tree, planned[base.name])
        if stored is None:
            raise UsageError(
                f"{name} stands on {base.name}, which is neither published nor built here",
                hint=f"build both: lago-images ci build {base.name} {name}",
            )
        bases[name] = stored
    return bases


def _base_build(state: State, tree: Tree, base: PlannedImage) -> StoredBuild | None:
    """Return a base's public copy, or the staged build where this run is to release it."""
    if base.action is Action.PROMOTE and base.promote:
        key = BuildKey(name=base.name, arch=base.arch, build_id=base.promote)
        manifest = None if key in state.incomplete else state.staged.get(key)
        # Whoever holds a builder's key may have overwritten it since the plan was made.
        if manifest and hashlib.sha256(manifest.to_json()).hexdigest() != base.promote_sha256:
            raise RepositoryError(
                f"{key.staging.folder} is not the build that the plan promotes: it was changed "
                "since",
                hint="make the plan again, and find out who writes to the repository",
            )
        return StoredBuild(manifest=manifest, folder=key.staging) if manifest else None
    if base.action is Action.BUILD:
        # Built by another job of this run, whose result does not get here: its newest build is
        # taken. A layer on any other is not released.
        waiting = (m for m in state.unreleased(base.fingerprint) if m.name == base.name)
        staged = (StoredBuild(manifest=m, folder=m.key.staging) for m in waiting)
        return next(staged, None)
    current = state.current(base.name, base.arch)
    same = current is not None and current.fingerprint == tree.fingerprints[base.name]
    return state.stored(current) if current is not None and same else None
