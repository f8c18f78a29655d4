"""A disk that was worked on becomes one that can be published: qcow2, compact, on its own."""

import json
from pathlib import Path
from typing import Any

from lago_images.errors import BuildError
from lago_images.host.process import Runner

FORMAT = "qcow2"
# A file with more holes than this share is written anew, so that clients do not copy them.
_LOOSE = 0.05


def standalone(disk: Path, fmt: str, target: Path, runner: Runner) -> None:
    """Make the finished disk at ``target``; the disk that was worked on is gone afterwards.

    A compact qcow2 that stands on nothing is only renamed.

    Raises:
        BuildError: The result still stands on another file.
    """
    if fmt == FORMAT and len(_chain(disk, runner)) == 1 and _compact(disk):
        disk.rename(target)
    else:
        # The copy is thrown away after a crash, so it need not be flushed.
        convert = ["qemu-img", "convert", "-t", "unsafe", "-f", fmt, "-O", FORMAT]
        runner.run([*convert, str(disk), str(target)], doing="writing the finished disk")
        disk.unlink()


def virtual_size(disk: Path, runner: Runner) -> int:
    """Bytes a guest sees of a finished disk, which must stand on nothing else.

    Raises:
        BuildError: It has a backing file or an external data file. lago would read a file of
            that name on its user's machine, and virt-builder would die without a word.
    """
    chain = _chain(disk, runner)
    only = chain[0]
    extra = only.get("format-specific", {}).get("data", {}).get("data-file")
    if len(chain) > 1 or "backing-filename" in only or extra:
        other = only.get("backing-filename") or extra
        raise BuildError(f"the finished disk stands on another file, {other}: it is not published")
    if only["format"] != FORMAT:
        raise BuildError(f"the finished disk is {only['format']}, not {FORMAT}")
    return int(only["virtual-size"])


def _chain(disk: Path, runner: Runner) -> list[dict[str, Any]]:
    argv = ["qemu-img", "info", "--backing-chain", "--output=json", str(disk)]
    chain: list[dict[str, Any]] = json.loads(runner.capture(argv, doing="looking at the disk"))
    return chain


def _compact(disk: Path) -> bool:
    status = disk.stat()
    return status.st_blocks * 512 >= status.st_size * (1 - _LOOSE)
