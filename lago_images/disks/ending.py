"""Tell by a file's own format whether it ends where it should, or was cut off."""

from dataclasses import dataclass
from pathlib import Path

from lago_images.console import counted
from lago_images.disks import qcow2_header
from lago_images.disks.decompress import COMPRESSED, EndsEarlyError
from lago_images.disks.qcow2_tables import least_size
from lago_images.disks.tar import is_tar
from lago_images.errors import BuildError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a file.

    Attributes:
        size: Bytes that it has.
        least: Bytes that it must have at least, by its own tables; None where there are none.
        is_whole: False where it is cut off; None where its format does not tell.
    """

    size: int
    least: int | None = None
    is_whole: bool | None = None

    def __str__(self) -> str:
        """Say how many bytes there are of one that is cut off, and of how many if that is known."""
        if self.least:
            return f"it has {self.size} of at least {self.least} bytes"
        there = f"it has {counted(self.size, 'byte')}"
        return f"{there} and ends before its content does" if self.size else there


def ending_of(file: Path, failure: Exception | None) -> Ending:
    """Return how a file ends that was unpacked, or failed to be.

    Args:
        file: The file.
        failure: Of the unpacking; None where nothing failed.
    """
    size = file.stat().st_size
    if not size or isinstance(failure, EndsEarlyError):
        return Ending(size=size, is_whole=False)
    with file.open("rb") as opened:
        start = opened.read(512)
    if start.startswith(qcow2_header.MAGIC):
        return _of_qcow2(file, size)
    is_packed = start.startswith(COMPRESSED) or is_tar(start)
    return Ending(size=size, is_whole=True if is_packed and failure is None else None)


def _of_qcow2(file: Path, size: int) -> Ending:
    try:
        header = qcow2_header.read_header(file, file.name)
    except EndsEarlyError:
        return Ending(size=size, is_whole=False)
    except BuildError:
        return Ending(size=size)
    least = least_size(file, header)
    # QEMU takes a file that lacks less than a cluster, and writes such ones.
    if least is None or 0 < least - size < 1 << header.cluster_bits:
        return Ending(size=size)
    return Ending(size=size, least=least, is_whole=least <= size)
