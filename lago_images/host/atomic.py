"""Files that are written where somebody else may have put something first."""

import secrets
from contextlib import suppress
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; a link that is in its place is replaced, not followed.

    The folder is made if needed. Raises ``OSError``, which names this file.
    """
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as file:
            file.write(data)
        beside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            beside.unlink()
