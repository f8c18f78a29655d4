"""Compare two builds of an image: packages, properties, base, sizes. Pure functions of records.

``compare`` does all of it. The lists of packages are objects of their own, of the key
``BuildFolder.packages``: the caller reads and parses them, or leaves out what is not known.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lago_images.repository.records.manifest import BaseRecord, Manifest
from lago_images.repository.records.parsing import Count, Text

# Names, versions and architectures of dpkg, rpm and apk are of these characters. The list comes
# out of a guest, which is not trusted.
_LINE = re.compile(r"([A-Za-z0-9][\w+.()~-]*) ([\w+.:~^()-]+) ([\w-]+)(?: (.*))?")
_LICENCE = re.compile(r"[ -~]{1,300}")
# Characters of a line in a record. What is longer came out of a guest that means no good.
LONGEST = 300


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Package:
    """One installed package, as the guest's own package manager names it.

    ``licence`` is that manager's word, too: an SPDX expression, or what the distribution calls it;
    empty where it knows none, as dpkg.
    """

    name: str
    version: str
    arch: str
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionChange:
    """A package whose version differs between two images; ``new`` may be the older version."""

    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageLines:
    """The packages that change, as records have them and people read them.

    Attributes:
        added: Sorted, each ``name version arch``; as ``packages.txt`` has it.
        removed: The same.
        upgraded: Sorted, each ``name old new``; ``new`` may be the older version.
        omitted: How many more changes there are: a record has the first of each kind only.
    """

    added: tuple[Text, ...] = ()
    removed: tuple[Text, ...] = ()
    upgraded: tuple[Text, ...] = ()
    omitted: Count = 0

    @property
    def count(self) -> int:
        """Return how many packages change."""
        return len(self.added) + len(self.removed) + len(self.upgraded) + self.omitted

    @property
    def texts(self) -> list[str]:
        """Return each change as people read it: ``openssl 3.0.15-1 → 3.0.16-1``."""
        return [
            *(" → ".join(each.rsplit(" ", 1)) for each in self.upgraded),
            *(f"{each} is new" for each in self.added),
            *(f"{each} is gone" for each in self.removed),
        ]

    def first(self, most: int) -> "PackageLines":
        """Return the first changes of each kind, without lines that no honest guest has."""
        added, removed, upgraded = (
            tuple([each for each in kind if len(each) <= LONGEST][:most])
            for kind in (self.added, self.removed, self.upgraded)
        )
        omitted = self.count - len(added) - len(removed) - len(upgraded)
        return PackageLines(added=added, removed=removed, upgraded=upgraded, omitted=omitted)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageChanges:
    """The changes from one list of packages to another, each sorted by name; false for none."""

    added: tuple[Package, ...]
    removed: tuple[Package, ...]
    upgraded: tuple[VersionChange, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.upgraded)

    def lines(self) -> PackageLines:
        """Return the changes as records have them: all of them."""
        added, removed = (
            tuple(f"{each.name} {each.version} {each.arch}" for each in some)
            for some in (self.added, self.removed)
        )
        upgraded = tuple(f"{each.name} {each.old} {each.new}" for each in self.upgraded)
        return PackageLines(added=added, removed=removed, upgraded=upgraded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Tell what a build would get from outside today that a release has otherwise.

    Attributes:
        base: The template or disk that it would stand on; empty where that is the same.
        packages: The packages that it would install; None where that is not known.
        unknown: Why some of it cannot be known; empty where all of it is.
    """

    base: str = ""
    packages: PackageChanges | None = None
    unknown: str = ""

    @property
    def is_outdated(self) -> bool:
        return bool(self.base or self.packages)

    @property
    def texts(self) -> list[str]:
        """Return each thing that a build would get as people read it."""
        packages = self.packages.lines().texts if self.packages else ()
        return [*([self.base] if self.base else ()), *packages]


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertyChange:
    """A property of the spec that differs; None where a build's spec does not have it."""

    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The changes from an older build, ``old``, to a newer one, ``new``.

    Attributes:
        packages: None where the packages of one of them are not known.
        properties: Sorted by name.
    """

    old: Manifest
    new: Manifest
    packages: PackageChanges | None
    properties: tuple[PropertyChange, ...]

    @property
    def bases(self) -> tuple[BaseRecord, BaseRecord] | None:
        """Return the older and the newer base, where name or bytes differ; else None."""
        old, new = self.old.base, self.new.base
        return None if (old.ref, old.digest) == (new.ref, new.digest) else (old, new)

    @property
    def growth(self) -> int:
        """Return by how many bytes the compressed disk grew; negative when it shrank."""
        return self.new.disk.compressed_size - self.old.disk.compressed_size


def compare(
    old: Manifest,
    new: Manifest,
    old_packages: Iterable[Package] | None = None,
    new_packages: Iterable[Package] | None = None,
) -> Changes:
    """Compare two builds; without both lists of packages, all but the packages."""
    names = sorted(old.properties.keys() | new.properties.keys())
    pairs = ((name, old.properties.get(name), new.properties.get(name)) for name in names)
    return Changes(
        old=old,
        new=new,
        packages=compare_known(old_packages, new_packages),
        properties=tuple(
            PropertyChange(name=name, old=was, new=now) for name, was, now in pairs if was != now
        ),
    )


def parse_packages(text: str) -> tuple[Package, ...]:
    """Parse lines ``name version arch [licence]`` into packages, sorted; others are left out."""
    packages: dict[tuple[str, str, str], Package] = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line.strip()):
            name, version, arch, licence = match.groups("")
            # rpm says (none) for a tag that a package does not have.
            known = licence if _LICENCE.fullmatch(licence) and licence != "(none)" else ""
            package = Package(name=name, version=version, arch=arch, licence=known)
            packages.setdefault((name, version, arch), package)
    return tuple(sorted(packages.values()))


def compare_known(
    old: Iterable[Package] | None, new: Iterable[Package] | None
) -> PackageChanges | None:
    """Compare two lists of packages; None where one of them is not known."""
    return None if old is None or new is None else compare_packages(old, new)


def compare_packages(old: Iterable[Package], new: Iterable[Package]) -> PackageChanges:
    """Compare two lists of packages.

    A package of which several versions are installed at once, as kernels of rpm are, has no
    upgrades: its versions come and go.
    """
    before, after = versions_of(old), versions_of(new)
    added: list[Package] = []
    removed: list[Package] = []
    upgraded: list[VersionChange] = []
    for name, arch in sorted(before.keys() | after.keys()):
        was, now = before.get((name, arch), frozenset()), after.get((name, arch), frozenset())
        if len(was) == len(now) == 1 and was != now:
            upgraded.append(VersionChange(name=name, old=min(was), new=min(now)))
        else:
            added += (Package(name=name, version=each, arch=arch) for each in now - was)
            removed += (Package(name=name, version=each, arch=arch) for each in was - now)
    return PackageChanges(
        added=tuple(sorted(added)), removed=tuple(sorted(removed)), upgraded=tuple(upgraded)
    )


def versions_of(packages: Iterable[Package]) -> dict[tuple[str, str], frozenset[str]]:
    """Return the versions of each package, by name and architecture."""
    by_package: dict[tuple[str, str], set[str]] = {}
    for package in packages:
        by_package.setdefault((package.name, package.arch), set()).add(package.version)
    return {key: frozenset(versions) for key, versions in by_package.items()}
