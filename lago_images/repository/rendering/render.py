"""Render all that is published but signatures: a pure function of the repository's state."""

from collections.abc import Iterator, Sequence

from lago_images.repository.records import layout
from lago_images.repository.records.state import State
from lago_images.repository.rendering import catalogue, index, lago, sums
from lago_images.repository.rendering.site import PublicKey, Site


def render(state: State, site: Site, keys: Sequence[PublicKey] = ()) -> dict[str, bytes]:
    """Return the rendered files but those that only a secret key can make, by key.

    Args:
        state: What is in the repository.
        site: Its name and URL.
        keys: The public keys whose signatures go beside these files. The first signs
            ``index.asc``, ``SHA256SUMS`` and ``repo.metadata``; the last is for new users.
    """
    files = {
        layout.SUMS: sums.render(_sums(state), mark=index.listing_mark(state)),
        layout.INDEX: index.render(state),
        layout.METADATA: lago.render(state, name=site.name, base_url=site.base_url),
        layout.CATALOGUE: catalogue.render(state, site, keys[-1] if keys else None),
    }
    if keys:
        files[layout.KEY] = keys[0].armour
    return files | {layout.key_file(key.fingerprint): key.armour for key in keys}


def is_empty(state: State) -> bool:
    """Tell whether there is no image to offer."""
    return not any(state.current(name, arch) for name, arch in state.images)


def _sums(state: State) -> Iterator[sums.Sum]:
    """Return the disks of all offered revisions; a rollback's is that of an earlier one."""
    live = (release for image in state.images for release in state.live(*image))
    images = {one.image.public: one.image for one in live if one.image}
    for public, image in images.items():
        yield public.disk, image.manifest.disk.sha256
