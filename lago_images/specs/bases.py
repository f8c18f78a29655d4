"""Read a ``base=`` property, and check the other properties against it."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from lago_images.specs.model import Base, BaseKind, Spec
from lago_images.specs.names import (
    ARCHITECTURES,
    BOOTSTRAP_RELEASES,
    NAME,
    bootstrap_architectures,
    shown,
    suggestion,
)
from lago_images.specs.properties import (
    BIOS_ARCHITECTURES,
    BOOTSTRAP_ONLY,
    FIRMWARES,
    firmwares,
    is_url,
    size_bytes,
    value_problem,
)

_KINDS = tuple(kind.value for kind in BaseKind)
# Those of a bootstrap's that are looked at together; the rest is right or wrong by itself.
_FITTING = ("arch", "size", "mirror", "snapshot", "firmware", "expand", "root-partition")
# Of a spec that names none, of whom that is another problem.
_USUAL = "x86_64"
# The number of a bootstrap's root partition.
_ALONE, _BEHIND_ESP, _BEHIND_GRUB = 1, 2, 3
_MIB = 2**20
_LEAST_MIB = 512
# The archive's URL, and its security archive's.
_MIRRORS = 2
_FROM_ROOT = "from the root of the repository"
ANY = "*"
SIGNED_LIST = ("base-checksums", "base-key", "base-mirror")
UNCHECKED = (
    "a simple: base at a URL needs #base-checksum=sha256:…, or #base-checksums=URL and "
    "#base-key=FILE"
)


@lru_cache(maxsize=1024)
def read_base(text: str, line: int) -> tuple[Base | None, str | None]:
    """Return the base that a property's value names, if it is clear, and what is wrong with it."""
    kind, colon, name = text.partition(":")
    if not colon:
        kind, name = BaseKind.LAYER, text
    elif kind in {"http", "https"}:
        return None, "a disk at a URL is written base=simple:URL"
    elif kind == "file":
        return None, f"a disk's file is written base=simple:PATH, {_FROM_ROOT}"
    elif kind not in _KINDS:
        near = suggestion(kind, _KINDS)
        return None, f"unknown kind of base {shown(kind)}, not one of {', '.join(_KINDS)}{near}"
    base = Base(kind=BaseKind(kind), name=name, line=line)
    return base, _base_problem(base)


def _base_problem(base: Base) -> str | None:
    name = base.name
    if not name:
        return f"{base.kind}: has no name after the colon"
    if base.kind is BaseKind.BOOTSTRAP and name not in BOOTSTRAP_RELEASES:
        known = ", ".join(BOOTSTRAP_RELEASES)
        near = suggestion(name, BOOTSTRAP_RELEASES)
        return f"bootstrap: knows {known}, not {shown(name)}{near}"
    if base.kind is BaseKind.SIMPLE:
        if "://" in name and not is_url(name):
            # Not shown: it may hold a password.
            return "simple: takes an http or https URL without a password, or a path"
        return None
    return None if NAME.fullmatch(name) else _name_problem(base)


def _name_problem(base: Base) -> str:
    name = base.name
    if base.kind is BaseKind.LIBGUESTFS:
        return f"{shown(name)} cannot be the name of a template of virt-builder"
    is_path = f"; a disk's file is written base=simple:PATH, {_FROM_ROOT}" if "/" in name else ""
    return f"{shown(name)} cannot be the name of a spec{is_path}"


def meant(name: str, near: str) -> str:
    """Return what may be meant by a base that was taken for a spec's name, and is none.

    ``near`` are the specs that it may stand for, in words.
    """
    if name in BOOTSTRAP_RELEASES:
        release = f"base=bootstrap:{name} makes that system from its packages"
        return f"{near}; {release}" if near else release
    kinds = "bootstrap:RELEASE, libguestfs:TEMPLATE or simple:DISK"
    return near or f"a base that is no spec is written {kinds}"


def conflicting_properties(base: Base, properties: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each property that does not fit the base: its key (or ``base``), and what is wrong."""
    bootstrap = base.kind is BaseKind.BOOTSTRAP
    if bootstrap:
        yield from _bootstrap(base.name, properties)
    for key in () if bootstrap else BOOTSTRAP_ONLY:
        if key in properties:
            yield key, f"{key} is for bootstrap: bases only"
    yield from _firmware(properties)
    yield from _checked(base, properties)


def has_bios(arch: str) -> bool:
    """Tell if machines of an architecture may have a BIOS; others start by UEFI or otherwise."""
    return arch in BIOS_ARCHITECTURES


def has_uefi(properties: Mapping[str, str]) -> bool:
    """Tell if a ``bootstrap:`` disk boots under UEFI too, which it does unless its spec says no."""
    named = firmwares(properties)
    return not named or "uefi" in named


def spec_below(spec: Spec, specs: Mapping[str, Spec]) -> str | None:
    """Return the name of the spec that a layer stands on; None for others, or if there is none."""
    base = spec.base
    return base.name if base.kind is BaseKind.LAYER and base.name in specs else None


def descent(spec: Spec, specs: Mapping[str, Spec]) -> Iterator[Spec]:
    """Yield a spec and what it stands on by layers, down to where a cycle or a gap ends the way."""
    seen = set()
    name: str | None = spec.name
    while name is not None and name not in seen:
        seen.add(name)
        yield spec
        if (name := spec_below(spec, specs)) is not None:
            spec = specs[name]


def bottom(spec: Spec, specs: Mapping[str, Spec]) -> Spec:
    """Return the spec that a layer stands on in the end."""
    *_, last = descent(spec, specs)
    return last


def required_firmwares(spec: Spec, specs: Mapping[str, Spec]) -> tuple[str, ...]:
    """Return the kinds of firmware that a spec's image must boot with; none where nobody says.

    A ``bootstrap:`` disk is for all, unless its spec says otherwise; a layer is for what the spec
    that it stands on is for.

    Args:
        spec: The image's.
        specs: By name, all that layers may stand on.
    """
    way = list(descent(spec, specs))
    named = next((found for each in way if (found := firmwares(each.properties))), ())
    if named or way[-1].base.kind is not BaseKind.BOOTSTRAP:
        return named
    return FIRMWARES if has_bios(spec.arch) else ("uefi",)


def root_partition(properties: Mapping[str, str]) -> int:
    """Return the number of a ``bootstrap:`` disk's root partition, of its properties.

    It is the last: behind an EFI system partition, and on a PC behind GRUB's for a BIOS.
    """
    if not has_bios(properties.get("arch", _USUAL)):
        return _BEHIND_ESP
    return _BEHIND_GRUB if has_uefi(properties) else _ALONE


def misnamed_partitions(
    properties: Mapping[str, str], base: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield each property that names another partition than a ``bootstrap:`` disk's last one.

    Args:
        properties: A spec's, which stands on the disk directly or by layers.
        base: Those of the spec that makes the disk.
    """
    number = root_partition(base)
    for key in ("expand", "root-partition"):
        value = properties.get(key)
        if value is not None and not re.fullmatch(rf"/dev/[a-z]+{number}", value):
            other = " (with #firmware=bios it is /dev/sda1)" if number == _BEHIND_GRUB else ""
            yield key, f"{key} is /dev/sda{number} on this bootstrap: disk{other}"


def unknown_firmware(
    properties: Mapping[str, str], base: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield what a layer asks to be booted under, and its ``bootstrap:`` disk has nothing for."""
    if "uefi" in firmwares(properties) and not has_uefi(base):
        yield "firmware", "the disk below is for a BIOS alone: it has firmware=bios"


def security_archive(mirror: str) -> str | None:
    """Return the security archive's URL on a mirror with Debian's own layout; None on another."""
    path = urlsplit(mirror).path
    return f"{mirror}-security" if path.rpartition("/")[2] == "debian" else None


def _firmware(properties: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    arch = properties.get("arch", "")
    if arch in ARCHITECTURES - BIOS_ARCHITECTURES and "bios" in firmwares(properties):
        yield "firmware", f"no {arch} machine has a BIOS"


def _checked(base: Base, properties: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with how a disk's file is checked."""
    listed = [key for key in SIGNED_LIST if key in properties]
    if base.kind is not BaseKind.SIMPLE:
        for key in ("base-checksum", *SIGNED_LIST):
            if key in properties:
                yield key, f"{key} is for simple: bases only"
    elif "://" not in base.name:
        for key in listed:
            yield key, f"{key} is for simple: bases at a URL only"
    elif "base-checksums" in properties:
        yield from _signed_list(base, properties)
    else:
        for key in listed:
            yield key, f"{key} needs #base-checksums=URL, the list that names the disk"
        if "base-checksum" not in properties:
            yield "base", UNCHECKED


def _signed_list(base: Base, properties: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if "base-checksum" in properties:
        yield "base-checksum", "base-checksum and base-checksums exclude each other"
    if "base-key" not in properties:
        yield "base-checksums", "base-checksums needs #base-key=FILE, the key that signs the list"
    yield from _pattern(base.name)


def _pattern(url: str) -> Iterator[tuple[str, str]]:
    parts = urlsplit(url)
    folder, _, name = parts.path.rpartition("/")
    if parts.query:
        yield "base", "a URL with base-checksums has no query: its last part is a file's name"
    elif not name:
        yield "base", "a URL with base-checksums ends with a file's name, or a pattern of it"
    elif ANY in folder or ANY in parts.netloc:
        yield "base", f"{ANY} can stand in the last part of a URL only, the file's name"


def _bootstrap(release: str, properties: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    # What is wrong by itself is reported elsewhere.
    valid = {
        key: properties[key]
        for key in _FITTING
        if key in properties and not value_problem(key, properties[key])
    }
    architectures = bootstrap_architectures(release)
    arch = properties.get("arch", _USUAL)
    if arch in architectures:
        yield from misnamed_partitions(valid, valid)
    elif "arch" in valid:
        yield "arch", f"bootstrap: makes {release} for {' and '.join(architectures)} only"
    size = size_bytes(valid.get("size", ""))
    if size is not None and (size < _LEAST_MIB * _MIB or size % _MIB):
        message = (
            f"size must be a whole number of MiB, at least {_LEAST_MIB}M, for a bootstrap: base"
        )
        yield "size", message
    mirrors = valid.get("mirror", "").split()
    if len(mirrors) > _MIRRORS:
        yield "mirror", "mirror has more URLs than the archive's and its security archive's"
    # A mirror of Ubuntu's archive has its security updates, too.
    is_split = not release.startswith("ubuntu-")
    if is_split and len(mirrors) == 1 and security_archive(mirrors[0].rstrip("/")) is None:
        unknown = "mirror does not end in /debian, so its security archive is not known"
        yield "mirror", f"{unknown}: add that URL after a blank"
    if "snapshot" in valid and "mirror" not in properties:
        yield "snapshot", "snapshot needs a mirror that keeps snapshots, a folder for each moment"
