"""Make the SBOM of an image, CycloneDX 1.6, of its manifest and its list of packages.

Licences are those that the guest's package manager knows: rpm and apk do, dpkg does not, and a
guess would be believed.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema.schema import SchemaVersion1Dot6
from packageurl import PackageURL

from lago_images.errors import RepositoryError
from lago_images.repository.records.manifest import Manifest, canonical
from lago_images.repository.statements.provenance import moment

# As building/contents.py writes them; the list comes out of a guest, which is not trusted.
_LINE = re.compile(r"([A-Za-z0-9][\w+.()~-]*) ([\w+.:~^()-]+) ([\w-]+)(?: ([ -~]{1,300}))?")
_SHORT_ID = re.compile(r"([a-z]+(?:-[a-z]+)*)([0-9]+(?:\.[0-9]+)*)?")


# The reference of the image among the components.
_IMAGE = "image"


class Package(NamedTuple):
    """Hold a line of ``packages.txt``; ``licence`` is empty where it is not known."""

    name: str
    version: str
    arch: str
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Describe what an image's packages are packages of.

    Attributes:
        kind: The package URL's type, such as ``deb``.
        vendor: The package URL's namespace.
        name: As ``ID`` of os-release(5) has it; what scanners look vulnerabilities up by.
        version: Empty when it is not known.
    """

    kind: str
    vendor: str
    name: str
    version: str = ""


# By what osinfo's short ids and lago's distros begin with. `el` is of many vendors: none is named.
_DISTRIBUTIONS = {
    "almalinux": ("rpm", "almalinux", "almalinux"),
    "alpinelinux": ("apk", "alpine", "alpine"),
    "centos": ("rpm", "centos", "centos"),
    "centos-stream": ("rpm", "centos", "centos"),
    "debian": ("deb", "debian", "debian"),
    "fc": ("rpm", "fedora", "fedora"),
    "fedora": ("rpm", "fedora", "fedora"),
    "opensuse": ("rpm", "opensuse", "opensuse-leap"),
    "rhel": ("rpm", "redhat", "rhel"),
    "rocky": ("rpm", "rocky", "rocky"),
    "ubuntu": ("deb", "ubuntu", "ubuntu"),
}


def render(manifest: Manifest, packages: bytes | None) -> bytes:
    """Make the SBOM; the same manifest and packages give the same bytes.

    Args:
        manifest: The image's. Its ``osinfo``, else its ``distro``, says what the packages are of;
            where neither does, their package URLs are ``pkg:generic/…``.
        packages: ``packages.txt``; None for an image whose packages are not known, whose SBOM
            says so.

    Raises:
        RepositoryError: ``packages`` is no list of packages, or not as long as the manifest says;
            or the manifest's ``created`` is no moment.
    """
    # The list passed through the builder's hands; the manifest, which was judged, has its length.
    staging = manifest.key.staging
    listed = None if packages is None else parse_packages(packages, staging.packages)
    count = None if listed is None else len(listed)
    if manifest.packages != count:
        raise RepositoryError(
            f"{staging.packages} has {_counted(count)}, and {staging.manifest} says "
            f"{_counted(manifest.packages)}"
        )
    digest = hashlib.sha256(manifest.to_json()).hexdigest()
    tool = Component(
        type=ComponentType.APPLICATION,
        bom_ref="tool",
        name="lago-images",
        version=manifest.tools.get("lago-images"),
    )
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"sha256:{digest}"),
        metadata=BomMetaData(
            timestamp=moment(manifest.created),
            tools=ToolRepository(components=[tool]),
            component=_image(manifest),
        ),
    )
    plain: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    # One by one: a Bom compares its components with each other, and looks for the dependencies of
    # each in a list of all: cyclonedx-python-lib 11 takes 4 s for the 3,000 packages of a desktop.
    components = [
        json.loads(component.as_json(view_=SchemaVersion1Dot6))  # type: ignore[attr-defined] # put in by a decorator
        for component in _contents(distribution(manifest.properties), listed or ())
    ]
    if components:
        plain["components"] = sorted(components, key=_place)
    refs = sorted(component["bom-ref"] for component in components)
    depends = {"dependsOn": refs} if refs else {}
    plain["dependencies"] = [{"ref": _IMAGE, **depends}, *({"ref": ref} for ref in refs)]
    return canonical(plain)


def parse_packages(data: bytes, where: str) -> tuple[Package, ...]:
    """Parse a ``packages.txt``.

    Raises:
        RepositoryError: A line, named as ``where:line``, is not ``name version arch [licence]``, or
            its package comes twice.
    """
    packages: dict[tuple[str, str, str], Package] = {}
    for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if not match:
            raise RepositoryError(
                f"{where}:{number}: not `name version arch [licence]`: {line[:200]!r}"
            )
        package = Package(*match.groups(""))
        if package[:3] in packages:
            raise RepositoryError(f"{where}:{number}: {line} is there already")
        packages[package[:3]] = package
    return tuple(packages.values())


def distribution(properties: Mapping[str, str]) -> Distribution | None:
    """Return the distribution of the image's packages by a spec's properties; None if unknown."""
    for key in ("osinfo", "distro"):
        match = _SHORT_ID.fullmatch(properties.get(key, ""))
        if match and match[1] in _DISTRIBUTIONS:
            kind, vendor, name = _DISTRIBUTIONS[match[1]]
            return Distribution(kind=kind, vendor=vendor, name=name, version=match[2] or "")
    return None


def package_url(package: Package, of: Distribution | None) -> PackageURL:
    """Make the package URL; https://github.com/package-url/purl-spec has what each type wants."""
    version, qualifiers = package.version, {"arch": package.arch}
    if of is None:
        return PackageURL("generic", None, package.name, version, qualifiers)
    if of.version:
        qualifiers["distro"] = f"{of.name}-{of.version}"
    # An epoch is a qualifier for rpm, and part of the version for deb.
    epoch, colon, rest = version.partition(":")
    if of.kind == "rpm" and colon:
        qualifiers["epoch"], version = epoch, rest
    return PackageURL(of.kind, of.vendor, package.name, version, qualifiers)


def _image(manifest: Manifest) -> Component:
    disk = manifest.disk
    listed = "unknown" if manifest.packages is None else str(manifest.packages)
    properties = {
        "arch": manifest.arch,
        "commit": manifest.commit,
        "dirty": "true" if manifest.dirty else "false",
        "file": manifest.key.staging.disk.removeprefix(manifest.key.staging.folder),
        "fingerprint": manifest.fingerprint,
        "packages": listed,
    }
    return Component(
        # CycloneDX has no type for the image of a machine; scanners of those use this one.
        type=ComponentType.CONTAINER,
        bom_ref=_IMAGE,
        name=manifest.name,
        version=manifest.build_id,
        hashes=[
            HashType(alg=HashAlgorithm.SHA_256, content=disk.sha256),
            HashType(alg=HashAlgorithm.SHA_512, content=disk.sha512),
        ],
        properties=[Property(name=f"lago-images:{k}", value=v) for k, v in properties.items()],
    )


def _place(component: Mapping[str, str]) -> tuple[str, ...]:
    """Return what components are sorted by, as cyclonedx sorts those of a Bom."""
    return tuple(component.get(key, "") for key in ("type", "name", "version", "bom-ref"))


def _contents(of: Distribution | None, packages: Iterable[Package]) -> Iterator[Component]:
    if of is not None:
        yield Component(
            type=ComponentType.OPERATING_SYSTEM,
            bom_ref="system",
            name=of.name,
            version=of.version or None,
        )
    licences = LicenseFactory()
    for package in packages:
        url = package_url(package, of)
        # An SPDX id or expression, or else a name: older rpms have words of their distribution.
        licence = package.licence and licences.make_from_string(package.licence)
        yield Component(
            type=ComponentType.LIBRARY,
            bom_ref=str(url),
            name=package.name,
            version=package.version,
            purl=url,
            licenses=[licence] if licence else [],
        )


def _counted(packages: int | None) -> str:
    return "no list of packages" if packages is None else f"{packages} packages"
