"""``index.html``: what a person sees of the repository. No script, nothing from elsewhere."""

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from lago_images.console import human_size
from lago_images.repository.records import layout
from lago_images.repository.records.fields import line
from lago_images.repository.records.release import Release, ReleasedImage
from lago_images.repository.records.state import State
from lago_images.repository.rendering.index import listing_mark
from lago_images.repository.rendering.lago import version_name
from lago_images.repository.rendering.site import PublicKey, Site

_EXAMPLE = "NAME"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An image, as the page shows it. Sizes are texts; links are relative to the page."""

    name: str
    title: str
    arch: str
    revision: int
    earlier: int
    version: str
    published: str
    day: str
    disk: str
    compressed: str
    virtual: str
    packages: int | None
    packages_link: str
    boot: str


def render(state: State, site: Site, key: PublicKey | None) -> bytes:
    """Render the page; ``key`` is the one that new users are told to trust."""
    rows = list(_rows(state))
    style = _read("catalogue.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = _template().render(
        site=site,
        images=rows,
        key=key,
        key_file=key and layout.key_file(key.fingerprint),
        signed_index=key and layout.signed_index(key.fingerprint),
        fingerprint=key and _grouped(key.fingerprint),
        example=_example(rows),
        file_name=re.sub(r"[^-A-Za-z0-9._]", "-", site.name),
        mark=listing_mark(state),
        style=Markup(style),  # noqa: S704 -- our own file; its hash is in the page's policy
        style_hash=digest,
    )
    return page.encode() + b"\n"


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_read("catalogue.html"))


def _read(name: str) -> str:
    return (files("lago_images.repository.rendering") / "templates" / name).read_text(
        encoding="utf-8"
    )


def _rows(state: State) -> Iterator[Row]:
    for name, arch in state.images:
        live = state.live(name, arch)
        image = live[-1].image if live else None
        if image and image.manifest.properties.get("hidden") != "true":
            yield _row(live[-1], image, earlier=len(live) - 1)


def _row(release: Release, image: ReleasedImage, *, earlier: int) -> Row:
    published = datetime.fromtimestamp(release.published, UTC)
    manifest, public = image.manifest, image.public
    boot = manifest.boot
    return Row(
        name=release.name,
        title=line(manifest.properties.get("name", "")),
        arch=release.arch,
        revision=release.revision,
        earlier=earlier,
        version=version_name(release, manifest),
        published=published.strftime("%Y-%m-%dT%H:%M:%SZ"),
        day=published.strftime("%Y-%m-%d"),
        disk=public.disk,
        compressed=human_size(manifest.disk.compressed_size),
        virtual=human_size(manifest.disk.virtual_size),
        packages=manifest.packages,
        packages_link=public.packages if layout.PACKAGES in image.objects else "",
        boot=line(str(boot)) if boot else "",
    )


def _example(rows: list[Row]) -> str:
    # virt-builder takes another architecture only when it is named.
    plain = [row.name for row in rows if row.arch == "x86_64"]
    return plain[0] if plain else _EXAMPLE


def _grouped(fingerprint: str) -> str:
    return " ".join(re.findall("....", fingerprint))
