"""Decide which answers travel compressed: pages and feeds, which are large and repeat themselves.

Never a file whose bytes clients check as they come: what virt-builder and lago read, checksums,
signatures, and what a release binds.
"""

import gzip
import re
from collections.abc import Mapping
from typing import Any

from lago_images.repository.records import layout

_TEXTS = (".html", ".json", ".xml")
# RFC 9110, 12.4.2: a weight of 0 is a refusal.
_NOTHING = re.compile(r"\s*q\s*=\s*0(\.0{0,3})?\s*", re.IGNORECASE)


def is_negotiated(key: str) -> bool:
    """Return whether what clients accept decides how the object of a key travels."""
    return layout.is_rendered(key) and key.endswith(_TEXTS)


def is_asked_for(environ: Mapping[str, Any]) -> bool:
    """Return whether a request is answered best with gzip.

    Who asks for a range has the beginning of the plain bytes, or may have.
    """
    if "HTTP_RANGE" in environ:
        return False
    accepted = {}
    for part in environ.get("HTTP_ACCEPT_ENCODING", "").split(","):
        coding, _, weight = part.partition(";")
        accepted[coding.strip().lower()] = not _NOTHING.fullmatch(weight)
    return accepted.get("gzip", accepted.get("*", False))


def compress(data: bytes) -> bytes:
    """Return the same bytes for the same data: a HEAD is to tell the length of a GET."""
    return gzip.compress(data, compresslevel=6, mtime=0)
