"""Build specs, manifests, releases and stored builds of values, for tests that read no files."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lago_images.repository.publishing.copying import Judged
from lago_images.repository.publishing.publisher import Publisher
from lago_images.repository.records.changes import PackageLines
from lago_images.repository.records.layout import BuildFolder, BuildKey, headers
from lago_images.repository.records.manifest import (
    BaseRecord,
    BootTest,
    Disk,
    DiskFile,
    Manifest,
)
from lago_images.repository.records.outdated import FoundUpstream, Outdated
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
from lago_images.specs.model import Base, BaseKind, Operation, Spec
from lago_images.specs.parse import parse
from lago_images.storage.base import Store

SITE = Site(name="test-repo", base_url="http://images.example.org/repo")
# What a whole spec has.
PROPERTIES = {
    "name": "Debian® 12 (bookworm)",
    "osinfo": "debian12",
    "distro": "debian12",
    "expand": "/dev/sda1",
    "root-partition": "/dev/sda1",
    "version": "1",
}


def spec(
    name: str = "debian-12",
    base: str = "bootstrap:bookworm",
    *operations: str | tuple[str, str],
    arch: str = "x86_64",
    **properties: str,
) -> Spec:
    """Return a spec of these parts, as if each stood on the first line of its file.

    An operation is its name, or its name and its argument.
    """
    kind, _, base_name = base.partition(":")
    pairs = [(each, "") if isinstance(each, str) else each for each in operations]
    return Spec(
        name=name,
        path=f"image-specs/{name}",
        base=Base(kind=BaseKind(kind), name=base_name, line=1),
        arch=arch,
        properties=properties,
        operations=tuple(
            Operation(name=name, argument=argument, line=1) for name, argument in pairs
        ),
    )


def parsed(text: str, name: str = "image") -> Spec:
    """Return the spec of a text that has no problems."""
    result, problems = parse(text, name=name, path=f"image-specs/{name}")
    assert result is not None
    assert not problems
    return result


def lines(*more: str, base: str = "layer:b", arch: str = "x86_64") -> Spec:
    """Return the spec of a base and these lines, complete for both clients."""
    return parsed("\n".join([f"#base={base}", f"#arch={arch}", "#distro=debian", *more]) + "\n")


def buildable(name: str, base: str, **properties: str) -> Spec:
    """Return a spec that is built without a boot test."""
    plain = {"base": base, "boot-test": "no: it is made of nothing", "distro": "debian"}
    return replace(spec(name, base), properties={**plain, **properties})


def disk_bytes(name: str, build_id: str) -> bytes:
    """Return the few bytes that stand for the compressed disk of a build."""
    return f"the disk of {name} {build_id}".encode()


def manifest(
    name: str = "debian-12",
    build_id: str = "b1",
    *,
    arch: str = "x86_64",
    fingerprint: str = "sha256:f1",
    size: int | None = None,
    properties: Mapping[str, str] | None = None,
    **more: Any,
) -> Manifest:
    """Return the manifest of a build whose compressed disk is ``disk_bytes``.

    ``size`` are the bytes that it claims to have, where others than those; ``more`` are fields.
    """
    disk = disk_bytes(name, build_id)
    plain = Manifest(
        name=name,
        arch=arch,
        build_id=build_id,
        fingerprint=fingerprint,
        base=BaseRecord(ref="bootstrap:bookworm", digest="sha256:" + "0" * 64),
        disk=Disk(
            format="qcow2",
            virtual_size=2 * 2**30,
            size=411_000_000,
            compressed_size=len(disk) if size is None else size,
            sha1=hashlib.sha1(disk).hexdigest(),
            sha256=hashlib.sha256(disk).hexdigest(),
            sha512=hashlib.sha512(disk).hexdigest(),
        ),
        commit="c1",
        dirty=False,
        created=1_700_000_000,
        seconds=60,
        properties=dict(PROPERTIES if properties is None else properties),
        boot=BootTest(seconds=52.8, accel="tcg", firmware={"bios": 31.4, "uefi": 52.8}),
        packages=1,
    )
    return replace(plain, **more)


def qcow2_bytes(build: Manifest) -> bytes:
    """Return the few bytes that stand for the qcow2 of a build."""
    return b"the qcow2 of " + disk_bytes(build.name, build.build_id)


def with_qcow2(build: Manifest) -> Manifest:
    """Return the same build with its disk as a qcow2, too."""
    data = qcow2_bytes(build)
    file = DiskFile(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return replace(build, also={"qcow2": file})


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
    """Return a release of a build, by its id or manifest; None withdraws (``withdraws``)."""
    arch = more.pop("arch", "x86_64")
    if isinstance(build, str):
        build = manifest(name, build, arch=arch, fingerprint=fingerprint)
    if build is not None:
        name, arch = build.name, build.arch
    plain = Release(
        name=name,
        arch=arch,
        revision=revision,
        image=None if build is None else released_image(build, folder, base),
        released=Released(commit=commit, actor="someone@host"),
        published=1_700_000_000,
        nonce="n",
    )
    return replace(plain, **more)


def released_image(
    build: Manifest, folder: str = "", base: BaseBinding | None = None
) -> ReleasedImage:
    """Return what a release records of the files that ``put_copy`` writes."""
    objects = {
        name: ObjectDigest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for name, data in files_of(build).items()
    }
    disk = ObjectDigest(sha256=build.disk.sha256, size=build.disk.compressed_size)
    for form, file in build.also.items():
        objects[f"{build.name}.{form}"] = ObjectDigest(sha256=file.sha256, size=file.size)
    return ReleasedImage(
        build=build.build_id,
        folder=folder or copy_id(build.build_id),
        manifest=build,
        objects=objects | {f"{build.name}.qcow2.xz": disk},
        base=base,
    )


def copy_id(build_id: str) -> str:
    """Return the id of the public copy that ``put_copy`` makes of a build."""
    return f"{build_id}.0123abcd"


def copy_of(build: Manifest) -> BuildFolder:
    """Return the folder of the public copy that ``put_copy`` makes."""
    return BuildKey(name=build.name, arch=build.arch, build_id=copy_id(build.build_id)).public


def bound(build: Manifest, revision: int) -> BaseBinding:
    """Return what a layer's release records of the release of its base."""
    return BaseBinding(
        name=build.name,
        arch=build.arch,
        build=build.build_id,
        revision=revision,
        sha256=build.disk.sha256,
    )


def layer_on(build: Manifest, revision: int | None = None) -> BaseRecord:
    """Return what the manifest of a layer records of its base."""
    return BaseRecord(
        ref=f"layer:{build.name}",
        digest=f"sha256:{build.disk.sha256}",
        build=build.build_id,
        revision=revision,
    )


def judged(build: Manifest) -> Judged:
    sha256 = hashlib.sha256(build.to_json()).hexdigest()
    return Judged(manifest=build, sha256=sha256, also=frozenset(build.also))


def put(store: Store, key: str, data: bytes) -> None:
    store.put(key, data, expected=None, headers=headers(key))


def overwrite(store: Store, key: str, data: bytes) -> None:
    """Overwrite an object, as an attacker does who has the credentials."""
    store.put(key, data, expected=store.head(key).etag, headers=headers(key))


def files_of(build: Manifest) -> dict[str, bytes]:
    """Return the files of a build by name, in the order a builder writes them."""
    disk = f"{build.name}.qcow2"
    return {
        f"{disk}.xz": disk_bytes(build.name, build.build_id),
        **({disk: qcow2_bytes(build)} if build.also else {}),
        f"{disk}.hash": hash_file(build),
        f"{disk}.metadata": metadata_file(build, spec(build.name)),
        "packages.txt": b"bash 5.2 amd64\n",
        "manifest.json": build.to_json(),
    }


def put_build(store: Store, build: Manifest) -> BuildFolder:
    """Stage all files of a build, in the order a builder writes them."""
    return _put_files(store, build, build.key.staging)


def put_copy(store: Store, build: Manifest, folder: str = "") -> BuildFolder:
    """Write the public copy of a build, as a publisher leaves it."""
    build_id = folder or copy_id(build.build_id)
    public = BuildKey(name=build.name, arch=build.arch, build_id=build_id).public
    return _put_files(store, build, public)


def _put_files(store: Store, build: Manifest, folder: BuildFolder) -> BuildFolder:
    for name, data in files_of(build).items():
        put(store, folder.folder + name, data)
    return folder


def put_release(store: Store, record: Release) -> None:
    put(store, str(record.key), record.to_json())


def outdated(
    about: Release, *upgraded: str, number: int = 1, base: str = "", since: int = 1_700_000_200
) -> Outdated:
    """Return the record that a build would get these packages (``name old new``), or a base."""
    return Outdated(
        name=about.name,
        arch=about.arch,
        revision=about.revision,
        number=number,
        build=about.build or "",
        upstream=FoundUpstream(
            found=1_700_000_000 + number * 1000,
            since=since if upgraded or base else None,
            base=base,
            packages=PackageLines(upgraded=upgraded),
        ),
    )


def put_outdated(store: Store, record: Outdated) -> None:
    put(store, str(record.key), record.to_json())


def publisher(store: Store, **changes: Any) -> Publisher:
    """Return a publisher that signs nothing, without the checks that ``publishing`` makes."""
    values = {
        "site": SITE,
        "signer": Signer(),
        "fingerprint": str,
        "retire": frozenset(),
        "now": lambda: 1_700_000_100.0,
    }
    return Publisher(store=store, **{**values, **changes})


def publish_by_hand(store: Store, *manifests: Manifest, bases: Sequence[Manifest] = ()) -> None:
    """Stage, copy and release builds, each as the next revision of its image.

    ``bases`` were published before, as revisions from 1 on.
    """
    count: dict[tuple[str, str], int] = {}
    released = {build.key: bound(build, number) for number, build in enumerate(bases, 1)}
    for number, build in enumerate(manifests):
        image = (build.name, build.arch)
        count[image] = count.get(image, 0) + 1
        released[build.key] = bound(build, count[image])
        put_build(store, build)
        put_copy(store, build)
        base = released[build.base_key] if build.base_key else None
        published = 1_700_000_000 + number
        put_release(store, release(count[image], build, base=base, published=published))
