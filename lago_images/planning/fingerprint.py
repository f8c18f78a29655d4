"""Make the fingerprint of an image: the hash of every input of its build.

It is the same in every checkout of the same content. What cannot change the disk is left out:
comments, blank lines, the order of properties, line numbers, times, the compression level.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from lago_images.specs.model import BaseKind, Spec

# Raise it when a build makes another disk of the same spec: every image is then built again.
RECIPE = 3

Parts = Mapping[str, Any]
File = tuple[str, str, str, str]
# A template source: its URL, its key's fingerprint, and the digest of its key file.
Source = tuple[str, str, str]
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_DEL = b"\x7f"


def parts(
    spec: Spec,
    *,
    base: str | None,
    files: Sequence[File],
    sources: Sequence[Source] = (),
) -> Parts:
    """Return every input of a build, as plain values that JSON can say.

    Args:
        spec: What is built.
        base: For a layer, its base's fingerprint.
        files: Of each file the build reads: the path the spec says, the path below that (for a
            folder), the mode as git has it, and the SHA-256 of its bytes in the work tree.
        sources: Where ``libguestfs:`` bases come from. A template's own digest is not known
            without asking its source, and is recorded when it is used.
    """
    stands_on: dict[str, Any] = {"ref": str(spec.base)}
    if base is not None:
        stands_on["fingerprint"] = base
    if spec.base.kind is BaseKind.LIBGUESTFS and sources:
        stands_on["sources"] = [list(source) for source in sources]
    return {
        "recipe": RECIPE,
        "name": spec.name,
        "arch": spec.arch,
        "base": stands_on,
        "properties": dict(spec.properties),
        "operations": [[operation.name, operation.argument] for operation in spec.operations],
        "files": sorted(files),
    }


def fingerprint(inputs: Parts) -> str:
    """Return 64 hexadecimal digits, of the canonical JSON of ``parts``."""
    return hashlib.sha256(_canonical(inputs)).hexdigest()


def _canonical(inputs: Parts) -> bytes:
    """Return JSON in ASCII with sorted keys and no blanks."""
    # msgspec takes a third of the time, but escapes neither DEL nor what is not ASCII.
    with suppress(UnicodeEncodeError):
        encoded = msgspec.json.encode(inputs, order="sorted")
        if encoded.isascii() and _DEL not in encoded:
            return encoded
    return _CANONICAL.encode(inputs).encode()
