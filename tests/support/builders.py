"""Specs and manifests made of values, for every test that needs one and reads none."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lago_images.repository.records.manifest import BaseRecord, BootTest, Disk, Manifest
from lago_images.specs.model import Base, BaseKind, Operation, Spec
from lago_images.specs.parse import parse

# What both clients need of any spec.
COMPLETE = ("#arch=x86_64", "#distro=debian")
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
        operations=tuple(Operation(name=one, argument=what, line=1) for one, what in pairs),
    )


def parsed(text: str, name: str = "image") -> Spec:
    """Return the spec of a text that has no problems."""
    made, problems = parse(text, name=name, path=f"image-specs/{name}")
    assert made is not None
    assert not problems
    return made


def lines(*more: str, base: str = "layer:b") -> Spec:
    """Return the spec of a base and these lines, complete for both clients."""
    return parsed("\n".join([f"#base={base}", *COMPLETE, *more]) + "\n")


def buildable(name: str, base: str, **properties: str) -> Spec:
    """Return a spec that is built without a boot test."""
    plain = {"base": base, "boot-test": "no", "distro": "debian"}
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
