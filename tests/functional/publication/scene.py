"""A publication to disturb: a published repository, and finished builds that wait to be released.

Built once, in a directory, by the real command line; then copied to where it is needed.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lago_images.repository.records import layout
from lago_images.repository.records.layout import headers, release_key
from lago_images.repository.records.release import Release
from lago_images.repository.rendering import index, lago
from lago_images.storage.base import Store
from lago_images.storage.directory.store import DirectoryStore
from tests.functional.publication.calls import Caller
from tests.support.keys import TestKey
from tests.support.specs import SpecsRepo

PROBED = "state/store.json"
Revisions = Mapping[str, int]
OLD = {"one": 1, "two": 1}
NEW = {"one": 2, "three": 1, "two": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The repository before the publication, as objects by key."""

    repo: SpecsRepo
    objects: Mapping[str, bytes]
    head: str
    key: TestKey | None = None
    # The indexes that real tools were asked about already.
    judged: set[bytes] = field(default_factory=set)

    @property
    def environ(self) -> dict[str, str]:
        """What the command line is told besides the repository."""
        return signing(self.key)

    def restore(self, store: Store) -> None:
        """Make a store hold the scene, and nothing else but what is known of the store."""
        hold(store, self.objects)


def hold(store: Store, objects: Mapping[str, bytes]) -> None:
    """Make a store hold these objects, and nothing else but what is known of the store."""
    there = {stat.key: stat.etag for stat in store.list()}
    store.delete([key for key in there if key not in objects and key != PROBED])
    wrong = [key for key, data in objects.items() if there.get(key) != _etag(data)]

    def put(key: str) -> None:
        store.put(key, objects[key], expected=there.get(key), headers=headers(key))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, wrong))


def _etag(data: bytes) -> str:
    """As S3 makes it of what was written in one request."""
    return hashlib.md5(data).hexdigest()


def signing(key: TestKey | None) -> dict[str, str]:
    return {"LAGO_IMAGES_SIGNING_KEY": f"file:{key.secret}"} if key else {}


def make(root: Path, call: Caller, key: TestKey | None = None) -> Scene:
    """Publish two images; then build a change of one and a third, and stop there."""
    repo = call.repo
    for number, name in enumerate(("one", "two"), 1):
        repo.disk(f"image-specs/files/{name}.img", seed=number, size=1 << 16)
        repo.spec(name, f"simple:image-specs/files/{name}.img")
    repo.commit("Add two images")
    where = {"LAGO_IMAGES_REPOSITORY": str(root), "LAGO_IMAGES_BASE_URL": "http://images.test"}
    environ = {**where, **signing(key)}
    assert call.call("ci", "rebuild", "--changed", environ=environ) == 0, call.output()
    repo.spec("one", "simple:image-specs/files/one.img", "#notes=changed")
    repo.spec("three", "simple:image-specs/files/two.img")
    head = repo.commit("Change one, add three")
    assert call.call("ci", "build", "one", "three", environ=environ) == 0, call.output()
    store = DirectoryStore(path=root)
    keys = [stat.key for stat in store.list() if stat.key != layout.CACHE]
    objects = {name: store.get(name).data for name in keys}
    return Scene(repo=repo, objects=objects, head=head, key=key)


def offered(store: Store) -> tuple[Revisions, Revisions, bytes]:
    """What the index and ``repo.metadata`` offer, once both are found whole; and the index.

    Whole: our strict parsers find nothing, and every object that is named is there, with the
    size and checksum that are named.
    """
    text = store.get(layout.INDEX).data
    entries, problems = index.parse(text)
    versions, more = lago.parse(store.get(layout.METADATA).data)
    assert problems == more == []
    sizes = {stat.key: stat.size for stat in store.list(layout.IMAGES)}
    for entry in entries:
        assert sizes[entry.file] == int(entry.get("compressed_size")), entry.file
    newest: dict[str, lago.Version] = {}
    for version in versions:
        for ending in (".xz", ".hash", ".metadata"):
            assert version.handle + ending in sizes, version
        if version.timestamp > newest.get(version.template, version).timestamp - 1:
            newest[version.template] = version
    in_metadata = {name: int(one.version.split("-")[-1]) for name, one in newest.items()}
    return {entry.name: entry.revision for entry in entries}, in_metadata, text


def old_or_new(store: Store) -> bytes:
    """Assert that each published file is the old or the new one, whole; the index's bytes."""
    in_index, in_metadata, text = offered(store)
    assert in_index in (OLD, NEW)
    assert in_metadata in (OLD, NEW)
    # The index is written first.
    assert (in_index, in_metadata) != (OLD, NEW)
    return text


def converged(store: Store, scene: Scene, call: Caller, environ: Mapping[str, str]) -> None:
    """Assert that a plain run, without hand-work, ends where an undisturbed one does."""
    code = call.call("ci", "rebuild", "--changed", environ=environ)
    assert code == 0, call.output()
    published(store, scene, orphans=True)


def published(store: Store, scene: Scene, *, orphans: bool = False) -> None:
    """Assert that the publication is whole, and left nothing of a disturbance behind.

    But for ``orphans``: the copy of a publisher that was killed, which no release names.
    """
    in_index, in_metadata, _ = offered(store)
    assert in_index == in_metadata == NEW
    keys = {stat.key for stat in store.list() if not stat.key.startswith(layout.STATE)}
    releases = {
        f"releases/{name}/x86_64/{number}.json" for name, number in (("one", 2), ("three", 1))
    }
    before = {key for key in scene.objects if not key.startswith(layout.STATE)}
    copies = set()
    for name in releases:
        image = Release.parse(store.get(name).data, release_key(name)).image
        copies |= {image.public.folder + file for file in image.objects}
    assert keys >= before | releases | copies
    pages = {layout.page("three"), layout.image_feed("three"), "latest/three.x86_64.json"}
    assert keys >= pages
    left = keys - before - releases - copies - pages
    assert orphans or not left
    assert all(key.startswith(layout.IMAGES) for key in left)
    assert scene.head.encode() in store.get(layout.PUBLISHED).data
