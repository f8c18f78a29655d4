"""``index.html``: the list of all images that people see first.

Useful without its script, which searches, filters and sorts what is there.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from lago_images.repository.records import layout
from lago_images.repository.records.fields import aliases, line
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.rendering import commands, html
from lago_images.repository.rendering.lago import version_name
from lago_images.repository.rendering.site import PublicKey, Site
from lago_images.repository.rendering.views import Offer, Shown, ShownImage
from lago_images.specs.model import BaseKind

# Of so many images the list has whole checksums. Their digits are random, and no compression makes
# less of a pair than 64 bytes: with those of 2,000 images the page, which may be 200 kB, is 330 kB.
MOST_WHOLE = 1000
_DIGITS = 8
_EXAMPLE_ARCH = "x86_64"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image of the list. Links are relative to the page."""

    shown: ShownImage
    base_page: str

    @cached_property
    def manifest(self) -> Manifest:
        return self.shown.built.manifest

    @property
    def name(self) -> str:
        return self.shown.image.name

    @property
    def arch(self) -> str:
        return self.shown.image.arch

    @property
    def title(self) -> str:
        return line(self.manifest.properties.get("name", ""))

    @property
    def aliases(self) -> str:
        return ", ".join(aliases(line(self.manifest.properties.get("aliases", ""))))

    @property
    def notes(self) -> str:
        return line(self.manifest.properties.get("notes", ""))

    @property
    def distribution(self) -> str:
        return line(self.manifest.properties.get("distro", "")) or "unknown"

    @property
    def base(self) -> str:
        return line(self.manifest.base.ref.removeprefix(f"{BaseKind.LAYER}:"))

    @property
    def page(self) -> str:
        return layout.page(self.name)

    @property
    def version(self) -> str:
        return version_name(self.shown.newest.release, self.manifest)


def render(shown: Shown, site: Site, key: PublicKey | None) -> bytes:
    """Render the page; ``key`` is the one that new users are to trust."""
    pages = {image.name for image in shown.state.images}
    rows = [
        Row(shown=image, base_page=_base_page(image, pages))
        for image in shown.images
        if not image.is_hidden
    ]
    every = (release for history in shown.state.releases.values() for release in history)
    # lago takes an image of another architecture only by the name of a version.
    plain = [row.name for row in rows if row.arch == _EXAMPLE_ARCH and row.shown.is_offered]
    example, arch = (plain[0], _EXAMPLE_ARCH) if plain else ("", "")
    return html.render(
        "catalogue.html",
        script="catalogue.js",
        site=site,
        rows=rows,
        offered=sum(row.shown.is_offered for row in rows),
        updated=max((release.published for release in every), default=None),
        distributions=sorted({row.distribution for row in rows}),
        architectures=sorted({row.arch for row in rows}),
        offers=[offer for offer in Offer if any(row.shown.offer is offer for row in rows)],
        uses=[
            commands.virt_builder(site, key, example, arch),
            commands.virt_builder_source(site, key),
            commands.lago(site, example),
        ],
        key=key,
        key_file=key and layout.key_file(key.fingerprint),
        fingerprint=key and " ".join(re.findall("....", key.fingerprint)),
        has_outdated=any(row.shown.is_outdated for row in rows),
        digits=0 if len(rows) <= MOST_WHOLE else _DIGITS,
        sums=layout.SIGNED_SUMS if key else layout.SUMS,
        mark=shown.full_mark,
    )


def _base_page(shown: ShownImage, pages: set[str]) -> str:
    """Return the page of the image that one was built on, if it has one; else empty."""
    base = shown.built.base
    return layout.page(base.name) if base and base.name in pages else ""
