"""Files that are written where somebody else may have put something first."""

import secrets
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; a link that is in its place is replaced, not followed.

    The folder is made if needed. Raises ``OSError``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
