"""Look at a disk's root file system, and write a new one of a tree in its place."""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lago_images.building.bases.bootstrap.disk import SECTOR, START, Layout, root_file_system
from lago_images.building.customise.namespace.unpack_ext4 import (
    BLOCK,
    Superblock,
    UnsupportedError,
)
from lago_images.errors import CommandError
from lago_images.host.process import Runner

_TABLE, _ENTRY, _ENTRIES = 446, 16, 4
_LINUX = 0x83
_DEVICE_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root file system as ``bootstrap:`` lays it out: where, and what it must keep."""

    disk_size: int
    layout: Layout


def find_root(disk: Path) -> Root:
    """Find the root file system on a raw disk.

    Raises:
        UnsupportedError: The disk is not as ``bootstrap:`` lays it out; says in what.
    """
    with disk.open("rb") as file:
        start = file.read(SECTOR)
        file.seek(START + 1024)
        superblock = Superblock(file.read(1024))
        size = file.seek(0, 2)
    table = [start[at : at + _ENTRY] for at in range(_TABLE, _TABLE + _ENTRIES * _ENTRY, _ENTRY)]
    if start[510:] != b"\x55\xaa" or any(any(entry) for entry in table[1:]):
        raise UnsupportedError("its disk has not exactly one partition of an MBR's")
    first, sectors = struct.unpack_from("<II", table[0], 8)
    length = superblock.blocks * BLOCK
    if table[0][4] != _LINUX or first * SECTOR != START or sectors * SECTOR < length:
        raise UnsupportedError("its partition is not where bootstrap puts it")
    if START + length > size:
        raise UnsupportedError("its partition ends after the disk")
    hexadecimal = superblock.uuid.hex()
    parts = (8, 12, 16, 20)
    uuid = "-".join(hexadecimal[a:b] for a, b in zip((0, *parts), (*parts, 32), strict=True))
    if superblock.label != b"root":
        raise UnsupportedError("its file system has another label than bootstrap gives")
    return Root(disk_size=size, layout=Layout(size=START + length, uuid=uuid))


def copy_boot_code(disk: Path, new: Path) -> None:
    """Make a disk of the same size with what is in front of the partition, and nothing else."""
    with disk.open("rb") as source, new.open("xb") as target:
        target.write(source.read(START))
        target.truncate(source.seek(0, 2))


def write_root(
    folder: Path, root: Root, devices: Sequence[Mapping[str, Any]], runner: Runner
) -> None:
    """Write ``tree`` of a folder into the root partition of its ``disk.raw``.

    Args:
        folder: Has both.
        root: What the file system keeps.
        devices: The device files, which the tree does not have; see ``unpack_ext4``.
        runner: Its programs run as who owns the tree.

    Raises:
        CommandError: The tree does not fit, or cannot be written.
    """
    argv = root_file_system("tree", "disk.raw", root.layout)
    runner.run(argv, cwd=folder, doing="writing the root file system")
    if devices:
        requests = "cd /dev\n" + "".join(map(_make_device, devices)) + "ls -p\n"
        argv = ["debugfs", "-w", "-f", "-", f"disk.raw?offset={START}"]
        out = runner.capture(argv, cwd=folder, stdin=requests.encode(), doing="making device files")
        # debugfs succeeds whatever becomes of its requests.
        listed = {tuple(line.split("/")[2:6]) for line in out.decode().splitlines()}
        for device in devices:
            kept = (f"{device['mode']:06o}", *(str(device[key]) for key in ("uid", "gid", "name")))
            if kept not in listed:
                what = f"debugfs could not make /dev/{device['name']}"
                raise CommandError(what, argv=argv, returncode=1)


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
