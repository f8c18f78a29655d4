"""Make the public copy of a staged build, of the bytes that were judged and of no others.

Builders may write to their folders at any time, so nothing that is read there is believed before
it was compared, and what was compared is what is written: the publisher writes the small objects
itself, and proves the copy of the disk. The folder is new and has a nonce in its name, so no two
publishers ever write one key.
"""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from lago_images.errors import (
    ConflictError,
    NotFoundError,
    RepositoryError,
    StorageError,
    TamperedError,
)
from lago_images.host.threads import undo
from lago_images.repository.records.access import Access
from lago_images.repository.records.layout import SPEC, BuildFolder, BuildKey, headers
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.parsing import parse_json, size_problem
from lago_images.repository.records.release import BaseBinding, ObjectDigest, ReleasedImage
from lago_images.repository.rendering.lago import hash_file
from lago_images.repository.statements.making import Statements
from lago_images.storage.base import Stat, Store

_NONCE_BYTES = 4
# Bytes. What a build's programs and its guest print is read whole, too.
_LARGEST_LOG = 64 << 20
_WHO = "find out who used the builder's credentials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Hold a staged build as it was judged: only these bytes become public.

    Attributes:
        manifest: The build's.
        sha256: Of the manifest's bytes, in hexadecimal.
        metadata: The ``.metadata`` that the publisher's own checkout makes; None where it has no
            spec to make it of: then it must have the manifest's properties.
        spec: What that checkout's spec says, for people; None where it has none.
        access: How people log in, as that spec documents it; None where there is none.
        also: The forms beside the xz that its settings ask for; others do not become public.
    """

    manifest: Manifest
    sha256: str
    metadata: bytes | None = None
    spec: bytes | None = None
    access: Access | None = None
    also: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True)
class PublicCopy:
    """Make the public copy of one staged build, at most once; remove it if nobody offers it.

    ``statements`` are made about it, and lie in it; None for a copy of what was staged alone.
    """

    store: Store
    judged: Judged
    statements: Statements | None = None
    target: BuildFolder = field(init=False)
    _image: ReleasedImage | None = None

    def __post_init__(self) -> None:
        key = self.judged.manifest.key
        # With one folder a build, a slow publisher could overwrite what a faster one has proved and
        # released: Ceph ignores If-None-Match where it copies (decision 9).
        folder = f"{key.build_id}.{secrets.token_hex(_NONCE_BYTES)}"
        self.target = BuildKey(name=key.name, arch=key.arch, build_id=folder).public

    def image(self, base: BaseBinding | None) -> ReleasedImage:
        """Return what a release records of the copy, which is made by the first call.

        Raises:
            TamperedError: The staged build is not what was judged; nothing of it became public.
            RepositoryError: The staged build is incomplete, or holds what cannot be published.
        """
        if self._image is None:
            try:
                self._image = self._made(base)
            # Ctrl-C too: nothing names the copy yet, and nobody else would miss it.
            except BaseException as error:
                undo(error, self.remove)
                raise
        return self._image

    def remove(self) -> None:
        """Delete what was copied; ``repo gc`` does so where the store is away."""
        with suppress(StorageError):
            self.store.delete([stat.key for stat in self.store.list(self.target.folder)])

    def _made(self, base: BaseBinding | None) -> ReleasedImage:
        judged, target = self.judged, self.target
        stats, files = _staged(self.store, judged)
        if judged.spec is not None:
            files = {SPEC: judged.spec, **files}
        if self.statements:
            # Before the manifest, which is written last.
            stated = self.statements.make(judged.manifest, files, also=judged.also)
            files = {**stated, **files}
        objects = {}
        for name, expected in _disks(judged).items():
            self._copy(stats[name], target.folder + name, expected)
            objects[name] = expected
        # Written from memory, not copied in the store: these are the bytes that were compared.
        for name, data in files.items():
            key = target.folder + name
            self.store.put(key, data, expected=None, headers=headers(key))
            objects[name] = ObjectDigest(sha256=_sha256(data), size=len(data))
        return ReleasedImage(
            build=judged.manifest.build_id,
            folder=target.key.build_id,
            manifest=judged.manifest,
            objects=objects,
            base=base,
            access=judged.access,
        )

    def _copy(self, disk: Stat, target: str, expected: ObjectDigest) -> None:
        # By the ETag of what was looked at: a builder may overwrite the disk at any time. Whatever
        # arrives is proved by its SHA-256, as an ETag is the store's word and not a digest.
        try:
            self.store.copy(
                disk.key,
                target,
                etag=disk.etag,
                size=expected.size,
                sha256=expected.sha256,
                headers=headers(target),
            )
        except ConflictError as error:
            raise TamperedError(f"{error.message}: not what was judged", hint=_WHO) from error
        except NotFoundError as error:
            problems = [f"it is incomplete: {error.message}"]
            raise _refused(self.judged.manifest, problems) from error


def _disks(judged: Judged) -> dict[str, ObjectDigest]:
    """Return what becomes public of the disk, by file name: the xz, and the forms asked for."""
    disk, staging = judged.manifest.disk, judged.manifest.key.staging
    disks = {staging.disk: ObjectDigest(sha256=disk.sha256, size=disk.compressed_size)}
    for form in sorted(judged.also):
        file = judged.manifest.also.get(form)
        if file is None:
            raise _refused(judged.manifest, [f"it was not built as {form}"])
        disks[staging.also(form)] = ObjectDigest(sha256=file.sha256, size=file.size)
    return {key.removeprefix(staging.folder): expected for key, expected in disks.items()}


def _staged(store: Store, judged: Judged) -> tuple[Mapping[str, Stat], Mapping[str, bytes]]:
    """Look at the disks of a staged build, and read its small files, the manifest last; by name."""
    manifest, staging = judged.manifest, judged.manifest.key.staging
    if problems := manifest.problems(manifest.key):
        raise RepositoryError(f"{staging.folder} cannot be published: {'; '.join(problems)}")
    # Listed first, for the sizes: a builder may have put gigabytes where a few lines belong.
    stats = {stat.key: stat for stat in store.list(staging.folder)}
    needed = (staging.hash, staging.metadata, staging.manifest)
    disks = [staging.folder + name for name in _disks(judged)]
    if lost := [name for name in (*disks, *needed) if name not in stats]:
        raise _refused(manifest, [f"it is incomplete: {name} is missing" for name in lost])
    listed = (staging.packages, staging.boot_files, staging.log, staging.console)
    more = [name for name in listed if name in stats]
    if large := list(_too_large(stats, needed, more)):
        raise _refused(manifest, large)
    try:
        names = (*more, *needed)
        files = {name.removeprefix(staging.folder): store.get(name).data for name in names}
    except NotFoundError as error:
        raise _refused(manifest, [f"it is incomplete: {error.message}"]) from error
    looked_at = {name.removeprefix(staging.folder): stats[name] for name in disks}
    _compare(judged, looked_at, files)
    return looked_at, files


def _too_large(
    stats: Mapping[str, Stat], documents: tuple[str, ...], logs: list[str]
) -> Iterator[str]:
    for name in documents:
        if problem := size_problem(stats[name]):
            yield f"{name}: {problem}"
    for name in logs:
        if stats[name].size > _LARGEST_LOG:
            yield f"{name} has {stats[name].size} bytes, more than {_LARGEST_LOG}"


def _compare(judged: Judged, disks: Mapping[str, Stat], files: Mapping[str, bytes]) -> None:
    """Raise ``TamperedError`` where a staged file is not what was judged."""
    manifest, staging = judged.manifest, judged.manifest.key.staging
    of_manifest = _sha256(files[staging.manifest.removeprefix(staging.folder)])
    if of_manifest != judged.sha256:
        raise TamperedError(
            f"{staging.manifest} has sha256 {of_manifest}; what was judged has {judged.sha256}",
            hint=f"{_WHO}, then build it again: lago-images ci rebuild {manifest.name}",
        )
    problems = [
        f"{disks[name].key} has {disks[name].size} bytes, not {expected.size}"
        for name, expected in _disks(judged).items()
        if disks[name].size != expected.size
    ]
    # The only digest that lago compares a disk with.
    if files[staging.hash.removeprefix(staging.folder)] != hash_file(manifest):
        problems.append(f"{staging.hash} is not the disk's")
    if problem := _metadata_problem(judged, files[staging.metadata.removeprefix(staging.folder)]):
        problems.append(f"{staging.metadata} {problem}")
    if problems:
        raise TamperedError(
            f"{staging.folder} is not what was judged: {'; '.join(problems)}",
            hint=f"{_WHO}, then build it again: lago-images ci rebuild {manifest.name}",
        )


def _metadata_problem(judged: Judged, data: bytes) -> str:
    if judged.metadata is not None:
        return "" if data == judged.metadata else "is not what the spec makes"
    try:
        plain = parse_json(data, "it")
    except RepositoryError:
        return "is not JSON"
    if not isinstance(plain, dict):
        return "is not a JSON object"
    properties = judged.manifest.properties.items()
    # More may be in it: the root password, which stands in the spec's commands alone.
    other = sorted(key for key, value in properties if plain.get(key) != value)
    return f"is not as in the manifest: {', '.join(other)}" if other else ""


def _refused(manifest: Manifest, problems: list[str]) -> RepositoryError:
    return RepositoryError(
        f"{manifest.key.staging.folder} cannot be released: {'; '.join(problems)}",
        hint=f"build it again: lago-images ci rebuild {manifest.name}",
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
