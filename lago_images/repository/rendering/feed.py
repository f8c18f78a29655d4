"""Atom feeds (RFC 4287) of what happened: releases, withdrawals and rollbacks, newest first."""

from collections.abc import Iterable

from lago_images.repository.records import layout
from lago_images.repository.rendering import html
from lago_images.repository.rendering.site import Site
from lago_images.repository.rendering.views import Shown, ShownImage, ShownRecord

# Feed readers ask again and again; who was away for longer looks at the catalogue.
_MOST = 100


def render(shown: Shown, site: Site) -> bytes:
    """Render the repository's feed. Hidden images are left out, as in the catalogue."""
    images = [image for image in shown.images if not image.is_hidden]
    return _render(
        images, site, key=layout.FEED, page=layout.CATALOGUE, title=site.name,
        mark=shown.mark,
    )  # fmt: skip


def render_image(images: Iterable[ShownImage], site: Site, name: str, mark: str) -> bytes:
    """Render the feed of one image, of all its architectures."""
    return _render(
        images, site, key=layout.image_feed(name), page=layout.page(name),
        title=f"{name} in {site.name}", mark=mark,
    )  # fmt: skip


def _render(
    images: Iterable[ShownImage], site: Site, *, key: str, page: str, title: str, mark: str
) -> bytes:
    every = [record for shown in images for record in shown.records]
    newest = sorted(every, key=_moment, reverse=True)[:_MOST]
    return html.render(
        "feed.xml",
        site=site,
        url=f"{site.base_url}/{key}",
        page=f"{site.base_url}/{page}",
        title=title,
        mark=mark,
        # RFC 4287 demands an atom:updated of every feed, also of one without entries.
        updated=newest[0].release.published if newest else 0,
        records=newest,
    )


def _moment(record: ShownRecord) -> tuple[int, str, str, int]:
    release = record.release
    return release.published, release.name, release.arch, release.revision
