"""The job that tries an image out: build it and its bases, boot it, publish nothing."""

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from lago_images.building.model import Result
from lago_images.building.qcow2 import FORMAT
from lago_images.disks import qcow2_header, xz
from lago_images.disks.decompress import decompress
from lago_images.errors import NotFoundError, RepositoryError, UsageError
from lago_images.host.files import replace
from lago_images.jobs.build import build
from lago_images.jobs.plan import plan
from lago_images.jobs.workspace import Workspace
from lago_images.planning.history import Ask
from lago_images.planning.model import Action, Plan
from lago_images.repository.browsing.queries import refuse_damaged
from lago_images.repository.records.layout import BOOT_FILES, MANIFEST, PACKAGES, SPEC, ImageId
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.state import StoredBuild, read
from lago_images.repository.rendering import spec_text
from lago_images.specs.choosing import did_you_mean
from lago_images.specs.model import Spec
from lago_images.storage.base import Store


class FinishedDisk(NamedTuple):
    """An image's disk in a file of its own."""

    path: Path
    format: str
    arch: str


def build_only(workspace: Workspace, name: str) -> tuple[Plan, list[Result]]:
    """Build an image, and those of its bases that are not published as they are now.

    When the image fails, its bases are no longer wanted, and stopped.
    Returns what was planned, and how each build ended.

    Nothing is written to the repository if the workspace's store keeps it apart.

    Raises:
        UsageError: There is no spec of that name.
        HostError: Working KVM is required and missing.
    """
    decided = plan(workspace, Ask(changed=False, force=frozenset({name}), promote=False))
    planned = {image.name: image for image in decided.images if image.fingerprint}
    names, goal = [], name
    while name in planned and planned[name].action is Action.BUILD:
        names.append(name)
        name = planned[name].base.removeprefix("layer:")
    workspace.console.info(
        "nothing is published: the build goes to a folder that is removed at the end"
    )
    return decided, build(workspace, decided, names, goal=goal)


def unpack(store: Store, stored: StoredBuild, target: Path) -> FinishedDisk:
    """Decompress a build's disk into a file, which is replaced when it is complete.

    Raises:
        DamagedError: The disk in the repository is not what its manifest says.
        StorageError: The store could not be read.
    """
    disk, key = stored.manifest.disk, stored.folder.disk
    partial = target.with_name(f".{target.name}.part")
    # Left by a run that was killed; and beside the target, so that replacing it is one rename.
    partial.unlink(missing_ok=True)
    digests = decompress(store.read(key), partial, largest=disk.size, label=key)
    if digests.sha256 != disk.sha256:
        partial.unlink()
        raise RepositoryError(
            f"{key} is not what its manifest says: its SHA-256 is {digests.sha256}, "
            f"not {disk.sha256}",
            hint="lago-images repo verify --deep says what else is wrong in the repository",
        )
    partial.replace(target)
    return FinishedDisk(path=target, format=disk.format, arch=stored.manifest.arch)


def refuse_no_disk(file: Path, fmt: str) -> None:
    """Refuse a file of which no machine starts: what is compressed, and what is no qcow2.

    Raises:
        UsageError: Says what it is, as far as that is known.
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        first = stream.read(len(xz.MAGIC))
    if first == xz.MAGIC:
        raise UsageError(
            f"{file} is compressed, and a machine starts from what is in it",
            hint=f"xz --decompress --keep {shlex.quote(str(file))} unpacks it beside it",
        )
    if fmt == FORMAT and not first.startswith(qcow2_header.MAGIC):
        raise UsageError(
            f"{file} is no qcow2", hint="a raw disk is told by its name, which ends in .img or .raw"
        )


def keep(store: Store, stored: StoredBuild, spec: Spec, folder: Path) -> None:
    """Write what is known of a build into a folder, as ``repo diff`` takes it.

    That is its manifest, its lists of packages and boot files, and what its spec says. Of another
    build that was kept there nothing stays. Raises ``OSError`` and ``StorageError``.
    """
    for name in (MANIFEST, PACKAGES, BOOT_FILES):
        try:
            replace(folder / name, store.get(stored.folder.folder + name).data)
        except NotFoundError:
            # Nothing told what is in its disk.
            (folder / name).unlink(missing_ok=True)
    replace(folder / SPEC, spec_text.render(spec))


def tested_firmware(built: Manifest) -> str:
    """Return a firmware that a build booted with, a BIOS first; empty where none is known."""
    return min(built.boot.firmware, default="") if built.boot else ""


def offered(store: Store, image: ImageId) -> int | None:
    """Return the revision that clients get of an image; None where they get none."""
    release = read(store).current(*image)
    return release.revision if release else None


def published(store: Store, name: str, specs: Collection[str]) -> StoredBuild:
    """Return the build that clients get under a name.

    Args:
        store: Where it is published.
        name: Its name.
        specs: The names that could be built, for the message.

    Raises:
        UsageError: No image of that name was ever published.
        RepositoryError: One was, and clients get none now, or no record of it can be read.
    """
    state = read(store)
    named = [image for image in state.images if image.name == name]
    for image in named:
        release = state.current(*image)
        stored = release and state.stored(release)
        if stored:
            return stored
    if named:
        raise RepositoryError(
            f"clients of {store.url} get no revision of {name} now",
            hint=f"lago-images repo show {name} says why",
        )
    refuse_damaged(state, name)
    wanted = name.removesuffix(".qcow2")
    names = {each.name for each in state.images if state.current(*each)} - {wanted}
    build = "lago-images repo list shows what is published"
    if wanted in specs:
        build = (
            f"build it: lago-images try {wanted}, then lago-images run {wanted}.qcow2; or {build}"
        )
    raise UsageError(
        f"here is no file {name}, and no image of that name was ever published in {store.url}",
        hint=did_you_mean(wanted, names, build),
    )
