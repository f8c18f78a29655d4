"""A repository as people would look at it: many images, histories with all that can happen."""

import hashlib
import random
from dataclasses import replace
from datetime import UTC, datetime

from lago_images.repository.records.access import Access, Login
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.manifest import (
    BaseRecord,
    BootTest,
    Disk,
    DiskFile,
    Manifest,
)
from lago_images.repository.records.outdated import NewestRecord
from lago_images.repository.records.release import (
    BaseBinding,
    ObjectDigest,
    PackageDiff,
    Release,
    Released,
    ReleasedImage,
)
from lago_images.repository.records.state import State
from tests.support.builders import outdated

_DAY = 86_400
_NOW = 1_790_000_000
_DISTRIBUTIONS = ("debian13", "debian12", "ubuntu2604", "fedora44", "el10", "el9", "suse16")
_TITLES = {
    "debian13": "Debian 13 (trixie)",
    "debian12": "Debian 12 (bookworm)",
    "ubuntu2604": "Ubuntu 26.04 LTS",
    "fedora44": "Fedora Linux 44",
    "el10": "CentOS Stream 10",
    "el9": "AlmaLinux 9",
    "suse16": "openSUSE Leap 16",
}
_ROLES = ("base", "nested-hypervisor", "postgres", "nginx", "builder", "k8s-node", "desktop")
_FILES = (
    "packages.txt",
    "boot-files.txt",
    "spec.txt",
    "manifest.json",
    "sbom.cdx.json",
    "provenance.json",
    "console.log",
)
_UPGRADED = ("openssl 3.5.1-1 3.5.2-1", "linux-image-amd64 6.12.48-1 6.12.57-1", "curl 8.14 8.16")


def large_state(images: int = 2000, revisions: int = 5, *, seed: int = 0) -> State:
    """Return a repository of as many images and revisions, the same for the same seed."""
    chance = random.Random(seed)
    releases: dict[ImageId, tuple[Release, ...]] = {}
    for number in range(images):
        # Each thirtieth is the one before it, for the other architecture.
        is_twin = number % 30 == 29
        place = number - is_twin
        distribution = _DISTRIBUTIONS[place % len(_DISTRIBUTIONS)]
        role = _ROLES[(place // len(_DISTRIBUTIONS)) % len(_ROLES)]
        suffix = place // (len(_DISTRIBUTIONS) * len(_ROLES))
        name = f"{distribution}-{role}" + (f"-{suffix}" if suffix else "")
        arch = "aarch64" if (place % 17 == 5) != is_twin else "x86_64"
        base = releases.get(ImageId(f"{distribution}-base", arch)) if role != "base" else None
        history = _history(chance, name, arch, distribution, revisions, base)
        releases[ImageId(name, arch)] = _ended(history, number)
    state = State(releases=releases, objects={}, published=None)
    return replace(state, outdated=_outdated(state))


def _outdated(state: State) -> dict[ImageId, NewestRecord]:
    """Return a record of what is outdated for a fifth of the images."""
    records: dict[ImageId, NewestRecord] = {}
    for image in list(state.releases)[::5]:
        if release := state.current(*image):
            record = outdated(release, *_UPGRADED, *(f"lib{n} 1.{n} 1.{n}.1" for n in range(40)))
            records[image] = (record.key, record)
    return records


def _history(
    chance: random.Random,
    name: str,
    arch: str,
    distribution: str,
    revisions: int,
    base: tuple[Release, ...] | None,
) -> tuple[Release, ...]:
    history: list[Release] = []
    for revision in range(1, revisions + 1):
        published = _NOW - (revisions - revision) * 7 * _DAY - chance.randrange(6 * _DAY)
        below = base[min(revision, len(base)) - 1] if base else None
        if below and below.image is None:
            below = base[0] if base else None
        history.append(_release(chance, name, arch, distribution, revision, published, below))
    return tuple(history)


def _ended(history: tuple[Release, ...], number: int) -> tuple[Release, ...]:
    """Return a history as operators left it: of some images a revision was taken back."""
    last = history[-1]
    withdrawal = replace(
        last,
        revision=last.revision + 1,
        image=None,
        withdraws=last.revision,
        published=last.published + _DAY,
        reason="does not boot with more than 64 CPUs <lost APIC ids & more>",
    )
    if number % 11 == 3:
        return (*history, withdrawal)
    if number % 29 == 4 and len(history) > 1:
        back = replace(history[-2], revision=last.revision + 1, published=last.published + _DAY)
        return (*history, replace(back, reason="openssl 3.5.2 breaks TLS to older peers"))
    if number % 37 == 6:
        return tuple(
            [*history]
            + [replace(withdrawal, revision=last.revision + n, withdraws=n)
               for n in range(1, len(history) + 1)]
        )  # fmt: skip
    return history


def _release(
    chance: random.Random,
    name: str,
    arch: str,
    distribution: str,
    revision: int,
    published: int,
    below: Release | None,
) -> Release:
    image = _image(chance, name, arch, distribution, revision, published, below)
    return Release(
        name=name,
        arch=arch,
        revision=revision,
        image=image,
        released=Released(
            commit=hashlib.sha1(f"{revision}".encode()).hexdigest(),
            actor="octocat",
            run="https://github.com/example/vm-specs/actions/runs/12345678",
        ),
        published=published,
        nonce="n",
        package_changes=PackageDiff(since=revision - 1, upgraded=_UPGRADED, added=("jq 1.8 amd64",))
        if revision > 1
        else None,
    )


def _image(
    chance: random.Random,
    name: str,
    arch: str,
    distribution: str,
    revision: int,
    published: int,
    below: Release | None,
) -> ReleasedImage:
    created = published - chance.randrange(600, 80_000)
    started = datetime.fromtimestamp(created, UTC).strftime("%Y%m%dT%H%M%SZ")
    build = f"{started}-{chance.randbytes(4).hex()}-{chance.randbytes(4).hex()}"
    disk = Disk(
        format="qcow2",
        virtual_size=chance.choice((6, 10, 20)) * 2**30,
        size=chance.randrange(4 * 10**8, 3 * 10**9),
        compressed_size=chance.randrange(9 * 10**7, 9 * 10**8),
        sha1=chance.randbytes(20).hex(),
        sha256=chance.randbytes(32).hex(),
        sha512=chance.randbytes(64).hex(),
    )
    qcow2 = DiskFile(size=disk.compressed_size * 3 // 2, sha256=chance.randbytes(32).hex())
    bound = below and below.image
    manifest = Manifest(
        name=name,
        arch=arch,
        build_id=build,
        fingerprint=f"sha256:{chance.randbytes(32).hex()}",
        base=BaseRecord(
            ref=f"layer:{below.name}" if below else f"bootstrap:{distribution}",
            digest=f"sha256:{bound.manifest.disk.sha256 if bound else '0' * 64}",
            detail="" if below else "https://archive.example.org/debian, snapshot 20260901T000000Z",
            build=bound.build if bound else "",
            revision=below.revision if below else None,
        ),
        disk=disk,
        commit=hashlib.sha1(f"{revision}".encode()).hexdigest(),
        dirty=False,
        created=created,
        seconds=120,
        properties={
            "name": f"{_TITLES[distribution]}, {name.partition('-')[2].replace('-', ' ')}",
            "distro": distribution,
            "osinfo": distribution,
            "version": f"1.{revision}",
            "notes": "User root, password in the metadata. <b>Not</b> for production & such.",
            "aliases": f"{name}-latest",
        },
        boot=_boot(chance, arch) if chance.random() > 0.1 else None,
        packages=chance.randrange(280, 1900),
        also={"qcow2": qcow2},
    )
    binding = bound and below and BaseBinding(
        name=below.name,
        arch=below.arch,
        build=bound.build,
        revision=below.revision,
        sha256=bound.manifest.disk.sha256,
    )  # fmt: skip
    small = (f"{name}.qcow2.hash", f"{name}.qcow2.metadata", *_FILES)
    objects = {each: ObjectDigest(sha256="0" * 64, size=1) for each in small}
    objects[f"{name}.qcow2"] = ObjectDigest(sha256=qcow2.sha256, size=qcow2.size)
    objects[f"{name}.qcow2.xz"] = ObjectDigest(sha256=disk.sha256, size=disk.compressed_size)
    data = manifest.to_json()
    objects["manifest.json"] = ObjectDigest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    return ReleasedImage(
        build=build,
        folder=f"{build}.{chance.randbytes(4).hex()}",
        manifest=manifest,
        objects=objects,
        base=binding or None,
        access=Access(logins=(Login(user="root", password="123456", has_password=True),)),
    )


def _boot(chance: random.Random, arch: str) -> BootTest:
    """Return how an image was booted: under each kind of firmware, and once more."""
    kinds = ("bios", "uefi") if arch == "x86_64" else ("uefi",)
    firmware = {kind: chance.uniform(9, 48) for kind in kinds}
    return BootTest(
        seconds=max(firmware.values()),
        accel="kvm",
        firmware=firmware,
        again=chance.uniform(9, 48),
        checks=("network", "second boot"),
    )
