"""Explain to a user how virt-builder and lago get at a repository."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lago_images.errors import NotFoundError, RepositoryError
from lago_images.repository.records import layout
from lago_images.repository.records.parsing import parse_json
from lago_images.repository.records.presence import Presence, another, look
from lago_images.repository.rendering import lago
from lago_images.repository.rendering.commands import (
    Commands,
    disk_words,
    key_import,
    source_call,
)
from lago_images.repository.rendering.site import PublicKey
from lago_images.storage.base import Store

_PLAIN_ARCH = "x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What lago can ask for: an image of one architecture, and the newest version of it.

    ``arch`` and ``version`` are empty where ``repo.metadata`` does not say them.
    """

    name: str
    arch: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientView:
    """Hold what the published files say to a client.

    Attributes:
        name: The repository's.
        templates: By name and architecture.
        bases: Where ``repo.metadata`` sends lago for disks.
        key: The one that new users are to trust; None if the index is not signed.
    """

    name: str
    templates: tuple[Template, ...]
    bases: tuple[str, ...]
    key: PublicKey | None = None


def read(store: Store) -> ClientView:
    """Read it in a store; raises ``RepositoryError`` when nothing readable was published there."""
    try:
        data = store.get(layout.METADATA).data
    except NotFoundError as error:
        if look(store) is Presence.ANOTHER:
            what, hint = another(store.url)
            raise RepositoryError(what, hint=hint) from error
        to_publish = "lago-images build" if store.folder else "lago-images ci rebuild --changed"
        raise RepositoryError(
            f"{store.url} has no {layout.METADATA}: nothing was published there",
            hint=f"check that it is the repository you mean; {to_publish} publishes to one",
        ) from error
    return replace(describe(data), key=_key(store))


def describe(data: bytes) -> ClientView:
    """Return what a ``repo.metadata`` says; no key. Raises ``RepositoryError``."""
    try:
        plain = parse_json(data, "it is no JSON")
        sources = plain.get("sources", {}).values()
        bases = {str(arg) for source in sources for arg in source["args"].values()}
        name, names = str(plain["name"]), set(plain.get("templates", {}))
    except (RepositoryError, TypeError, KeyError, AttributeError) as error:
        raise RepositoryError(f"{layout.METADATA} is not lago's: {error}") from error
    templates = _templates(names, lago.parse(data)[0])
    return ClientView(name=name, templates=templates, bases=tuple(sorted(bases)))


def _templates(names: set[str], versions: Iterable[lago.Version]) -> tuple[Template, ...]:
    """Return the newest version of each architecture of each name, by the folder of its disk."""
    found = {}
    for each in sorted(versions, key=lambda version: version.timestamp):
        folder = layout.owner(each.handle)
        arch = folder.key.arch if folder else ""
        template = Template(name=each.template, arch=arch, version=each.version)
        found[template.name, arch] = template
    known = {name for name, _ in found}
    found |= {(name, ""): Template(name=name) for name in names - known}
    return tuple(found[key] for key in sorted(found))


def keyed(store: Store) -> set[str]:
    """Return the keys of the published signed indexes and public keys, each with a fingerprint."""
    listed = (stat.key for prefix in ("index-", "key-") for stat in store.list(prefix))
    return {key for key in listed if layout.key_behind(key)}


def use(published: ClientView, url: str, arch: str) -> tuple[Commands, ...]:
    """Return commands that use the repository at ``url`` on a machine of an architecture.

    They take the first image for it, else the first one of all.
    """
    of_here = [each for each in published.templates if each.arch in ("", arch)]
    image = next(iter([*of_here, *published.templates]), Template(name="IMAGE"))
    trust = key_import(url, published.key)
    source = " ".join(source_call(url, published.key))
    # lago knows no architectures: other images than x86_64's are had by their versions.
    is_plain = image.arch in ("", _PLAIN_ARCH)
    version = "" if is_plain else f", here {image.name}; template_version is {image.version}"
    return (
        Commands(
            title="virt-builder",
            # Its own list is at libguestfs.org, and it stops where it cannot have that.
            about="list the images, and make a disk of one; without internet, first: "
            "export VIRT_BUILDER_DIRS=/nowhere",
            text="\n".join(
                [*trust, f"{source} --list", f"{source} {disk_words(image.name, image.arch)}"]
            ),
        ),
        Commands(
            title="lago",
            about=f"template_name is the image's name{version}",
            text=f"lago init --template-repo-path {url}/{layout.METADATA}",
        ),
    )


def elsewhere(published: ClientView, url: str) -> list[str]:
    """Return the addresses in ``repo.metadata`` that lead lago away from ``url``."""
    return [base for base in published.bases if base.rstrip("/") != url]


def _key(store: Store) -> PublicKey | None:
    """Return the newest key: while keys are rotated, ``key.asc`` is still the older."""
    try:
        current = store.get(layout.KEY).data
    except NotFoundError:
        return None
    newest = None
    for stat in store.list("key-"):
        if not (fingerprint := layout.key_behind(stat.key)):
            continue
        key = PublicKey(fingerprint=fingerprint, armour=store.get(stat.key).data)
        if newest is None or key.armour != current:
            newest = key
    return newest
