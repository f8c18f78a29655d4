"""Read, write and compare lists of the packages that are installed in images."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lago_images.building.bases.prepared import Package

# Names, versions and architectures of dpkg, rpm and apk are of these characters. The list comes
# out of a guest, which is not trusted.
_LINE = re.compile(r"([A-Za-z0-9][\w+.()~-]*) ([\w+.:~^()-]+) ([\w-]+)(?: (.*))?")
_LICENCE = re.compile(r"[ -~]{1,300}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A package whose version differs between two images."""

    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The changes from one list of packages to another, each sorted by name."""

    added: tuple[Package, ...]
    removed: tuple[Package, ...]
    upgraded: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.upgraded)


def parse(text: str) -> tuple[Package, ...]:
    """Parse lines ``name version arch [licence]`` into packages; other lines are left out."""
    packages: dict[tuple[str, str, str], Package] = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line.strip()):
            name, version, arch, licence = match.groups("")
            # rpm says (none) for a tag that a package does not have.
            known = licence if _LICENCE.fullmatch(licence) and licence != "(none)" else ""
            package = Package(name=name, version=version, arch=arch, licence=known)
            packages.setdefault((name, version, arch), package)
    return tuple(sorted(packages.values()))


def render(packages: Iterable[Package]) -> str:
    """Return one line ``name version arch [licence]`` a package, sorted."""
    lines = (f"{p.name} {p.version} {p.arch} {p.licence}".rstrip() for p in sorted(packages))
    return "".join(f"{line}\n" for line in lines)


def digest(packages: Iterable[Package]) -> str:
    """Return ``sha256:…`` of the rendered list."""
    return "sha256:" + hashlib.sha256(render(packages).encode()).hexdigest()


def parse_dpkg_status(text: str) -> tuple[Package, ...]:
    """Parse dpkg's database, ``/var/lib/dpkg/status``, into the installed packages."""
    installed = []
    for stanza in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in stanza.splitlines()
            if ": " in line and not line.startswith(" ")
        )
        if fields.get("Status", "").endswith(" installed"):
            installed.append(
                Package(
                    name=fields["Package"], version=fields["Version"], arch=fields["Architecture"]
                )
            )
    return tuple(sorted(installed))


def compare(old: Iterable[Package], new: Iterable[Package]) -> Difference:
    """Compare two lists of packages, ``old`` and ``new``.

    A package of which several versions are installed at once, as kernels of rpm are, has no
    upgrades: its versions come and go.
    """
    before, after = _versions(old), _versions(new)
    added: list[Package] = []
    removed: list[Package] = []
    upgraded: list[Change] = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key, frozenset()), after.get(key, frozenset())
        if len(was) == len(now) == 1 and was != now:
            upgraded.append(Change(name=key[0], old=min(was), new=min(now)))
        else:
            added += (Package(name=key[0], version=v, arch=key[1]) for v in now - was)
            removed += (Package(name=key[0], version=v, arch=key[1]) for v in was - now)
    return Difference(
        added=tuple(sorted(added)), removed=tuple(sorted(removed)), upgraded=tuple(upgraded)
    )


def _versions(packages: Iterable[Package]) -> dict[tuple[str, str], frozenset[str]]:
    by_package: dict[tuple[str, str], set[str]] = {}
    for package in packages:
        by_package.setdefault((package.name, package.arch), set()).add(package.version)
    return {key: frozenset(versions) for key, versions in by_package.items()}
