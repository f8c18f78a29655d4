"""Read and write lists of the packages that are installed in images."""

import hashlib
from collections.abc import Iterable

from lago_images.repository.records.changes import Package
from lago_images.repository.records.changes import parse_packages as parse

__all__ = ["digest", "parse", "parse_dpkg_status", "render"]


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
        # dpkg also keeps what was removed, as long as its settings are there (config-files).
        if fields.get("Status", "").endswith(" installed"):
            installed.append(
                Package(
                    name=fields["Package"], version=fields["Version"], arch=fields["Architecture"]
                )
            )
    return tuple(sorted(installed))
