"""Files of this machine, as they are read to be stored."""

from collections.abc import Iterator
from pathlib import Path

from lago_images.errors import StorageError


def size_of(path: Path) -> int:
    """A file's size in bytes.

    Raises:
        StorageError: It is not there.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        raise StorageError(f"reading {path}: {error.strerror}") from error


def file_chunks(path: Path, size: int) -> Iterator[bytes]:
    """The file in pieces of ``size`` bytes.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(size):
                yield chunk
    except OSError as error:
        raise StorageError(f"reading {path}: {error.strerror}") from error
