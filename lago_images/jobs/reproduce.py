"""The job that builds a published revision again, and compares the two disks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from lago_images.building.alone import build_disk
from lago_images.building.comparing.areas import AreaDifference
from lago_images.building.comparing.disks import DiskComparison, compare_disks, in_appliance
from lago_images.building.comparing.files import FileDifference
from lago_images.building.customise.namespace import rules
from lago_images.building.image import tools
from lago_images.building.job import Finished
from lago_images.building.model import Request
from lago_images.building.reservations import need_again
from lago_images.errors import Error, UsageError
from lago_images.host import kvm, space
from lago_images.host.process import Runner
from lago_images.jobs.plan import tree_of
from lago_images.jobs.trial import unpack
from lago_images.jobs.workspace import Workspace
from lago_images.repository.browsing import queries
from lago_images.repository.records.changes import PackageChanges, compare_known
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.manifest import BaseRecord, Manifest
from lago_images.repository.records.release import NO_COMMIT, Release
from lago_images.repository.records.state import State, StoredBuild, read
from lago_images.settings import load
from lago_images.specs.model import BaseKind, Spec

# Commands that may bring another package, or anything, on another day.
_MOVING = frozenset(("install", "update", "run", "run-command"))
_SHORT = 12


class Verdict(StrEnum):
    """How a revision that was built again is to the published one."""

    SAME_BYTES = "same bytes"
    SAME_FILES = "same files"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something of a build that is otherwise now, such as a tool's version; None where it lacks."""

    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """A published revision, built again.

    Attributes:
        revision: What was built again.
        build: Its build's id.
        commit: What it was built from.
        obstacles: Why it cannot be built again, as far as that is known before; then nothing was.
        doubts: Why the bytes may not be the same, as far as that is known before.
        tools: The programs whose versions differ from the build's.
        verdict: None where nothing was built.
        base: The digest of what it stands on, where that is another now.
        packages: None where those of one of the two are not known.
        files: The guest's files that differ; None where they could not be read.
        no_files: Why they could not be read; else empty.
        areas: The areas of the disk that differ.
        ok: Whether all is the same that could be.
    """

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a reproduction"

    repository: str
    name: str
    arch: str
    revision: int
    build: str
    commit: str
    obstacles: tuple[str, ...]
    doubts: tuple[str, ...]
    tools: tuple[Change, ...]
    verdict: Verdict | None = None
    base: Change | None = None
    packages: PackageChanges | None = None
    files: tuple[FileDifference, ...] | None = None
    no_files: str = ""
    areas: tuple[AreaDifference, ...] = ()
    ok: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A revision to build again.

    Attributes:
        release: The revision's.
        manifest: Its build's.
        published: Its disk; None where the repository has it no more.
        base: What a layer stood on; None for others, and where the repository has it no more.
        workspace: The commit's specs and settings; None where they cannot be had.
        spec: As the commit has it; None where it has none.
        report: What is known before it is built.
    """

    release: Release
    manifest: Manifest
    published: StoredBuild | None
    base: StoredBuild | None
    workspace: Workspace | None
    spec: Spec | None
    report: Reproduction

    @property
    def is_exact(self) -> bool:
        """Return whether the same inputs give the same bytes: the appliance's times are today's."""
        return self.spec is not None and _engine(self.spec, self.manifest) != rules.APPLIANCE


def look(workspace: Workspace, name: str, arch: str, revision: int | None, folder: Path) -> Case:
    """Find out what a revision was made of, and whether it can be built again; builds nothing.

    Args:
        workspace: Its repository, and a clone of the specs' git repository.
        name: The image's.
        arch: Its architecture; empty where it has one only.
        revision: None for the one that clients get.
        folder: Where the commit is checked out, as ``specs``.

    Raises:
        UsageError: There is no such revision, or it is a withdrawal.
    """
    state = read(workspace.store)
    image = queries.image_of(state, name, arch)
    release = _release(state, image, revision)
    manifest = release.manifest
    assert manifest is not None  # noqa: S101 -- withdrawals were refused
    obstacles: list[str] = []
    published, base = state.stored(release), _base(state, release)
    if published is None:
        obstacles.append("its disk is not in the repository any more: nothing to compare with")
    if release.image and release.image.base and base is None:
        bound = release.image.base
        obstacles.append(
            f"revision {bound.revision} of its base {bound.name} is not in the repository any more"
        )
    at_commit, spec = _checked_out(workspace, manifest, folder, obstacles)
    runner = Runner(environ=workspace.environ)
    report = Reproduction(
        repository=workspace.store.url,
        name=image.name,
        arch=image.arch,
        revision=release.revision,
        build=manifest.build_id,
        commit=manifest.commit,
        obstacles=tuple(obstacles),
        doubts=tuple(_doubts(state, release, spec)) if spec else (),
        tools=tuple(_changes(manifest.tools, tools(runner))),
    )
    return Case(
        release=release,
        manifest=manifest,
        published=published,
        base=base,
        workspace=at_commit,
        spec=spec,
        report=report,
    )


def reproduce(case: Case, folder: Path) -> Reproduction:
    """Build a revision again, and compare it; ``folder`` is for the disks.

    Raises:
        HostError: There is too little disk space for it.
        Error: It could not be built, or the published disk is not what its manifest says.
    """
    workspace, spec, published = case.workspace, case.spec, case.published
    if case.report.obstacles or workspace is None or spec is None or published is None:
        return case.report
    manifest = case.manifest
    request = Request(
        spec=spec,
        fingerprint=manifest.fingerprint,
        commit=manifest.commit,
        dirty=manifest.dirty,
        base=case.base,
        origin=manifest.base.detail if spec.base.kind is BaseKind.BOOTSTRAP else "",
    )
    size = published.manifest.disk.size
    need = need_again(spec, case.base, folder, workspace, published=size)
    space.demand(need.folder, need.size, need.purpose)
    # It is not booted.
    accel = kvm.detect(Runner(environ=workspace.environ)) if spec.operations else kvm.UNASKED
    built = build_disk(request, workspace, accel=accel, folder=folder)
    old = folder / "published.qcow2"
    workspace.console.info(f"{spec.name}: comparing it with the published disk")
    unpack(workspace.store, published, old)
    runner = Runner(environ={**workspace.environ, "TMPDIR": str(folder)})
    compared = compare_disks(old, built.disk, runner, with_times=case.is_exact)
    return _judged(case, compared, built)


def _judged(case: Case, compared: DiskComparison, built: Finished) -> Reproduction:
    assert case.workspace is not None  # noqa: S101 -- it was built
    files = compared.files
    if files is not None and not case.is_exact:
        files = tuple(in_appliance(files))
    store = case.workspace.store
    packages = compare_known(queries.packages_of(store, case.release), built.packages)
    unexpected = files is None or any(not each.expected for each in files)
    if compared.is_same:
        verdict = Verdict.SAME_BYTES
    else:
        verdict = Verdict.DIFFERENT if unexpected or packages else Verdict.SAME_FILES
    return replace(
        case.report,
        verdict=verdict,
        base=_base_change(case.manifest, built),
        packages=packages,
        files=files,
        no_files=compared.no_files,
        areas=compared.areas,
        ok=verdict is Verdict.SAME_BYTES or (verdict is Verdict.SAME_FILES and not case.is_exact),
    )


def _base_change(manifest: Manifest, built: Finished) -> Change | None:
    record: BaseRecord | None = built.prepared.record
    if record is None or record.digest == manifest.base.digest:
        return None
    return Change(name=manifest.base.ref, old=manifest.base.digest, new=record.digest)


def _release(state: State, image: ImageId, revision: int | None) -> Release:
    if revision is not None:
        return queries.release_of(state, image, revision)
    current = state.current(*image)
    if current is None:
        raise UsageError(
            f"every revision of {image} is withdrawn or removed", hint="name one with --revision"
        )
    return current


def _base(state: State, release: Release) -> StoredBuild | None:
    """Return the very base of a layer, where its public copy is there."""
    bound = release.image.base if release.image else None
    if bound is None:
        return None
    history = state.history(bound.name, bound.arch)
    base = next((each for each in history if each.revision == bound.revision), None)
    stored = state.stored(base) if base else None
    return stored if stored and stored.manifest.disk.sha256 == bound.sha256 else None


def _checked_out(
    workspace: Workspace, manifest: Manifest, folder: Path, obstacles: list[str]
) -> tuple[Workspace | None, Spec | None]:
    """Return the workspace of a build's commit, and the spec there; what is in the way is noted."""
    git, commit = workspace.git, manifest.commit
    if commit == NO_COMMIT:
        obstacles.append("no commit has its spec: it was built without git or a commit")
        return None, None
    if git is None or not git.ensure(commit):
        obstacles.append(
            f"its commit {commit[:_SHORT]} is not in this clone, and its remote does not give it: "
            "call this in a clone of the repository that has the specs (-C FOLDER)"
        )
        return None, None
    try:
        there = git.export(commit, folder / "specs")
        settings = load(there.folder, workspace.environ)
        at_commit = replace(workspace, root=there.folder, git=there, settings=settings)
        tree = tree_of(at_commit)
    except Error as error:
        obstacles.append(f"the specs of its commit {commit[:_SHORT]} cannot be read: {error}")
        return None, None
    spec = tree.specs.get(manifest.name)
    if spec is None or spec.arch != manifest.arch:
        obstacles.append(f"its commit {commit[:_SHORT]} has no spec of it in {settings.specs}")
        return None, None
    if tree.fingerprints[manifest.name] != manifest.fingerprint:
        obstacles.append(f"its commit {commit[:_SHORT]} {_other_fingerprint(manifest)}")
    # The record of the build decides, and not what this host's settings like.
    settings = replace(settings, engine=_engine(spec, manifest) or settings.engine)
    return replace(at_commit, settings=settings), spec


def _other_fingerprint(manifest: Manifest) -> str:
    if manifest.dirty:
        return "has not all that it was built from: some files were not committed"
    version = manifest.tools.get("lago-images", "of another version")
    return (
        f"gives another fingerprint here: lago-images {version} built it, perhaps by other rules, "
        "or its specs do not say all"
    )


def _engine(spec: Spec, manifest: Manifest) -> str:
    """Return what a build's commands ran in; empty where there are none."""
    if not spec.operations:
        return ""
    # Manifests from before there was a choice say nothing.
    return manifest.engine.name if manifest.engine else rules.APPLIANCE


def _doubts(state: State, release: Release, spec: Spec) -> Iterator[str]:
    manifest = release.manifest
    if manifest and _engine(spec, manifest) == rules.APPLIANCE:
        yield "its commands ran in the appliance: files are compared, and no bytes asked for"
    if spec.base.kind is BaseKind.LIBGUESTFS:
        yield f"its template {spec.base.name} may be another one by now"
    if "base-checksums" in spec.properties:
        yield "its base is the newest file of its maker's list, which may be another one by now"
    if _is_moving(spec) and not _has_snapshot(state, release):
        yield "its packages come from archives that move on: its bootstrap has no snapshot="


def _is_moving(spec: Spec) -> bool:
    moving = any(each.name in _MOVING for each in spec.operations)
    return moving or spec.base.kind is BaseKind.BOOTSTRAP


def _has_snapshot(state: State, release: Release) -> bool:
    """Tell whether the bootstrap that a release stands on has its packages of one moment."""
    while release.image and (bound := release.image.base):
        history = state.history(bound.name, bound.arch)
        below = next((each for each in history if each.revision == bound.revision), None)
        # A base is older than what stands on it: this ends.
        if below is None or below.published > release.published:
            return False
        release = below
    return bool(release.manifest and "snapshot" in release.manifest.properties)


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    # What the build did not note then cannot be compared.
    for name in sorted(old):
        if old[name] != new.get(name):
            yield Change(name=name, old=old[name], new=new.get(name))
