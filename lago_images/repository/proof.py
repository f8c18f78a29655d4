"""Whether a build that is to be released is all there, and as its manifest has it."""

from collections.abc import Mapping

from lago_images.errors import NotFoundError, RepositoryError
from lago_images.repository.manifest import Manifest
from lago_images.repository.metadata import hash_file
from lago_images.repository.parsing import parse_json, size_problem
from lago_images.storage.base import Stat, Store


def prove(store: Store, manifest: Manifest) -> None:
    """Raises ``RepositoryError`` unless everything that a release would name is there."""
    key = manifest.key
    if problems := manifest.problems(key):
        raise RepositoryError(f"{key.folder} cannot be published: {'; '.join(problems)}")
    stats = {stat.key: stat for stat in store.list(key.folder)}
    if wrong := _wrong(store, manifest, stats):
        raise RepositoryError(
            f"{key.folder} cannot be released: {'; '.join(wrong)}",
            hint=f"build it again: ci rebuild {manifest.name}",
        )


def _wrong(store: Store, manifest: Manifest, stats: Mapping[str, Stat]) -> list[str]:
    key = manifest.key
    small = (key.hash, key.metadata, key.manifest)
    lost = [name for name in (key.disk, *small) if name not in stats]
    if lost:
        return [f"it is incomplete: {name} is not there" for name in lost]
    large = {name: what for name in small if (what := size_problem(stats[name]))}
    if large:
        return [f"{name}: {what}" for name, what in large.items()]
    try:
        kept = {name: store.get(name).data for name in small}
    except NotFoundError as error:
        return [f"it is incomplete: {error.message}"]
    # What is stored is judged as anyone will read it; raises for what is no manifest.
    Manifest.parse(kept[key.manifest], key)
    size, wrong = stats[key.disk].size, []
    if size != manifest.disk.compressed_size:
        wrong.append(f"{key.disk} has {size} bytes, not {manifest.disk.compressed_size}")
    if kept[key.hash].strip() != hash_file(manifest).strip():
        wrong.append(f"{key.hash} is not the disk's")
    if not _is_object(kept[key.metadata]):
        wrong.append(f"{key.metadata} is not a JSON object")
    if kept[key.manifest] != manifest.to_json():
        wrong.append(f"{key.manifest} is another manifest")
    return wrong


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(parse_json(data, "not JSON"), dict)
    except RepositoryError:
        return False
