"""Explain to a user how virt-builder and lago get at a repository."""

from dataclasses import dataclass, replace

from lago_images.errors import NotFoundError, RepositoryError
from lago_images.repository.records import layout
from lago_images.repository.records.parsing import parse_json
from lago_images.storage.base import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientView:
    """Hold what the published files say to a client.

    Attributes:
        name: The repository's.
        templates: The names lago can ask for, in order.
        bases: Where ``repo.metadata`` sends lago for disks.
        fingerprint: Of the key that new users are to trust; empty if the index is not signed.
    """

    name: str
    templates: tuple[str, ...]
    bases: tuple[str, ...]
    fingerprint: str


def read(store: Store) -> ClientView:
    """Read it in a store; raises ``RepositoryError`` when nothing readable was published there."""
    try:
        data = store.get(layout.METADATA).data
    except NotFoundError as error:
        raise RepositoryError(
            f"{store.url} has no {layout.METADATA}: nothing was published there",
            hint="check that it is the repository you mean; what is built is published to one by "
            "lago-images build, or to a bucket by lago-images ci rebuild",
        ) from error
    return replace(describe(data), fingerprint=_fingerprint(store))


def describe(data: bytes) -> ClientView:
    """Return what a ``repo.metadata`` says; no fingerprint. Raises ``RepositoryError``."""
    try:
        plain = parse_json(data, "it is no JSON")
        sources = plain.get("sources", {}).values()
        bases = {str(arg) for source in sources for arg in source["args"].values()}
        name, templates = str(plain["name"]), tuple(sorted(plain.get("templates", {})))
    except (RepositoryError, TypeError, KeyError, AttributeError) as error:
        raise RepositoryError(f"{layout.METADATA} is not lago's: {error}") from error
    return ClientView(name=name, templates=templates, bases=tuple(sorted(bases)), fingerprint="")


def keyed(store: Store) -> set[str]:
    """Return the keys of the published signed indexes and public keys, each with a fingerprint."""
    listed = (stat.key for prefix in ("index-", "key-") for stat in store.list(prefix))
    return {key for key in listed if layout.key_behind(key)}


def lines(published: ClientView, url: str) -> list[str]:
    """Return shell lines, ready to paste, that use the repository at ``url`` with both clients."""
    image = published.templates[0] if published.templates else "IMAGE"
    disk = f"{image} --format qcow2 -o {image}.qcow2"
    if published.fingerprint:
        key = layout.key_file(published.fingerprint)
        index = layout.signed_index(published.fingerprint)
        # -f: without it curl hands the page of a 404 to gpg, and succeeds.
        trust = [f"curl -fsS {url}/{key} | gpg --import"]
        source = f"virt-builder --source {url}/{index} --fingerprint {published.fingerprint}"
    else:
        trust = []
        source = f"virt-builder --source {url}/{layout.INDEX} --no-check-signature"
    return [
        "# virt-builder",
        *trust,
        f"{source} --list",
        f"{source} {disk}",
        "# lago: the template's name is the image's",
        f"lago init --template-repo-path {url}/{layout.METADATA}",
    ]


def elsewhere(published: ClientView, url: str) -> list[str]:
    """Return the addresses in ``repo.metadata`` that lead lago away from ``url``."""
    return [base for base in published.bases if base.rstrip("/") != url]


def _fingerprint(store: Store) -> str:
    """Return that of the newest key: while keys are rotated, ``key.asc`` is still the older."""
    try:
        current = store.get(layout.KEY).data
    except NotFoundError:
        return ""
    newest = ""
    for stat in store.list("key-"):
        fingerprint = layout.key_behind(stat.key)
        if fingerprint and (not newest or store.get(stat.key).data != current):
            newest = fingerprint
    return newest
