"""Bootstrap a Debian: its signed packages become a disk, without an appliance."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lago_images.building.bases.bootstrap.debian import (
    Recipe,
    has_cloud_init,
    host_mirrors,
    recipe,
    recipe_again,
)
from lago_images.building.bases.bootstrap.disk import write_disk
from lago_images.building.bases.bootstrap.guest_files import Guest, make_guest
from lago_images.building.bases.bootstrap.layout import Layout
from lago_images.building.bases.bootstrap.tree import (
    Tree,
    as_root,
    list_boot_files,
    make_tree,
    settle_times,
)
from lago_images.building.bases.prepared import Prepared
from lago_images.building.model import Context
from lago_images.building.packages import digest
from lago_images.building.scratch import private, refuse_noexec
from lago_images.host import foreign
from lago_images.host.process import Runner
from lago_images.host.tools import AS_ROOT
from lago_images.repository.records.manifest import BaseRecord
from lago_images.specs.bases import has_uefi
from lago_images.specs.model import Spec
from lago_images.specs.properties import size_bytes

DEFAULT_SIZE = 6 * 2**30


def disk_size(spec: Spec) -> int:
    """Return the virtual disk's bytes: the property ``size``, which has been checked, or 6 GiB."""
    return size_bytes(spec.properties.get("size", "")) or DEFAULT_SIZE


def prepare(
    spec: Spec,
    fingerprint: str,
    workdir: Path,
    context: Context,
    runner: Runner,
    *,
    origin: str = "",
) -> Prepared:
    """Bootstrap a release's packages into a bootable disk, without an appliance.

    Args:
        spec: Has the base.
        fingerprint: The image's; the disk's identifiers are made of it.
        workdir: Where the disk is made.
        context: Its console, clock and settings.
        runner: Starts the tools.
        origin: The mirrors of an earlier build, as ``Recipe.detail`` has them, in place of those of
            this host.

    Raises:
        SpecError: There is no such release.
        BuildError: The bootstrap failed, or does not fit on the disk; or ``origin`` is nothing that
            a recipe says.
        HostError: The work directory's file system is mounted with noexec or nodev, or programs of
            the spec's architecture do not run here.
    """
    todo = recipe_again(spec, origin) if origin else recipe(spec, host_mirrors(runner))
    guest = _guest(spec, todo, fingerprint)
    user = () if os.geteuid() == 0 else AS_ROOT
    disk = workdir / "base.raw"
    context.console.info(f"{spec.name}: bootstrapping {todo.release.title}")
    refuse_noexec(workdir)
    foreign.demand(spec.arch, workdir, runner, prefix=as_root())
    with _emptied(workdir / "bootstrap", runner, user) as folder:
        tree = Tree(todo=todo, hostname=guest.hostname, folder=folder, runner=runner)
        start_time = context.clock()
        secrets = tuple(make_tree(tree, workdir, context))
        packages = tree.packages()
        make_guest(tree.rootfs, guest)
        boot_files = list_boot_files(tree)
        epoch = settle_times(tree, start_time)
        write_disk(tree.rootfs, disk, guest.layout, workdir, runner, epoch=epoch, user=user)
    return Prepared(
        disk=disk,
        format="raw",
        record=BaseRecord(ref=str(spec.base), digest=digest(packages), detail=todo.detail),
        packages=packages,
        boot_files=boot_files,
        secrets=secrets,
    )


def _guest(spec: Spec, todo: Recipe, fingerprint: str) -> Guest:
    """Return what is written into the tree, and the partitions that it is for."""
    layout = Layout(
        size=disk_size(spec),
        has_uefi=has_uefi(spec.properties),
        identity=fingerprint,
        distribution=todo.release.distribution.name,
        arch=spec.arch,
    )
    return Guest(
        title=todo.release.title,
        hostname=_hostname(spec),
        layout=layout,
        has_cloud_init=has_cloud_init(spec),
    )


def _hostname(spec: Spec) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", spec.name.lower()).strip("-")[:63] or "debian"


@contextmanager
def _emptied(path: Path, runner: Runner, user: tuple[str, ...]) -> Iterator[Path]:
    """Make a private folder, and empty it in the end: unshared, its files are other users'."""
    with private(path) as folder:
        try:
            yield folder
        finally:
            for each in folder.iterdir():
                if user:
                    runner.run([*user, "rm", "-rf", "--one-file-system", str(each)])
                elif each.is_dir():
                    shutil.rmtree(each)
                else:
                    each.unlink()
