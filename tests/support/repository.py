"""A repository filled without building: what a plan asks for, as complete builds and releases."""

from collections.abc import Mapping
from types import MappingProxyType

from lago_images.planning.model import Action, Plan, PlannedImage
from lago_images.repository.publishing.copying import Judged, PublicCopy
from lago_images.repository.records.layout import PUBLISHED, BuildKey, ReleaseKey
from lago_images.repository.records.manifest import BaseRecord, Manifest
from lago_images.repository.records.release import BaseBinding, Release, Released
from lago_images.repository.records.state import PublishedCommit, digest
from lago_images.repository.rendering.lago import hash_file
from lago_images.storage.base import Store
from tests.support.builders import disk_bytes, manifest

_NONE: Mapping[str, str] = MappingProxyType({})


def fill(
    store: Store,
    plan: Plan,
    *,
    created: int,
    released: bool = True,
    packages: Mapping[str, str] = _NONE,
    digests: Mapping[str, str] = _NONE,
) -> None:
    """Do what the plan says, with a few bytes for each disk.

    Args:
        store: The repository.
        plan: What to build and promote.
        created: When, in seconds since the epoch; also makes the build ids unique.
        released: Also publish; else the builds stay as a pull request leaves them.
        packages: By image, the list of what is installed; the others have none.
        digests: By image, that of what it stands on, where it is no layer.
    """
    builds: dict[str, str] = {}
    for name in (name for chain in plan.chains for name in chain):
        image = next(one for one in plan.images if one.name == name)
        if image.action is Action.BUILD:
            builds[name] = _build(store, plan, image, created, builds, digests.get(name))
            if name in packages:
                key = BuildKey(name=name, arch=image.arch, build_id=builds[name])
                store.put(key.staging.packages, packages[name].encode(), expected=None)
    for image in plan.images:
        build = image.promote or builds.get(image.name)
        if released and build:
            _release(store, plan, image, build, _binding(store, plan, image, build))
    if released and plan.head:
        _record(store, plan.head)


def _build(
    store: Store,
    plan: Plan,
    image: PlannedImage,
    created: int,
    builds: Mapping[str, str],
    digest: str | None,
) -> str:
    below = _below(store, plan, image, builds)
    base = BaseRecord(ref=image.base, digest=digest or "sha256:" + "0" * 64)
    if below:
        disk = below.disk.sha256
        base = BaseRecord(ref=image.base, digest=f"sha256:{disk}", build=below.build_id)
    made = manifest(
        image.name,
        f"b{created}",
        arch=image.arch,
        fingerprint=image.fingerprint,
        base=base,
        properties={},
        commit=plan.head or "unknown",
        dirty=plan.dirty,
        created=created,
    )
    staging = made.key.staging
    store.put(staging.disk, disk_bytes(made.name, made.build_id), expected=None)
    store.put(staging.hash, hash_file(made), expected=None)
    store.put(staging.metadata, b"{}", expected=None)
    store.put(staging.manifest, made.to_json(), expected=None)
    return made.build_id


def _below(
    store: Store, plan: Plan, image: PlannedImage, builds: Mapping[str, str]
) -> Manifest | None:
    """The build that a layer stands on: built by this plan, promoted by it, or released."""
    kind, _, name = image.base.partition(":")
    if kind != "layer":
        return None
    base = next(one for one in plan.images if one.name == name)
    build = builds.get(name) or base.promote
    if build:
        return _staged(store, BuildKey(name=name, arch=base.arch, build_id=build))
    key = ReleaseKey(name=name, arch=base.arch, revision=base.revision)
    return Release.parse(store.get(str(key)).data, key).manifest


def _staged(store: Store, key: BuildKey) -> Manifest:
    return Manifest.parse(store.get(key.staging.manifest).data, key)


def _binding(store: Store, plan: Plan, image: PlannedImage, build: str) -> BaseBinding | None:
    made = _staged(store, BuildKey(name=image.name, arch=image.arch, build_id=build))
    base = made.base_key
    if base is None:
        return None
    found = next(one for one in plan.images if one.name == base.name)
    released = found.revision + (found.action is not Action.KEEP)
    return BaseBinding(
        name=base.name,
        arch=base.arch,
        build=base.build_id,
        revision=released,
        sha256=made.base.digest.removeprefix("sha256:"),
    )


def _release(
    store: Store, plan: Plan, image: PlannedImage, build: str, base: BaseBinding | None
) -> None:
    made = _staged(store, BuildKey(name=image.name, arch=image.arch, build_id=build))
    judged = Judged(manifest=made, sha256=digest(made))
    release = Release(
        name=image.name,
        arch=image.arch,
        revision=image.revision + 1,
        image=PublicCopy(store=store, judged=judged).image(base),
        released=Released(commit=plan.head or "unknown", dirty=plan.dirty),
        published=plan.made,
        nonce="n",
    )
    store.put(str(release.key), release.to_json(), expected=None)


def _record(store: Store, commit: str) -> None:
    found = [stat.etag for stat in store.list(PUBLISHED)]
    store.put(PUBLISHED, PublishedCommit.to_json(commit), expected=found[0] if found else None)
