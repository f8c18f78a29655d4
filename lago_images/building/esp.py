"""List the files of an EFI system partition, where the guest did not mount it."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lago_images.building.bases.prepared import Prepared
from lago_images.errors import CommandError, ToolMissingError
from lago_images.host.process import Runner
from lago_images.repository.records.boot_files import BootFile, BootFiles

# Of a GPT, and of a table of a BIOS.
_TYPES = {"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef"}
_PLACES = ("/boot/efi", "/efi")
_MOST = 1000
# Bytes of a file; the partition is a guest's, who may have made one of any size.
_LARGEST = 64 * 2**20
_READ = 'mcopy -i "$1" "$2" - | head -c "$3"'
# mtools takes other characters for patterns, or for what a name in FAT cannot be.
_NAME = re.compile(r"::(/[A-Za-z0-9 ._+~()@/-]+)")
# Not the settings of whoever builds; and a disk that others partitioned has any geometry.
_SETTINGS = {"MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"}


class _UnknownError(Exception):
    """Raised where the partition cannot be read; says why."""


def with_esp(prepared: Prepared, runner: Runner) -> Prepared:
    """Add the files of a raw disk's EFI system partition, if the guest named where it belongs.

    Its boot files are as they were where that cannot be done: the partition stays unread.
    """
    listed = prepared.boot_files
    place = next((each for each in _PLACES if listed and each in listed.unread), None)
    if listed is None or place is None or prepared.format != "raw":
        return prepared
    try:
        found = list(_files(prepared.disk, place, runner))
    except (_UnknownError, CommandError, ToolMissingError) as error:
        runner.note(f"the files of {place} are not listed: {error}")
        return prepared
    unread = (each for each in listed.unread if each != place)
    return replace(prepared, boot_files=BootFiles.of([*listed.files, *found], unread))


def _files(disk: Path, place: str, runner: Runner) -> Iterator[BootFile]:
    partition = f"{disk}@@{_start(disk, runner)}"
    listed = runner.capture(
        ["mdir", "-/", "-a", "-b", "-i", partition, "::/"], env=_SETTINGS, doing=f"listing {place}"
    )
    names = listed.decode(errors="replace").splitlines()
    if len(names) > _MOST:
        raise _UnknownError(f"there are {len(names)}")
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            raise _UnknownError(f"one is called {name!a}")
        if name.endswith("/"):
            continue
        # To stdout: what stands in there is a guest's, and writes no file of this host.
        argv = ["sh", "-c", _READ, "sh", partition, name, str(_LARGEST)]
        data = runner.capture(argv, env=_SETTINGS, doing=f"reading {name}")
        if len(data) == _LARGEST:
            raise _UnknownError(f"{name} is larger than any of a boot loader")
        path = place + match[1]
        yield BootFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _start(disk: Path, runner: Runner) -> int:
    """Return where a disk's only EFI system partition begins, in bytes."""
    table = json.loads(runner.capture(["sfdisk", "--json", str(disk)], doing="reading partitions"))
    table = table["partitiontable"]
    starts = [
        each["start"] * table.get("sectorsize", 512)
        for each in table.get("partitions", [])
        if each["type"].lower() in _TYPES
    ]
    if len(starts) != 1:
        raise _UnknownError(f"the disk has {len(starts)} such partitions")
    return int(starts[0])
