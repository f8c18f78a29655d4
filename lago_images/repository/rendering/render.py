"""All that is published but signatures: a pure function of the repository's state."""

from collections.abc import Sequence

from lago_images.repository.records import layout
from lago_images.repository.records.state import State
from lago_images.repository.rendering import catalogue, index, lago
from lago_images.repository.rendering.site import PublicKey, Site


def render(state: State, site: Site, keys: Sequence[PublicKey] = ()) -> dict[str, bytes]:
    """The rendered files but those that only a secret key can make, by key, in writing order.

    Args:
        state: What is in the repository.
        site: Its name and URL.
        keys: The public keys whose signatures go beside these files. The first signs
            ``index.asc`` and ``repo.metadata``; the last is the one that new users are told of.
    """
    files = {
        layout.INDEX: index.render(state),
        layout.METADATA: lago.render(state, name=site.name, base_url=site.base_url),
        layout.CATALOGUE: catalogue.render(state, site, keys[-1] if keys else None),
    }
    if keys:
        files[layout.KEY] = keys[0].armour
    return files | {layout.key_file(key.fingerprint): key.armour for key in keys}


def is_empty(state: State) -> bool:
    """Whether there is no image to offer."""
    return not any(state.current(name, arch) for name, arch in state.images)
