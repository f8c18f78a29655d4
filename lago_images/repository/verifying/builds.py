"""Check that what the published files name exists, and has the bytes that were released."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from lago_images.disks.checksums import Checksums, Digests
from lago_images.disks.decompress import LARGEST, DamagedError, xz_stream
from lago_images.errors import NotFoundError, RepositoryError, StorageError
from lago_images.repository.records import layout
from lago_images.repository.records.layout import BuildFolder, ImageId, ReleaseKey, owner
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.parsing import DocumentError, parse_json
from lago_images.repository.records.release import Release, ReleasedImage
from lago_images.repository.rendering.index import Entry
from lago_images.repository.rendering.lago import Version
from lago_images.repository.verifying.findings import (
    REFRESH,
    Finding,
    Source,
    note,
    problem,
    restore_or_withdraw,
)
from lago_images.repository.verifying.web import DeniedError
from lago_images.settings import FORMS
from lago_images.storage.base import Stat

# As many digits as the 63 bits that virt-builder reads a number into.
_NUMBER = re.compile(r"[0-9]{1,19}")
_LIST = "lago-images repo list --all --state any"
# Bytes, for small disks: the tables of larger ones fit into the factor of two beside it.
_QCOW2_TABLES = 64 * 2**20
_TAMPERED = "tampered"
# The end of lago's versions: `v3`, or the spec's own version and the revision, `12.5-3`.
_REVISION = re.compile(r"(?:^v|-)([0-9]{1,18})$")
_READABLE = "let everybody read it: its storage class, its encryption key, the bucket's policy"
# What each public copy must be.
Images = Mapping[BuildFolder, ReleasedImage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Hold a public copy, and who names it: the index, ``repo.metadata``, or both.

    ``image`` is what its release binds; None where no release could be read.
    """

    build: BuildFolder
    entries: tuple[Entry, ...]
    versions: tuple[Version, ...]
    image: ReleasedImage | None = None

    @property
    def tampered(self) -> str:
        """Return what to do where it is not what was released."""
        return self._repair("tampered")

    @property
    def lost(self) -> str:
        """Return what to do where something of it is missing."""
        return self._repair("lost")

    def _repair(self, reason: str) -> str:
        revisions = [key.revision for key in release_keys(self)]
        # repo.metadata names no revisions: then a list has the one of this build.
        which = "" if revisions else f", with the --revision that {_LIST} shows"
        return restore_or_withdraw(self.build, revisions, reason) + which


@dataclass(slots=True)
class Progress:
    """Count the bytes of disks that were read; ``advance`` is called with each piece's."""

    read: int = 0
    advance: Callable[[int], None] | None = None

    def counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on the pieces of a disk, each once it is counted."""
        for piece in pieces:
            self.read += len(piece)
            if self.advance is not None:
                self.advance(len(piece))
            yield piece


def disk_size(source: Source, named: Named, sums_: Mapping[str, str]) -> int:
    """Return the bytes of a build's disk in all forms listed; what cannot be known counts as 0."""
    sizes = _numbers(named, "compressed_size")[:1]
    names = [name for name in map(named.build.also, FORMS) if name in sums_]
    for name in names if sizes else [named.build.disk, *names]:
        with suppress(StorageError):
            sizes.append(max(0, source.head(name).size))
    return sum(sizes)


def named(
    entries: Sequence[Entry], versions: Sequence[Version]
) -> tuple[tuple[Named, ...], list[Finding]]:
    """Find the copies that the published files name, and what they name that is none of ours."""
    in_index: dict[BuildFolder, list[Entry]] = {}
    in_metadata: dict[BuildFolder, list[Version]] = {}
    findings = []
    for entry in entries:
        if key := _build(entry.file):
            in_index.setdefault(key, []).append(entry)
        else:
            where = f"{layout.INDEX}:{entry.line}"
            findings.append(problem(where, f"{entry.file} is no build's disk", REFRESH))
    for version in versions:
        if key := _build(f"{version.handle}.xz"):
            in_metadata.setdefault(key, []).append(version)
        else:
            message = f"{version.template} {version.version}: {version.handle} is no build's disk"
            findings.append(problem(layout.METADATA, message, REFRESH))
    copies = (
        Named(
            build=key,
            entries=tuple(in_index.get(key, ())),
            versions=tuple(in_metadata.get(key, ())),
        )
        for key in sorted(in_index.keys() | in_metadata.keys())
    )
    return tuple(copies), findings


def release_keys(named: Named) -> tuple[ReleaseKey, ...]:
    """Name the releases that the published files offer a copy as."""
    key = named.build.key
    revisions = {entry.revision for entry in named.entries}
    for version in named.versions:
        if match := _REVISION.search(version.version.removesuffix(f"-{key.arch}")):
            revisions.add(int(match[1]))
    return tuple(
        ReleaseKey(name=key.name, arch=key.arch, revision=revision)
        for revision in sorted(revisions)
        if revision > 0
    )


def bound(source: Source, named: Named, findings: list[Finding], *, known: Images | None) -> Named:
    """Add what the release of a copy binds: from ``known``, or else read at the source."""
    if known is not None:
        if named.build not in known:
            findings.append(problem(named.build.folder, "it is offered, and no release names it",
                                    REFRESH))  # fmt: skip
        return replace(named, image=known.get(named.build))
    for key in release_keys(named):
        try:
            release = Release.parse(source.get(str(key)).data, key)
        except StorageError as error:
            findings.append(note(str(key), f"it cannot be read: {error.message}"))
            continue
        except RepositoryError as error:
            findings.append(problem(str(key), error.message, "restore it from a copy"))
            continue
        if release.image and release.image.public == named.build:
            return replace(named, image=release.image)
        message = f"it is offered with {named.build.folder}, which it does not name"
        findings.append(problem(str(key), message, named.tampered))
    return named


def agreement(entries: Sequence[Entry], versions: Sequence[Version]) -> Iterator[Finding]:
    """Check that the index offers what is newest in ``repo.metadata``, and nothing else."""
    newest: dict[ImageId, Version] = {}
    stamps: dict[tuple[str, int], Version] = {}
    for version in versions:
        key = _build(f"{version.handle}.xz")
        if key is None:
            continue
        image = key.key.image
        # lago takes the version with the largest timestamp (`lago/templates.py`).
        if image not in newest or newest[image].timestamp < version.timestamp:
            newest[image] = version
        other = stamps.setdefault((version.template, version.timestamp), version)
        if other is not version:
            message = f"{other.version} and {version.version} have one timestamp: either is newest"
            yield problem(layout.METADATA, f"{version.template}: {message}", REFRESH)
    offered = {ImageId(entry.name, entry.arch): entry for entry in entries}
    for image in sorted(offered.keys() | newest.keys()):
        in_index, in_metadata = offered.get(image), newest.get(image)
        if in_index is None or in_metadata is None:
            where = layout.INDEX if in_index is None else layout.METADATA
            yield problem(where, f"{image} is not in it, only in the other", REFRESH)
        elif f"{in_metadata.handle}.xz" != in_index.file:
            message = f"{image}: {in_metadata.version} is another build than the index has"
            yield problem(layout.METADATA, message, REFRESH)
        elif str(in_index.revision) not in in_metadata.version.replace("v", "-").split("-"):
            message = f"{image}: {in_metadata.version} is not revision {in_index.revision}"
            yield problem(layout.METADATA, message, REFRESH)


def _build(disk: str) -> BuildFolder | None:
    folder = owner(disk)
    is_disk = folder is not None and folder.root == layout.IMAGES and folder.disk == disk
    return folder if is_disk else None


def sums_agree(sums_: Mapping[str, str], versions: Sequence[Version]) -> Iterator[Finding]:
    """Check that ``SHA256SUMS`` and ``repo.metadata`` have the same disks and digests."""
    offered = {f"{version.handle}.xz": version.sha256 for version in versions}
    # What else is listed of a copy, no other file names: `check` holds it to the release.
    sums_ = {
        path: sha256
        for path, sha256 in sums_.items()
        if not layout.is_rendered(path) and path not in _other_forms(path)
    }
    for path in sorted(sums_.keys() | offered.keys()):
        if path not in sums_ or path not in offered:
            where = layout.SUMS if path not in sums_ else layout.METADATA
            yield problem(where, f"{path} is not in it, only in the other", REFRESH)
        elif sums_[path] != offered[path]:
            yield problem(layout.SUMS, f"{path} has another sha256 in {layout.METADATA}", REFRESH)


def _other_forms(path: str) -> set[str]:
    """Return the keys of the disk's other forms beside an object of a build."""
    folder = owner(path)
    return {folder.also(form) for form in FORMS} if folder else set()


def check(
    source: Source, named: Named, sums_: Mapping[str, str], *, deep: bool, progress: Progress
) -> list[Finding]:
    """Find all that is wrong with one copy that is offered to clients.

    ``sums_`` are the pairs in ``SHA256SUMS``.
    """
    key, image = named.build, named.image
    findings: list[Finding] = []
    small = {name: _get(source, name, named, findings)
             for name in (key.manifest, key.hash, key.metadata)}  # fmt: skip
    manifest = image.manifest if image else _manifest(named, small[key.manifest], findings)
    disk = _look(source, key.disk, named, findings)
    if manifest:
        findings += _in_step(named, manifest)
    # -1: a web server that does not tell the length, which is a finding of its own.
    if manifest and disk and disk.size not in (manifest.disk.compressed_size, -1):
        message = f"it has {disk.size} bytes, not {manifest.disk.compressed_size}"
        findings.append(problem(key.disk, f"{_TAMPERED}: {message}", named.tampered))
    elif disk and not deep:
        findings += _last_byte(source, named, disk)
    for name, data in small.items():
        findings += _bytes(named, name, data)
    # With a release its digests say it all; without one the files are held to each other.
    if not image:
        findings += _hash(named, small[key.hash], manifest)
        findings += _metadata(named, small[key.metadata], manifest)
    if deep and disk:
        findings += _deep(source, named, small[key.hash], manifest, progress)
    findings += _also(source, named, sums_, deep=deep, progress=progress)
    if deep:
        for name in _others(named, small):
            findings += _bytes(named, name, _get(source, name, named, findings))
    return findings


def _unreadable(name: str, error: StorageError) -> Finding:
    """Return that an object cannot be read, with what the error says to do, else to try again."""
    repair = error.hint or "try again"
    # S3 answers 403 for what is missing, too, to who may not list.
    if isinstance(error, DeniedError):
        repair = f"{repair}; or it is missing"
    return problem(name, f"it cannot be read: {error.message}", repair)


def _get(source: Source, name: str, named: Named, findings: list[Finding]) -> bytes | None:
    try:
        return source.get(name).data
    except NotFoundError:
        findings.append(problem(name, "it is missing", named.lost))
    except StorageError as error:
        findings.append(_unreadable(name, error))
    return None


def _others(named: Named, seen: Iterable[str]) -> list[str]:
    """Return the objects of a copy that only a deep look reads."""
    if named.image is None:
        return []
    names = {named.build.folder + name for name in named.image.objects}
    return sorted(names - {named.build.disk, *map(named.build.also, named.image.also), *seen})


def _also(
    source: Source, named: Named, sums_: Mapping[str, str], *, deep: bool, progress: Progress
) -> Iterator[Finding]:
    """Check the disk's other forms: the listed sums, the sizes, and with ``deep`` every byte."""
    also = named.image.also if named.image else {}
    for path in sorted(map(named.build.also, FORMS)):
        released = {named.build.also(form): file.sha256 for form, file in also.items()}
        if named.image and sums_ and sums_.get(path) != released.get(path):
            yield problem(layout.SUMS, f"it does not have the sha256 that {path} was released with",
                          REFRESH)  # fmt: skip
    for form, file in also.items():
        name, findings = named.build.also(form), list[Finding]()
        found = _look(source, name, named, findings)
        if found and found.size not in (file.size, -1):
            message = f"it has {found.size} bytes, not {file.size}"
            findings.append(problem(name, f"{_TAMPERED}: {message}", named.tampered))
        elif found and not deep:
            findings += _last_byte(source, named, found)
        if found and deep:
            findings += _every_byte(source, named, name, file.sha256, progress)
        yield from findings


def _every_byte(
    source: Source, named: Named, name: str, sha256: str, progress: Progress
) -> Iterator[Finding]:
    digest = hashlib.sha256()
    try:
        for piece in progress.counted(source.read(name)):
            digest.update(piece)
    except StorageError as error:
        yield _unreadable(name, error)
        return
    if digest.hexdigest() != sha256:
        message = f"{_TAMPERED}: its sha256 is not {sha256}, which was released"
        yield problem(name, message, named.tampered)


def _bytes(named: Named, name: str, data: bytes | None) -> Iterator[Finding]:
    """Compare an object with what its release binds."""
    if data is None or named.image is None:
        return
    expected = named.image.objects[name.removeprefix(named.build.folder)]
    if hashlib.sha256(data).hexdigest() != expected.sha256:
        message = f"{_TAMPERED}: its sha256 is not {expected.sha256}, which was released"
        yield problem(name, message, named.tampered)


def _last_byte(source: Source, named: Named, disk: Stat) -> Iterator[Finding]:
    """Read a byte: an archived or encrypted object may answer HEAD and refuse GET."""
    name = disk.key
    try:
        if disk.size > 0 and not next(iter(source.read(name, start=disk.size - 1)), b""):
            yield problem(name, "its last byte cannot be read", named.lost)
    except StorageError as error:
        yield problem(name, f"it cannot be read: {error.message}", _READABLE)


def _manifest(named: Named, data: bytes | None, findings: list[Finding]) -> Manifest | None:
    """Return the published manifest, where no release could be read."""
    if data is None:
        return None
    name, key = named.build.manifest, named.build.key
    build = replace(key, build_id=key.build_id.rpartition(".")[0])
    try:
        return Manifest.parse(data, build)
    except DocumentError as error:
        findings += [problem(name, message, named.tampered) for message in error.problems]
    except RepositoryError as error:
        findings.append(problem(name, error.message, named.tampered))
    return None


def _look(source: Source, name: str, named: Named, findings: list[Finding]) -> Stat | None:
    try:
        return source.head(name)
    except NotFoundError:
        findings.append(problem(name, "it is offered, and missing", named.lost))
    except StorageError as error:
        findings.append(_unreadable(name, error))
    return None


def _in_step(named: Named, manifest: Manifest) -> Iterator[Finding]:
    disk = manifest.disk
    for entry in named.entries:
        where = f"{layout.INDEX}:{entry.line}"
        fields = {
            "checksum[sha512]": (entry.checksum, disk.sha512),
            # No client would tell: virt-builder does not notice a wrong size.
            "size": (entry.get("size"), str(disk.virtual_size)),
            "compressed_size": (entry.get("compressed_size"), str(disk.compressed_size)),
            "format": (entry.get("format"), disk.format),
        }
        for name, (offered, expected) in fields.items():
            if offered != expected:
                message = f"{entry.name}: {name} is not that of {named.build.manifest}"
                yield problem(where, message, REFRESH)


def _hash(named: Named, data: bytes | None, manifest: Manifest | None) -> Iterator[Finding]:
    if data is None:
        return
    text = data.decode(errors="replace").strip()
    if manifest and text != manifest.disk.sha1:
        yield problem(named.build.hash, "it is not the sha1 in the manifest", named.tampered)
    elif len(text) != 2 * hashlib.sha1(usedforsecurity=False).digest_size:
        yield problem(named.build.hash, "it is not a sha1", named.tampered)


def _metadata(named: Named, data: bytes | None, manifest: Manifest | None) -> Iterator[Finding]:
    if data is None:
        return
    name = named.build.metadata
    try:
        plain = parse_json(data, name)
    except RepositoryError:
        plain = None
    if not isinstance(plain, dict):
        yield problem(name, "it is not a JSON object", named.tampered)
        return
    properties: Mapping[str, str] = manifest.properties if manifest else {}
    differing = sorted(key for key, value in properties.items() if plain.get(key) != value)
    if differing:
        yield problem(name, f"not as in the manifest: {', '.join(differing)}", named.tampered)


def _numbers(named: Named, key: str) -> list[int]:
    """Return the values of a field of the index, as far as they are numbers of bytes."""
    values = (entry.get(key) for entry in named.entries)
    return [int(value) for value in values if _NUMBER.fullmatch(value)]


def _deep(
    source: Source,
    named: Named,
    found_hash: bytes | None,
    manifest: Manifest | None,
    progress: Progress,
) -> Iterator[Finding]:
    name = named.build.disk
    try:
        digests, failure = _digests(source.read(name), _largest(named, manifest), progress)
    except StorageError as error:
        yield _unreadable(name, error)
        return
    if failure:
        yield problem(name, failure, named.tampered)
    for entry in named.entries:
        if entry.checksum != digests.sha512:
            yield problem(name, "its sha512 is not the one in the index", named.tampered)
    if manifest:
        disk = manifest.disk
        if (digests.sha256, digests.sha512) != (disk.sha256, disk.sha512):
            message = f"{_TAMPERED}: its checksums are not those that were released"
            yield problem(name, message, named.tampered)
        if not failure and digests.size != disk.size:
            message = f"what is in it has {digests.size} bytes, not {disk.size}"
            yield problem(name, message, named.tampered)
        elif not failure and disk.plain_sha256 not in (None, digests.plain_sha256):
            message = f"what is in it has not the sha256 {disk.plain_sha256}"
            yield problem(name, message, named.tampered)
    published_hash = None if found_hash is None else found_hash.decode(errors="replace").strip()
    if not failure and published_hash not in (None, digests.sha1):
        yield problem(name, "what is in it has not the sha1 of its .hash", named.tampered)


def _largest(named: Named, manifest: Manifest | None) -> int:
    """Return the bytes that the decompressed disk may have at most."""
    if manifest:
        return manifest.disk.size
    # The index has the virtual size, on top of which come a qcow2's own tables and lost clusters.
    virtual = _numbers(named, "size")
    return min(LARGEST, 2 * max(virtual) + _QCOW2_TABLES) if virtual else LARGEST


def _digests(pieces: Iterable[bytes], largest: int, progress: Progress) -> tuple[Digests, str]:
    """Read a compressed disk to its end; its digests, and what is wrong with the xz stream.

    The digests of the disk in it are right only where nothing is.
    """
    sums, failure = Checksums(), ""
    stream = progress.counted(sums.of_stream(pieces))
    try:
        for data in xz_stream(stream, largest=largest, label="it"):
            sums.add_disk(data)
    except DamagedError as error:
        failure = error.message
        # To the end all the same: the checksums are of the whole file.
        for _ in stream:
            pass
    return sums.digests, failure
