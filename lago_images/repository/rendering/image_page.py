"""``catalogue/NAME.html``: all that is known of an image."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lago_images.repository.records import layout
from lago_images.repository.records.changes import Changes, compare
from lago_images.repository.records.fields import line
from lago_images.repository.records.layout import ImageId
from lago_images.repository.records.manifest import DiskFile
from lago_images.repository.records.release import Release, ReleasedImage
from lago_images.repository.records.state import State
from lago_images.repository.rendering import html
from lago_images.repository.rendering.commands import Commands, of_image
from lago_images.repository.rendering.documents import known_files
from lago_images.repository.rendering.families import Families
from lago_images.repository.rendering.lago import version_name
from lago_images.repository.rendering.site import PublicKey, Site
from lago_images.repository.rendering.views import ShownImage, ShownRecord

# Records that are shown whole. Releases are never deleted, so a history may have thousands.
_WHOLE = 50
# A page lies in a folder of its own.
_ROOT = "../"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """A base or a layer of an image.

    Attributes:
        page: The address of its page; empty where it is not of this repository.
        revision: The base's that was built on; the layer's that is offered. None for other bases.
        note: What is not as one would expect, such as a newer revision of the base.
        layers: What was built on a layer.
    """

    name: str
    page: str
    revision: int | None
    note: str = ""
    layers: "tuple[Relative, ...]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record of the history, with what changed since what was offered before.

    ``also`` has the address of each other form of the disk, and the facts of that file.
    """

    record: ShownRecord
    changes: Changes | None
    links: Mapping[str, str]
    disk: str
    also: Mapping[str, tuple[str, DiskFile]]
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One architecture of an image.

    Attributes:
        entries: The newest records, and all of what is offered; the newest first.
        earlier: The other records, of which a line is shown.
        bases: The nearest first.
    """

    shown: ShownImage
    entries: tuple[Entry, ...]
    earlier: tuple[ShownRecord, ...]
    bases: tuple[Relative, ...]
    layers: tuple[Relative, ...]
    commands: tuple[Commands, ...]
    properties: Mapping[str, str]

    @property
    def newest(self) -> Entry:
        return next(entry for entry in self.entries if entry.record is self.shown.newest)


def render(
    images: Iterable[ShownImage],
    state: State,
    site: Site,
    key: PublicKey | None,
    families: Families,
    mark: str,
) -> bytes:
    """Render the page of the images of one name, each of an architecture."""
    sections = [_section(shown, state, site, key, families) for shown in images]
    shown = sections[0].shown
    return html.render(
        "image.html",
        script="image.js",
        # The list of packages lies beside the disk; from a folder on disk only a frame may show it.
        policy="connect-src 'self'; frame-src 'self'",
        site=site,
        name=shown.image.name,
        title=line(shown.built.manifest.properties.get("name", "")),
        sections=sections,
        root=_ROOT,
        index=_ROOT + layout.CATALOGUE,
        feed=layout.image_feed(shown.image.name).removeprefix(layout.CATALOGUE_PAGES),
        mark=mark,
    )


def _section(
    shown: ShownImage, state: State, site: Site, key: PublicKey | None, families: Families
) -> Section:
    release, manifest = shown.newest.release, shown.built.manifest
    whole, earlier = list(shown.records[:_WHOLE]), list[ShownRecord]()
    for record in shown.records[_WHOLE:]:
        is_whole = record.is_offered or record is shown.newest
        (whole if is_whole else earlier).append(record)
    return Section(
        shown=shown,
        entries=tuple(_entry(record) for record in whole),
        earlier=tuple(earlier),
        bases=tuple(_bases(state, shown.built)),
        layers=tuple(_layers(state, shown.image, families)),
        commands=tuple(of_image(release, shown.built, site, key)) if shown.is_offered else (),
        properties={line(each): line(text) for each, text in sorted(manifest.properties.items())},
    )


def _entry(record: ShownRecord) -> Entry:
    before, image = record.event.before, record.image
    old = before.manifest if before else None
    links = known_files(image) if image and record.is_offered else {}
    return Entry(
        record=record,
        changes=compare(old, image.manifest) if old and image else None,
        links={name: _ROOT + link for name, link in links.items()},
        disk=_ROOT + image.public.disk if image and record.is_offered else "",
        also={
            form: (_ROOT + image.public.also(form), file)
            for form, file in sorted(image.also.items())
        }
        if image and record.is_offered
        else {},
        version=version_name(record.release, image.manifest) if image else "",
    )


def _bases(state: State, image: ReleasedImage) -> Iterator[Relative]:
    """Return what an image stands on, down to what is not of this repository."""
    seen = {image.public}
    while base := image.base:
        current = state.current(base.name, base.arch)
        note = "no longer offered"
        if current:
            is_same = current.image is not None and current.image.build == base.build
            note = "" if is_same else f"revision {current.revision} is offered now"
        page = layout.page(base.name).removeprefix(layout.CATALOGUE_PAGES)
        yield Relative(name=base.name, page=page, revision=base.revision, note=note)
        history = state.history(base.name, base.arch)
        bound = next(
            (release.image for release in history if release.revision == base.revision), None
        )
        if bound is None or bound.public in seen:
            return
        image = bound
        seen.add(image.public)
    ref = line(image.manifest.base.ref)
    yield Relative(name=ref, page="", revision=None, note=line(image.manifest.base.detail))


def _layers(
    state: State, image: ImageId, families: Families, below: frozenset[str] = frozenset()
) -> Iterator[Relative]:
    """Return what is offered and was built on an image, and what was built on that.

    ``below`` are the names on the way there: two images may have changed their places since.
    """
    offered, below = state.current(*image), below | {image.name}
    for name in sorted(families.layers.get(image.name, frozenset()) - below):
        layer = state.current(name, image.arch)
        base = layer.image.base if layer and layer.image else None
        if layer is None or base is None or base.name != image.name:
            continue
        yield Relative(
            name=name,
            page=layout.page(name).removeprefix(layout.CATALOGUE_PAGES),
            revision=layer.revision,
            note=_outdated(base.build, base.revision, offered),
            layers=tuple(_layers(state, ImageId(name, image.arch), families, below)),
        )


def _outdated(build: str, revision: int, offered: Release | None) -> str:
    """Return that a layer was built on something else than what its base offers now."""
    if offered and offered.image and offered.image.build == build:
        return ""
    return f"built on revision {revision}"
