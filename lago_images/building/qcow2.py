"""Make a disk that was worked on one that can be published: qcow2, compact, on its own."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lago_images.disks.qcow2_header import read_header
from lago_images.errors import BuildError
from lago_images.host.process import Runner, search_path

FORMAT = "qcow2"
_BACKING = "backing-filename"
# A file with more holes than this share is written anew, so that clients do not copy them.
_LOOSE = 0.05
# What reads a header that somebody else wrote has 2 GiB of addresses and a minute.
_BOUNDS = ("prlimit", f"--as={2 * 2**30}", "--cpu=60", "--")
# Seconds: a disk of 2 TiB at 100 MiB/s.
_LONGEST = 6 * 3600.0


def standalone(disk: Path, fmt: str, target: Path, runner: Runner) -> int:
    """Make the finished disk at ``target``; the disk that was worked on is removed.

    A plain and compact qcow2 that stands on nothing is only renamed. Any other is written anew, so
    that nothing of its container travels on: snapshots, bitmaps, other clusters and features.

    Returns:
        Bytes a guest sees of it.

    Raises:
        BuildError: The result still stands on another file.
    """
    status = disk.stat()
    is_compact = status.st_blocks * 512 >= status.st_size * (1 - _LOOSE)
    if fmt == FORMAT and is_compact and read_header(disk, str(disk)).is_plain:
        facts = info(disk, fmt, runner, doing="looking at the disk")
        if _BACKING not in facts:
            disk.rename(target)
            return _size_alone(facts)
    convert(disk, fmt, target, runner, doing="writing the finished disk")
    return virtual_size(target, runner)


def convert(disk: Path, fmt: str, target: Path, runner: Runner, *, doing: str) -> None:
    """Write a plain qcow2 of a disk, which is removed; raises ``CommandError``."""
    # The copy is thrown away after a crash, so it need not be flushed.
    argv = ["qemu-img", "convert", "-t", "unsafe", "-f", fmt, "-O", FORMAT]
    runner.run([*argv, str(disk), str(target)], timeout=_LONGEST, doing=doing)
    disk.unlink()


def create_on(
    base: Path,
    disk: Path,
    runner: Runner,
    *,
    doing: str,
    fmt: str = FORMAT,
    size: int | None = None,
) -> None:
    """Create a qcow2 that stands on another disk, which is only read; raises ``CommandError``.

    Args:
        base: The other disk.
        disk: The new one, which has what differs.
        runner: Starts qemu-img.
        doing: What it is created for, for messages.
        fmt: The format of ``base``.
        size: The bytes that a guest sees; as many as of ``base`` where None.
    """
    argv = ["qemu-img", "create", "-q", "-f", FORMAT, "-F", fmt, "-b", str(base.resolve())]
    runner.run([*argv, str(disk), *([] if size is None else [str(size)])], doing=doing)


def compress(disk: Path, target: Path, runner: Runner) -> None:
    """Write a finished disk as a qcow2 with compressed clusters; raises ``CommandError``.

    It is like a plain one but for these, which every reader of qcow2 knows: zstd, in less time and
    a little less room, is for those of QEMU 5.1 and later (decision 16).
    """
    argv = ["qemu-img", "convert", "-t", "unsafe", "-c", "-o", "compression_type=zlib"]
    argv += ["-f", FORMAT, "-O", FORMAT, str(disk), str(target)]
    runner.run(argv, timeout=_LONGEST, doing="compressing the qcow2")


def virtual_size(disk: Path, runner: Runner) -> int:
    """Return the bytes a guest sees of a finished disk, which must stand on nothing else.

    Raises:
        BuildError: It has a backing file or an external data file. lago would read a file of
            that name on its user's machine, and virt-builder would die without a word.
        CommandError: It is no qcow2.
    """
    return _size_alone(info(disk, FORMAT, runner, doing="looking at the finished disk"))


def info(disk: Path, fmt: str, runner: Runner, *, doing: str) -> Mapping[str, Any]:
    """Return ``qemu-img info`` of a disk file; its backing file is not opened.

    Args:
        disk: The file.
        fmt: Its format. Passed to qemu-img, which would else believe what a guest may have written
            to the start of a raw disk.
        runner: Starts qemu-img.
        doing: What it is asked for, for messages.

    Raises:
        CommandError: It is not of that format.
    """
    argv = ["qemu-img", "info", "-f", fmt, "--output", "json", str(disk)]
    has_prlimit = shutil.which(_BOUNDS[0], path=search_path(runner.environ))
    bounds = _BOUNDS if has_prlimit else ()
    bounded = replace(runner, prefix=(*runner.prefix, *bounds))
    facts: Mapping[str, Any] = json.loads(bounded.capture(argv, doing=doing))
    return facts


def _size_alone(facts: Mapping[str, Any]) -> int:
    data_file = facts.get("format-specific", {}).get("data", {}).get("data-file")
    if other := facts.get(_BACKING) or data_file:
        raise BuildError(f"the finished disk stands on another file, {other}: it is not published")
    return int(facts["virtual-size"])
