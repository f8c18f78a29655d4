"""The pages: rendered files of which each image has its own.

A page is rendered only when what it is rendered from has changed: ``Page.inputs`` tells, from the
keys and ETags of the records, which are written once, and from this very code.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from itertools import groupby

from lago_images.repository.records import layout
from lago_images.repository.rendering import feed, image_page
from lago_images.repository.rendering.families import Families
from lago_images.repository.rendering.site import PublicKey, Site
from lago_images.repository.rendering.views import Shown, with_records


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page that may be rendered: ``inputs`` is the digest of all that it is rendered from."""

    key: str
    inputs: str
    render: Callable[[], bytes]


def pages(
    shown: Shown, site: Site, latest: Mapping[str, bytes], keys: Sequence[PublicKey]
) -> dict[str, Page]:
    """Return the pages of a repository, by key; ``latest`` are documents that are made already.

    There is a page for every image that ever had a release, so none is ever to be deleted.
    """
    state, key = shown.state, keys[-1] if keys else None
    families = Families.of(state)
    pages_ = {}
    common = f"{renderer()} {site!r} {key.fingerprint if key else ''} "
    by_name = groupby(shown.images, lambda each: each.image.name)
    for name, images in ((name, tuple(some)) for name, some in by_name):
        family = families.of_image(name)
        page, own_feed = layout.page(name), layout.image_feed(name)
        own = [each.image for each in images]
        mark = with_records(families.mark(family), state, own)
        pages_[page] = Page(
            key=page,
            inputs=_digest(common + with_records(families.inputs(family), state, own)),
            render=partial(image_page.render, images, state, site, key, families, mark),
        )
        pages_[own_feed] = Page(
            key=own_feed,
            inputs=_digest(common + families.inputs([name])),
            render=partial(feed.render_image, images, site, name, families.mark([name])),
        )
    for path, data in latest.items():
        pages_[path] = Page(key=path, inputs=_digest(data), render=partial(bytes, data))
    return pages_


@cache
def renderer() -> str:
    """Return the digest of the code and the templates that render, which a new version changes."""
    folders = (files(f"lago_images.repository.{name}") for name in ("records", "rendering"))
    sources = [each for folder in folders for each in folder.iterdir() if each.is_file()]
    sources += (files("lago_images.repository.rendering") / "templates").iterdir()
    parts = (each.read_bytes() for each in sorted(sources, key=lambda each: each.name))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _digest(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
