"""Builds and releases made by hand: small, complete, and as the real ones lie in a store."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lago_images.repository.publishing.publisher import Publisher
from lago_images.repository.records.layout import BuildKey, headers
from lago_images.repository.records.manifest import BaseRecord, BootTest, Disk, Manifest
from lago_images.repository.records.release import Release
from lago_images.repository.rendering.lago import hash_file, metadata_file
from lago_images.repository.rendering.signing import Signer
from lago_images.repository.rendering.site import Site
from lago_images.specs.model import Base, BaseKind, Operation, Spec
from lago_images.storage.base import Store

SITE = Site(name="test-repo", base_url="http://images.example.org/repo")
PROPERTIES = {
    "name": "Debian® 12 (bookworm)",
    "osinfo": "debian12",
    "distro": "debian12",
    "expand": "/dev/sda1",
    "root-partition": "/dev/sda1",
    "version": "1",
}


def manifest(
    name: str = "debian-12",
    build_id: str = "b1",
    *,
    arch: str = "x86_64",
    fingerprint: str = "sha256:f1",
    properties: Mapping[str, str] | None = None,
    **more: Any,
) -> Manifest:
    body = disk_bytes(name, build_id)
    made = Manifest(
        name=name,
        arch=arch,
        build_id=build_id,
        fingerprint=fingerprint,
        base=BaseRecord(ref="bootstrap:bookworm", digest="sha256:" + "0" * 64),
        disk=Disk(
            format="qcow2",
            virtual_size=2 * 2**30,
            size=411_000_000,
            compressed_size=len(body),
            sha1=hashlib.sha1(body).hexdigest(),
            sha256=hashlib.sha256(body).hexdigest(),
            sha512=hashlib.sha512(body).hexdigest(),
        ),
        commit="c1",
        dirty=False,
        created=1_700_000_000,
        seconds=60,
        properties=dict(PROPERTIES if properties is None else properties),
        boot=BootTest(seconds=31.4, accel="tcg"),
        packages=312,
    )
    return replace(made, **more)


def disk_bytes(name: str, build_id: str) -> bytes:
    return f"the disk of {name} {build_id}".encode()


def spec(name: str = "debian-12", *operations: tuple[str, str], **properties: str) -> Spec:
    return Spec(
        name=name,
        path=f"image-specs/{name}",
        base=Base(kind=BaseKind.BOOTSTRAP, name="bookworm", line=1),
        arch="x86_64",
        properties=properties,
        operations=tuple(Operation(name=n, argument=a, line=2) for n, a in operations),
    )


def release(
    revision: int = 1, build: str | None = "b1", name: str = "debian-12", **more: Any
) -> Release:
    made = Release(
        name=name,
        arch="x86_64",
        revision=revision,
        build=build,
        fingerprint="sha256:f1",
        commit="c1",
        published=1_700_000_000,
        nonce="n",
    )
    return replace(made, **more)


def put(store: Store, key: str, data: bytes) -> None:
    store.put(key, data, expected=None, headers=headers(key))


def put_build(store: Store, made: Manifest) -> BuildKey:
    """All of a build, in the order a builder writes it."""
    key = made.key
    put(store, key.disk, disk_bytes(made.name, made.build_id))
    put(store, key.hash, hash_file(made))
    put(store, key.metadata, metadata_file(made, spec(made.name)))
    put(store, key.packages, b"bash 5.2 amd64\n")
    put(store, key.manifest, made.to_json())
    return key


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


def publish_by_hand(store: Store, *manifests: Manifest) -> None:
    """Builds, each released as the next revision of its image."""
    count: dict[tuple[str, str], int] = {}
    for number, made in enumerate(manifests):
        image = (made.name, made.arch)
        count[image] = count.get(image, 0) + 1
        put_build(store, made)
        put_release(
            store,
            release(
                count[image],
                made.build_id,
                made.name,
                arch=made.arch,
                fingerprint=made.fingerprint,
                published=1_700_000_000 + number,
            ),
        )
