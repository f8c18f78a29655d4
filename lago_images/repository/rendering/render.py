"""Render all that is published but signatures: a pure function of the repository's state."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lago_images.repository.records import layout
from lago_images.repository.records.state import State
from lago_images.repository.rendering import catalogue, documents, feed, index, lago, sums
from lago_images.repository.rendering.pages import Page, pages
from lago_images.repository.rendering.site import PublicKey, Site
from lago_images.repository.rendering.views import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The rendered files but those that only a secret key can make, by key.

    Attributes:
        pages: Those of which each image has its own; they are made one by one, when asked for.
        files: All others.
    """

    pages: Mapping[str, Page]
    files: Mapping[str, bytes]


def render(state: State, site: Site, keys: Sequence[PublicKey] = ()) -> Rendered:
    """Render a repository.

    Args:
        state: What is in the repository.
        site: Its name and URL.
        keys: The public keys whose signatures go beside these files. The first signs
            ``index.asc``, ``SHA256SUMS`` and ``repo.metadata``; the last is for new users.
    """
    shown = Shown.of(state)
    latest = documents.latest_documents(shown, site)
    images = documents.images_json(shown, site)
    listed = {layout.IMAGES_JSON: images, **latest}
    files = {
        layout.IMAGES_JSON: images,
        layout.SUMS: sums.render(_sums(state, listed), mark=shown.mark),
        layout.INDEX: index.render(state),
        layout.METADATA: lago.render(state, name=site.name, base_url=site.base_url),
        layout.FEED: feed.render(shown, site),
        layout.CATALOGUE: catalogue.render(shown, site, keys[-1] if keys else None),
    }
    if keys:
        # One key alone: of a file with two virt-builder trusts the last.
        files[layout.KEY] = keys[0].armour
    files |= {layout.key_file(key.fingerprint): key.armour for key in keys}
    return Rendered(pages=pages(shown, site, latest, keys), files=files)


def is_empty(state: State) -> bool:
    """Return whether there is no image to offer."""
    return not any(state.current(name, arch) for name, arch in state.images)


def _sums(state: State, documents_: Mapping[str, bytes]) -> Iterator[sums.Sum]:
    """Return the disks of all offered revisions, and the documents that lead to them."""
    live = (release for image in state.images for release in state.live(*image))
    # A rollback's disk is that of an earlier revision.
    offered = {release.public: release.image for release in live}
    for public, image in offered.items():
        if public and image:
            yield public.disk, image.manifest.disk.sha256
            for form, file in image.also.items():
                yield public.also(form), file.sha256
    for key, data in documents_.items():
        yield key, hashlib.sha256(data).hexdigest()
