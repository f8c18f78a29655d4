"""``catalogue/NAME.html``: all that is known of an image."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lago_images.repository.records import layout
from lago_images.repository.records.changes import Changes, compare
from lago_images.repository.records.fields import line
from lago_images.repository.records.manifest import DiskFile
from lago_images.repository.records.state import State
from lago_images.repository.rendering import html
from lago_images.repository.rendering.commands import Commands, of_image
from lago_images.repository.rendering.documents import known_files
from lago_images.repository.rendering.families import Families
from lago_images.repository.rendering.lago import version_name
from lago_images.repository.rendering.relatives import Relative, bases_of, layers_of
from lago_images.repository.rendering.site import PublicKey, Site
from lago_images.repository.rendering.views import ShownImage, ShownRecord

# Records that are shown whole. Releases are never deleted, so a history may have thousands.
_WHOLE = 50
# A page lies in a folder of its own.
_ROOT = "../"


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
        bases=tuple(bases_of(state, shown.built)),
        layers=tuple(layers_of(state, shown.image, families)),
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
