"""How a user's virt-builder and lago are told of a repository."""

import json
import re
from dataclasses import dataclass

from lago_images.errors import NotFoundError, RepositoryError
from lago_images.repository import layout
from lago_images.storage.base import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the published files say to a client.

    Attributes:
        name: The repository's.
        templates: The names lago can ask for, in order.
        bases: Where ``repo.metadata`` sends lago for disks.
        signed: Whether there is an ``index.asc`` and the key for it.
    """

    name: str
    templates: tuple[str, ...]
    bases: tuple[str, ...]
    signed: bool


def read(store: Store) -> Published:
    """Raises ``RepositoryError`` when nothing was published there, or it is unreadable."""
    try:
        plain = json.loads(store.get(layout.METADATA).data)
        sources = plain.get("sources", {}).values()
        bases = {str(arg) for source in sources for arg in source["args"].values()}
        name, templates = str(plain["name"]), tuple(sorted(plain.get("templates", {})))
    except NotFoundError as error:
        raise RepositoryError(
            f"{store.url} has no {layout.METADATA}: nothing was published there",
            hint="build something first: lago-images build",
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RepositoryError(f"{layout.METADATA} is not lago's: {error}") from error
    signed = _has(store, layout.SIGNED_INDEX) and _has(store, layout.KEY)
    return Published(name=name, templates=templates, bases=tuple(sorted(bases)), signed=signed)


def lines(published: Published, url: str) -> list[str]:
    """Shell lines, ready to paste, that use the repository at ``url`` with both clients."""
    image = published.templates[0] if published.templates else "IMAGE"
    return [
        "# virt-builder",
        *(_signed(published.name, url, image) if published.signed else _unsigned(url, image)),
        "# lago: the template's name is the image's",
        f"lago init --template-repo-path {url}/{layout.METADATA}",
    ]


def elsewhere(published: Published, url: str) -> list[str]:
    """The addresses in ``repo.metadata`` that lead lago away from ``url``."""
    return [base for base in published.bases if base.rstrip("/") != url]


def _has(store: Store, key: str) -> bool:
    try:
        store.head(key)
    except NotFoundError:
        return False
    return True


def _unsigned(url: str, image: str) -> list[str]:
    source = f"virt-builder --source {url}/{layout.INDEX} --no-check-signature"
    return [f"{source} --list", f"{source} {image} --format qcow2 -o {image}.qcow2"]


def _signed(name: str, url: str, image: str) -> list[str]:
    # A file of repos.d needs no fingerprint: whatever key it names is the one that is trusted.
    short = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "images"
    folder = "$HOME/.config/virt-builder/repos.d"
    conf = f"[{short}]\\nuri={url}/{layout.SIGNED_INDEX}\\ngpgkey=file://%s\\n"
    return [
        f'mkdir -p "{folder}" && curl -fsSo "{folder}/{short}.asc" {url}/{layout.KEY}',
        f'printf \'{conf}\' "{folder}/{short}.asc" > "{folder}/{short}.conf"',
        "virt-builder --list",
        f"virt-builder {image} --format qcow2 -o {image}.qcow2",
    ]
