"""A repository filled without building: what a plan asks for, as complete builds and releases."""

import hashlib
from collections.abc import Mapping

from lago_images.planning.model import Action, Plan, PlannedImage
from lago_images.repository.records.layout import PUBLISHED, BuildKey, ReleaseKey
from lago_images.repository.records.manifest import BaseRecord, Disk, Manifest
from lago_images.repository.records.release import Release
from lago_images.repository.records.state import PublishedCommit
from lago_images.storage.base import Store


def fill(store: Store, plan: Plan, *, created: int, released: bool = True) -> None:
    """Do what the plan says, with a few bytes for each disk.

    Args:
        store: The repository.
        plan: What to build and promote.
        created: When, in seconds since the epoch; also makes the build ids unique.
        released: Also publish; else the builds stay as a pull request leaves them.
    """
    builds: dict[str, str] = {}
    for name in (name for chain in plan.chains for name in chain):
        image = next(one for one in plan.images if one.name == name)
        if image.action is Action.BUILD:
            builds[name] = _build(store, plan, image, created, builds)
    for image in plan.images:
        build = image.promote or builds.get(image.name)
        if released and build:
            _release(store, plan, image, build)
    if released and plan.head:
        _record(store, plan.head)


def _build(
    store: Store, plan: Plan, image: PlannedImage, created: int, builds: Mapping[str, str]
) -> str:
    content = f"{image.name} {created}".encode()
    kind, _, base = image.base.partition(":")
    below = ""
    if kind == "layer":
        below = _disk(store, plan, base, builds.get(base) or _standing(store, plan, base))
    manifest = Manifest(
        name=image.name,
        arch=image.arch,
        build_id=f"b{created}",
        fingerprint=image.fingerprint,
        base=BaseRecord(ref=image.base, digest=f"sha256:{below or 0}"),
        disk=Disk(
            format="qcow2",
            virtual_size=1 << 20,
            size=len(content),
            compressed_size=len(content),
            sha1=hashlib.sha1(content).hexdigest(),
            sha256=hashlib.sha256(content).hexdigest(),
            sha512=hashlib.sha512(content).hexdigest(),
        ),
        commit=plan.head or "unknown",
        dirty=plan.dirty,
        created=created,
        seconds=1,
    )
    store.put(manifest.key.disk, content, expected=None)
    store.put(manifest.key.hash, manifest.disk.sha1.encode(), expected=None)
    store.put(manifest.key.metadata, b"{}", expected=None)
    store.put(manifest.key.manifest, manifest.to_json(), expected=None)
    return manifest.build_id


def _disk(store: Store, plan: Plan, name: str, build: str) -> str:
    """The SHA-256 of a build's disk."""
    arch = next(one.arch for one in plan.images if one.name == name)
    key = BuildKey(name=name, arch=arch, build_id=build)
    return Manifest.parse(store.get(key.manifest).data, key).disk.sha256


def _standing(store: Store, plan: Plan, base: str) -> str:
    """The build that a kept or promoted base is known by."""
    image = next(one for one in plan.images if one.name == base)
    if image.promote:
        return image.promote
    key = ReleaseKey(name=base, arch=image.arch, revision=image.revision)
    return Release.parse(store.get(str(key)).data, key).build or ""


def _release(store: Store, plan: Plan, image: PlannedImage, build: str) -> None:
    release = Release(
        name=image.name,
        arch=image.arch,
        revision=image.revision + 1,
        build=build,
        fingerprint=image.fingerprint,
        commit=plan.head or "unknown",
        published=plan.made,
        nonce="n",
    )
    store.put(str(release.key), release.to_json(), expected=None)


def _record(store: Store, commit: str) -> None:
    found = [stat.etag for stat in store.list(PUBLISHED)]
    store.put(PUBLISHED, PublishedCommit.to_json(commit), expected=found[0] if found else None)
