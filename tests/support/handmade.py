"""Builds and releases made by hand: small, complete, and as the real ones lie in a store."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lago_images.repository.publishing.copying import Judged
from lago_images.repository.publishing.publisher import Publisher
from lago_images.repository.records.layout import BuildFolder, BuildKey, headers
from lago_images.repository.records.manifest import BaseRecord, Manifest
from lago_images.repository.records.release import (
    BaseBinding,
    ObjectDigest,
    Release,
    Released,
    ReleasedImage,
)
from lago_images.repository.rendering.lago import hash_file, metadata_file
from lago_images.repository.rendering.signing import Signer
from lago_images.repository.rendering.site import Site
from lago_images.storage.base import Store
from tests.support.builders import PROPERTIES, disk_bytes, manifest, spec

__all__ = ["PROPERTIES", "disk_bytes", "manifest", "spec"]
SITE = Site(name="test-repo", base_url="http://images.example.org/repo")


def release(
    revision: int = 1,
    build: str | Manifest | None = "b1",
    name: str = "debian-12",
    *,
    commit: str = "c1",
    fingerprint: str = "sha256:f1",
    folder: str = "",
    base: BaseBinding | None = None,
    **more: Any,
) -> Release:
    """A release of the build of that id, or of a manifest; None withdraws (``withdraws``)."""
    arch = more.pop("arch", "x86_64")
    if isinstance(build, str):
        build = manifest(name, build, arch=arch, fingerprint=fingerprint)
    if build is not None:
        name, arch = build.name, build.arch
    made = Release(
        name=name,
        arch=arch,
        revision=revision,
        image=None if build is None else released_image(build, folder, base),
        released=Released(commit=commit, actor="someone@host"),
        published=1_700_000_000,
        nonce="n",
    )
    return replace(made, **more)


def released_image(
    made: Manifest, folder: str = "", base: BaseBinding | None = None
) -> ReleasedImage:
    """What a release records of the files that ``put_copy`` writes."""
    objects = {
        name: ObjectDigest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for name, data in files_of(made).items()
    }
    disk = ObjectDigest(sha256=made.disk.sha256, size=made.disk.compressed_size)
    return ReleasedImage(
        build=made.build_id,
        folder=folder or copy_id(made.build_id),
        manifest=made,
        objects=objects | {f"{made.name}.qcow2.xz": disk},
        base=base,
    )


def copy_id(build_id: str) -> str:
    """The id of the public copy that ``put_copy`` makes of a build."""
    return f"{build_id}.0123abcd"


def copy_of(made: Manifest) -> BuildFolder:
    """The public copy that ``put_copy`` makes."""
    return BuildKey(name=made.name, arch=made.arch, build_id=copy_id(made.build_id)).public


def bound(made: Manifest, revision: int) -> BaseBinding:
    """How a layer's release names the release of its base."""
    return BaseBinding(
        name=made.name,
        arch=made.arch,
        build=made.build_id,
        revision=revision,
        sha256=made.disk.sha256,
    )


def layer_on(made: Manifest, revision: int | None = None) -> BaseRecord:
    """What the manifest of a layer records of its base."""
    return BaseRecord(
        ref=f"layer:{made.name}",
        digest=f"sha256:{made.disk.sha256}",
        build=made.build_id,
        revision=revision,
    )


def judged(made: Manifest) -> Judged:
    return Judged(manifest=made, sha256=hashlib.sha256(made.to_json()).hexdigest())


def put(store: Store, key: str, data: bytes) -> None:
    store.put(key, data, expected=None, headers=headers(key))


def overwrite(store: Store, key: str, data: bytes) -> None:
    """Write an object as someone does who has the credentials, and no scruples."""
    store.put(key, data, expected=store.head(key).etag, headers=headers(key))


def files_of(made: Manifest) -> dict[str, bytes]:
    """The files of a build by name, in the order a builder writes them."""
    disk = f"{made.name}.qcow2"
    return {
        f"{disk}.xz": disk_bytes(made.name, made.build_id),
        f"{disk}.hash": hash_file(made),
        f"{disk}.metadata": metadata_file(made, spec(made.name)),
        "packages.txt": b"bash 5.2 amd64\n",
        "manifest.json": made.to_json(),
    }


def put_build(store: Store, made: Manifest) -> BuildFolder:
    """All of a staged build, in the order a builder writes it."""
    return _put_files(store, made, made.key.staging)


def put_copy(store: Store, made: Manifest, folder: str = "") -> BuildFolder:
    """The public copy of a build, as a publisher leaves it."""
    build_id = folder or copy_id(made.build_id)
    public = BuildKey(name=made.name, arch=made.arch, build_id=build_id).public
    return _put_files(store, made, public)


def _put_files(store: Store, made: Manifest, folder: BuildFolder) -> BuildFolder:
    for name, data in files_of(made).items():
        put(store, folder.folder + name, data)
    return folder


def put_release(store: Store, made: Release) -> None:
    put(store, str(made.key), made.to_json())


def publisher(store: Store, **changes: Any) -> Publisher:
    """One that signs nothing, opened without the proofs that ``publishing`` asks for."""
    values = {
        "site": SITE,
        "signer": Signer(),
        "fingerprint": str,
        "retire": frozenset(),
        "now": lambda: 1_700_000_100.0,
    }
    return Publisher(store=store, **{**values, **changes})


def publish_by_hand(store: Store, *manifests: Manifest, bases: Sequence[Manifest] = ()) -> None:
    """Builds, each staged, copied and released as the next revision of its image.

    ``bases`` were published before, as revisions from 1 on.
    """
    count: dict[tuple[str, str], int] = {}
    released = {made.key: bound(made, number) for number, made in enumerate(bases, 1)}
    for number, made in enumerate(manifests):
        image = (made.name, made.arch)
        count[image] = count.get(image, 0) + 1
        released[made.key] = bound(made, count[image])
        put_build(store, made)
        put_copy(store, made)
        base = released[made.base_key] if made.base_key else None
        published = 1_700_000_000 + number
        put_release(store, release(count[image], made, base=base, published=published))
