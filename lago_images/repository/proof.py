"""Whether a build that is to be released is all there, and as its manifest has it."""

import json

from lago_images.errors import NotFoundError, RepositoryError
from lago_images.repository.check import manifest_problems
from lago_images.repository.manifest import Manifest
from lago_images.repository.metadata import hash_file
from lago_images.storage.base import Store


def prove(store: Store, manifest: Manifest) -> None:
    """Raises ``RepositoryError`` unless everything that a release would name is there."""
    key = manifest.key
    if problems := manifest_problems(manifest, key):
        raise RepositoryError(f"{key.folder} cannot be published: {'; '.join(problems)}")
    try:
        size = store.head(key.disk).size
        kept = {name: store.get(name).data for name in (key.hash, key.metadata, key.manifest)}
    except NotFoundError as error:
        raise RepositoryError(
            f"{key.folder} cannot be released, it is incomplete: {error}",
            hint=f"build it again: ci rebuild {manifest.name}",
        ) from error
    wrong = []
    if size != manifest.disk.compressed_size:
        wrong.append(f"{key.disk} has {size} bytes, not {manifest.disk.compressed_size}")
    if kept[key.hash].strip() != hash_file(manifest).strip():
        wrong.append(f"{key.hash} is not the disk's")
    if not _is_object(kept[key.metadata]):
        wrong.append(f"{key.metadata} is not a JSON object")
    if kept[key.manifest] != manifest.to_json():
        wrong.append(f"{key.manifest} is another manifest")
    if wrong:
        raise RepositoryError(
            f"{key.folder} cannot be released: {'; '.join(wrong)}",
            hint=f"build it again: ci rebuild {manifest.name}",
        )


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False
