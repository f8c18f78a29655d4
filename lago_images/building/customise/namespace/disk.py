"""Look at a disk's root file system, and write a new one of a tree in its place."""

import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lago_images.building.customise.namespace.partitions import Kind, read_partitions
from lago_images.building.customise.namespace.unpack_ext4 import (
    BLOCK,
    Superblock,
    UnsupportedError,
)
from lago_images.building.ext4 import Place, fixed_times, write_ext4
from lago_images.errors import CommandError
from lago_images.host.process import Runner

_LABEL = re.compile(r"[A-Za-z0-9_.-]*")
_DEVICE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_PIECE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A disk's root file system, and what a new one in its place keeps.

    Attributes:
        disk_size: The disk's bytes.
        place: Its bytes may be fewer than its partition's.
        made: When the file system was made, in seconds since the epoch.
        has_esp: Whether an EFI system partition is on the disk.
    """

    disk_size: int
    place: Place
    made: int
    has_esp: bool


def find_root(disk: Path) -> Root:
    """Find the root file system on a raw disk: its only one of Linux.

    Raises:
        UnsupportedError: There is none that can be unpacked, or more than one; says why.
    """
    with disk.open("rb") as file:
        parts = read_partitions(file)
        linux = [part for part in parts if part.kind is Kind.LINUX]
        if len(linux) != 1:
            raise UnsupportedError(f"its disk has {len(linux)} partitions of Linux, not one")
        [root] = linux
        file.seek(root.start + 1024)
        superblock = Superblock(file.read(1024))
        size = file.seek(0, 2)
    length = superblock.blocks * BLOCK
    if length > root.size:
        raise UnsupportedError("its file system ends after its partition")
    label = superblock.label.decode("latin-1")
    if not _LABEL.fullmatch(label):
        raise UnsupportedError("its file system has an unusual label")
    return Root(
        disk_size=size,
        place=Place(
            start=root.start,
            size=length,
            uuid=str(uuid.UUID(bytes=superblock.uuid)),
            label=label,
            hash_seed=str(uuid.UUID(bytes=superblock.hash_seed)),
        ),
        made=superblock.made,
        has_esp=any(part.kind is Kind.ESP for part in parts),
    )


def copy_around(disk: Path, root: Root, new: Path) -> None:
    """Make a sparse disk of all that is around the root file system: loaders, tables, the ESP."""
    with disk.open("rb") as source, new.open("xb") as target:
        target.truncate(root.disk_size)
        _copy(source, target, 0, root.place.start)
        _copy(source, target, root.place.start + root.place.size, root.disk_size)


def _copy(source: BinaryIO, target: BinaryIO, start: int, end: int) -> None:
    at = start
    while at < end:
        try:
            at = max(at, os.lseek(source.fileno(), at, os.SEEK_DATA))
        except OSError:
            # Nothing but a hole follows.
            return
        data = os.pread(source.fileno(), min(_PIECE, end - at), at) if at < end else b""
        if any(data):
            os.pwrite(target.fileno(), data, at)
        at += len(data) or _PIECE


def write_root(
    folder: Path, root: Root, devices: Sequence[Mapping[str, Any]], epoch: int, runner: Runner
) -> tuple[int, ...]:
    """Write ``tree`` of a folder as the root file system of its ``disk.raw``.

    Args:
        folder: Has both.
        root: What the file system keeps.
        devices: The device files, which the tree does not have; see ``unpack_ext4``.
        epoch: Seconds; the time of everything that has no time of its own.
        runner: Its programs run as who owns the tree.

    Returns:
        The blocks that superblocks are in, as ``write_ext4`` does.

    Raises:
        CommandError: The tree does not fit, or cannot be written.
    """
    superblocks = write_ext4("tree", "disk.raw", root.place, folder, epoch, runner)
    if devices:
        requests = "cd /dev\n" + "".join(map(_make_device, devices)) + "ls -p\n"
        argv = ["debugfs", "-w", "-f", "-", f"disk.raw?offset={root.place.start}"]
        out = runner.capture(
            argv,
            cwd=folder,
            stdin=requests.encode(),
            env=fixed_times(epoch),
            doing="making device files",
        )
        # debugfs succeeds whatever becomes of its requests.
        listed = {tuple(line.split("/")[2:6]) for line in out.decode().splitlines()}
        for device in devices:
            kept = (f"{device['mode']:06o}", *(str(device[key]) for key in ("uid", "gid", "name")))
            if kept not in listed:
                what = f"debugfs could not make /dev/{device['name']}"
                raise CommandError(what, argv=argv, returncode=1)
    return superblocks


def _make_device(device: Mapping[str, Any]) -> str:
    name, kind = str(device["name"]), str(device["kind"])
    numbers = {key: int(device[key]) for key in ("major", "minor", "mode", "uid", "gid", "time")}
    if not _DEVICE_NAME.fullmatch(name) or kind not in {"b", "c"}:
        raise UnsupportedError("it has a device file of an unusual name")
    lines = [f"mknod {name} {kind} {numbers['major']} {numbers['minor']}"]
    fields = {"mode": f"0{numbers['mode']:o}", "uid": numbers["uid"], "gid": numbers["gid"]}
    times = dict.fromkeys(("atime", "ctime", "mtime"), f"@{numbers['time']}")
    lines += [f"sif {name} {field} {value}" for field, value in {**fields, **times}.items()]
    return "".join(f"{line}\n" for line in lines)
