"""Reading documents that others wrote: what is in them must not stop who reads them."""

import json
from typing import Any

from lago_images.errors import RepositoryError
from lago_images.storage.base import Stat

# Bytes. Ours have a few thousand; larger ones are not even read.
LARGEST = 4 << 20


def parse_json(data: bytes, what: str) -> Any:  # noqa: ANN401 -- what json makes of it
    """What a document says; raises ``RepositoryError``, which begins with ``what``, for no JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RepositoryError(f"{what}: {error}") from error


def size_problem(stat: Stat) -> str:
    """Why an object is too large to be read as a document; empty when it is not."""
    if stat.size <= LARGEST:
        return ""
    return f"it has {stat.size} bytes, more than the {LARGEST} that are read"
