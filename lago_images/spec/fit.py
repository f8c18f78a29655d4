"""What a spec's properties must be for the base it stands on."""

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from lago_images.spec.model import Base, BaseKind
from lago_images.spec.names import BOOTSTRAP_ARCHITECTURES
from lago_images.spec.properties import BOOTSTRAP_ONLY, size_bytes, value_problem

_MIB = 2**20
_LEAST_MIB = 512
# The archive's URL, and its security archive's.
_MIRRORS = 2


def misfits(base: Base, properties: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Every property that does not fit the base: its key (or ``base``), and what is wrong."""
    bootstrap = base.kind is BaseKind.BOOTSTRAP
    if bootstrap:
        yield from _bootstrap(properties)
    for key in () if bootstrap else BOOTSTRAP_ONLY:
        if key in properties:
            yield key, f"{key} is for bootstrap: bases only"
    has_checksum = "base-checksum" in properties
    if has_checksum and base.kind is not BaseKind.SIMPLE:
        yield "base-checksum", "base-checksum is for simple: bases only"
    if base.kind is BaseKind.SIMPLE and "://" in base.name and not has_checksum:
        yield "base", "a simple: base at a URL needs #base-checksum=sha256:…"


def security_archive(mirror: str) -> str | None:
    """The security archive's URL on a mirror with Debian's own layout; None on another."""
    path = urlsplit(mirror).path
    return f"{mirror}-security" if path.rpartition("/")[2] == "debian" else None


def _bootstrap(properties: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    # What is wrong by itself is told elsewhere.
    good = {key: value for key, value in properties.items() if not value_problem(key, value)}
    if good.get("arch", BOOTSTRAP_ARCHITECTURES[0]) not in BOOTSTRAP_ARCHITECTURES:
        yield "arch", f"bootstrap: makes disks for {', '.join(BOOTSTRAP_ARCHITECTURES)} only"
    size = size_bytes(good.get("size", ""))
    if size is not None and (size < _LEAST_MIB * _MIB or size % _MIB):
        what = f"size must be a whole number of MiB, at least {_LEAST_MIB}M, for a bootstrap: base"
        yield "size", what
    mirrors = good.get("mirror", "").split()
    if len(mirrors) > _MIRRORS:
        yield "mirror", "mirror has more URLs than the archive's and its security archive's"
    if len(mirrors) == 1 and security_archive(mirrors[0].rstrip("/")) is None:
        unknown = "mirror does not end in /debian, so its security archive is not known"
        yield "mirror", f"{unknown}: add that URL after a blank"
    if "snapshot" in good and "mirror" not in properties:
        yield "snapshot", "snapshot needs a mirror that keeps snapshots, a folder for each moment"
