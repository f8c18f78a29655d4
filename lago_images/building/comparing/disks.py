"""Compare two finished disks: their bytes, then their files and what is around these."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lago_images.building import qcow2
from lago_images.building.comparing.areas import AreaDifference, differing_areas
from lago_images.building.comparing.files import FileDifference, differing
from lago_images.building.comparing.tree import read_files
from lago_images.building.customise.namespace.unpack_ext4 import UnsupportedError
from lago_images.host.process import Runner

_PIECE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskComparison:
    """How a newer disk differs from an older one.

    Attributes:
        is_same: Whether the two files have the same bytes.
        files: The guest's files that differ; None where they could not be read.
        no_files: Why they could not be read; else empty.
        areas: The areas of the disk that differ, as the guest sees it.
    """

    is_same: bool
    files: tuple[FileDifference, ...] | None = ()
    no_files: str = ""
    areas: tuple[AreaDifference, ...] = ()


def has_same_bytes(one: Path, other: Path) -> bool:
    """Tell whether two files have the same bytes; all of them are compared."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while piece := first.read(_PIECE):
            if piece != second.read(_PIECE):
                return False
    return True


def compare_disks(old: Path, new: Path, runner: Runner, *, with_times: bool) -> DiskComparison:
    """Compare two qcow2 disks, which are removed where their bytes differ.

    Args:
        old: The published one.
        new: The one that was built now.
        runner: Starts qemu-img.
        with_times: Whether files of other times differ.

    Raises:
        BuildError: One of them stands on another file.
        CommandError: One of them is no qcow2.
    """
    if has_same_bytes(old, new):
        return DiskComparison(is_same=True)
    raws = [_raw(disk, runner) for disk in (old, new)]
    compared = DiskComparison(is_same=False, areas=differing_areas(*raws))
    try:
        trees = [read_files(raw) for raw in raws]
    except (UnsupportedError, OSError, struct.error, RecursionError) as error:
        return replace(compared, files=None, no_files=str(error))
    return replace(compared, files=tuple(differing(*trees, with_times=with_times)))


def _raw(disk: Path, runner: Runner) -> Path:
    # Also that it stands on nothing else: qemu-img would open a file of this host.
    qcow2.virtual_size(disk, runner)
    raw = disk.with_suffix(".raw")
    argv = ["qemu-img", "convert", "-t", "unsafe", "-f", qcow2.FORMAT, "-O", "raw"]
    runner.run([*argv, str(disk), str(raw)], doing=f"unpacking {disk.name}")
    disk.unlink()
    return raw


def in_appliance(files: tuple[FileDifference, ...]) -> Iterator[FileDifference]:
    """Yield differences, with the reason for those that the appliance makes by itself."""
    for each in files:
        # The salts of passwords are of chance there.
        is_salt = each.path == "/etc/shadow" and each.what == ("content",)
        yield replace(each, expected="the appliance makes salts by chance") if is_salt else each
