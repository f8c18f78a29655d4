"""Write a disk file whose zeros take no disk space."""

import os
from collections.abc import Iterable
from pathlib import Path

from lago_images.errors import BuildError
from lago_images.host import space

_ZEROS = bytes(2**20)


def write_sparse(pieces: Iterable[bytes], target: Path, *, label: str, reserve: int = 0) -> None:
    """Write a new file; a piece of up to 1 MiB of zeros becomes a hole.

    Args:
        pieces: What goes into it.
        target: The file, which must not exist yet; removed again on failure.
        label: What is written, for messages.
        reserve: Bytes that must stay free beside it.

    Raises:
        BuildError: There is too little room, or the file cannot be written.
        FileExistsError: There is such a file.
    """
    with target.open("xb") as file:
        try:
            _write(pieces, file.fileno(), target, label, reserve)
        except BaseException:
            target.unlink()
            raise


def _write(pieces: Iterable[bytes], fd: int, target: Path, label: str, reserve: int) -> None:
    free = space.free(target.parent)
    size = written = 0
    for piece in pieces:
        if piece != _ZEROS[: len(piece)]:
            written += len(piece)
            if written > free - reserve:
                raise BuildError(
                    f"{label} does not fit into {target.parent}, "
                    f"where {space.shown(free)} were free",
                    hint=space.HINT,
                )
            _write_at(fd, piece, size, target)
        size += len(piece)
    # Zeros at the end were never written: the size alone makes a hole of them.
    os.ftruncate(fd, size)


def _write_at(fd: int, data: bytes, at: int, target: Path) -> None:
    view = memoryview(data)
    while view:
        try:
            done = os.pwrite(fd, view, at)
        except OSError as error:
            raise BuildError(f"writing {target}: {error.strerror}") from error
        view, at = view[done:], at + done
