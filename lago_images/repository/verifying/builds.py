"""Whether what the published files name is there, and is what they say."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lago_images.disks.checksums import Checksums, Digests
from lago_images.disks.decompress import LARGEST, DamagedError, xz_stream
from lago_images.errors import NotFoundError, RepositoryError, StorageError
from lago_images.repository.records import layout
from lago_images.repository.records.layout import BuildKey, ImageId, owner
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.parsing import DocumentError, parse_json
from lago_images.repository.rendering.index import Entry
from lago_images.repository.rendering.lago import Version
from lago_images.repository.verifying.findings import REFRESH, Finding, Source, note, problem, yank
from lago_images.storage.base import Stat

_NUMBER = re.compile(r"[0-9]{1,19}")
_LIST = "lago-images repo list --all"
_QCOW2_TABLES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A build, and who names it: the index, ``repo.metadata``, or both."""

    build: BuildKey
    entries: tuple[Entry, ...]
    versions: tuple[Version, ...]

    @property
    def repair(self) -> str:
        name, arch = self.build.image
        revision = self.entries[0].revision if self.entries else None
        command = yank(name, arch, revision, reason="damaged")
        # repo.metadata names no revisions: then a list has the one of this build.
        which = "" if revision else f", with the --revision that {_LIST} shows"
        return f"restore {self.build.folder} from a copy; or withdraw it: {command}{which}"


@dataclass(slots=True)
class Progress:
    """How many bytes of disks were read; ``advance`` is told of each piece."""

    read: int = 0
    advance: Callable[[int], None] | None = None

    def counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on the pieces of a disk, each once it is counted."""
        for piece in pieces:
            self.read += len(piece)
            if self.advance is not None:
                self.advance(len(piece))
            yield piece


def disk_size(source: Source, one: Named) -> int:
    """Bytes of a build's compressed disk; 0 where that cannot be told."""
    if sizes := _numbers(one, "compressed_size"):
        return sizes[0]
    try:
        return max(0, source.head(one.build.disk).size)
    except StorageError:
        return 0


def named(
    entries: Sequence[Entry], versions: Sequence[Version]
) -> tuple[tuple[Named, ...], list[Finding]]:
    """The builds that the published files name, and what they name that is no build of ours."""
    in_index: dict[BuildKey, list[Entry]] = {}
    in_metadata: dict[BuildKey, list[Version]] = {}
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
            what = f"{version.template} {version.version}: {version.handle} is no build's disk"
            findings.append(problem(layout.METADATA, what, REFRESH))
    found = (
        Named(
            build=key,
            entries=tuple(in_index.get(key, ())),
            versions=tuple(in_metadata.get(key, ())),
        )
        for key in sorted(in_index.keys() | in_metadata.keys())
    )
    return tuple(found), findings


def agreement(entries: Sequence[Entry], versions: Sequence[Version]) -> Iterator[Finding]:
    """Whether the index offers what is newest in ``repo.metadata``, and nothing else does."""
    newest: dict[ImageId, Version] = {}
    stamps: dict[tuple[str, int], Version] = {}
    for version in versions:
        key = _build(f"{version.handle}.xz")
        if key is None:
            continue
        if key.image not in newest or newest[key.image].timestamp < version.timestamp:
            newest[key.image] = version
        other = stamps.setdefault((version.template, version.timestamp), version)
        if other is not version:
            what = f"{other.version} and {version.version} have one timestamp: either is newest"
            yield problem(layout.METADATA, f"{version.template}: {what}", REFRESH)
    offered = {ImageId(entry.name, entry.arch): entry for entry in entries}
    for image in sorted(offered.keys() | newest.keys()):
        in_index, in_metadata = offered.get(image), newest.get(image)
        if in_index is None or in_metadata is None:
            where = layout.INDEX if in_index is None else layout.METADATA
            yield problem(where, f"{image} is not in it, only in the other", REFRESH)
        elif f"{in_metadata.handle}.xz" != in_index.file:
            what = f"{image}: {in_metadata.version} is another build than the index has"
            yield problem(layout.METADATA, what, REFRESH)
        elif str(in_index.revision) not in in_metadata.version.replace("v", "-").split("-"):
            what = f"{image}: {in_metadata.version} is not revision {in_index.revision}"
            yield problem(layout.METADATA, what, REFRESH)


def check(source: Source, named: Named, *, deep: bool, progress: Progress) -> list[Finding]:
    """All that is wrong with one build that is offered to clients."""
    key = named.build
    findings: list[Finding] = []
    manifest = _manifest(source, named, findings)
    disk = _disk(source, named, findings)
    found_hash = _get(source, key.hash, named, findings)
    found_metadata = _get(source, key.metadata, named, findings)
    if manifest:
        findings += _in_step(named, manifest)
    if manifest and disk and disk.size not in (manifest.disk.compressed_size, -1):
        what = f"it has {disk.size} bytes, not {manifest.disk.compressed_size}"
        findings.append(problem(key.disk, what, named.repair))
    findings += _hash(named, found_hash, manifest)
    findings += _metadata(named, found_metadata, manifest)
    if deep and disk:
        findings += _deep(source, named, found_hash, manifest, progress)
    return findings


def _build(disk: str) -> BuildKey | None:
    key = owner(disk)
    return key if key and key.disk == disk else None


def _get(source: Source, name: str, named: Named, findings: list[Finding]) -> bytes | None:
    try:
        return source.get(name).data
    except NotFoundError:
        findings.append(problem(name, "it is not there", named.repair))
    except StorageError as error:
        findings.append(problem(name, f"it cannot be read: {error.message}", "try again"))
    return None


def _manifest(source: Source, named: Named, findings: list[Finding]) -> Manifest | None:
    name = named.build.manifest
    try:
        return Manifest.parse(source.get(name).data, named.build)
    except NotFoundError:
        findings.append(problem(name, "it is not there", named.repair))
    except StorageError as error:
        findings.append(note(name, f"it cannot be read: {error.message}"))
    except DocumentError as error:
        findings += [problem(name, what, named.repair) for what in error.problems]
    except RepositoryError as error:
        findings.append(problem(name, error.message, named.repair))
    return None


def _disk(source: Source, named: Named, findings: list[Finding]) -> Stat | None:
    name = named.build.disk
    try:
        return source.head(name)
    except NotFoundError:
        findings.append(problem(name, "it is offered, and not there", named.repair))
    except StorageError as error:
        findings.append(problem(name, f"it cannot be read: {error.message}", "try again"))
    return None


def _in_step(named: Named, manifest: Manifest) -> Iterator[Finding]:
    disk = manifest.disk
    for entry in named.entries:
        where = f"{layout.INDEX}:{entry.line}"
        said = {
            "checksum[sha512]": (entry.checksum, disk.sha512),
            "size": (entry.get("size"), str(disk.virtual_size)),
            "compressed_size": (entry.get("compressed_size"), str(disk.compressed_size)),
            "format": (entry.get("format"), disk.format),
        }
        for field_, (ours, true) in said.items():
            if ours != true:
                what = f"{entry.name}: {field_} is not that of {named.build.manifest}"
                yield problem(where, what, REFRESH)


def _hash(named: Named, data: bytes | None, manifest: Manifest | None) -> Iterator[Finding]:
    if data is None:
        return
    text = data.decode(errors="replace").strip()
    if manifest and text != manifest.disk.sha1:
        yield problem(named.build.hash, "it is not the sha1 in the manifest", named.repair)
    elif len(text) != 2 * hashlib.sha1(usedforsecurity=False).digest_size:
        yield problem(named.build.hash, "it is not a sha1", named.repair)


def _metadata(named: Named, data: bytes | None, manifest: Manifest | None) -> Iterator[Finding]:
    if data is None:
        return
    name = named.build.metadata
    try:
        plain = parse_json(data, name)
    except RepositoryError:
        plain = None
    if not isinstance(plain, dict):
        yield problem(name, "it is not a JSON object", named.repair)
        return
    properties: Mapping[str, str] = manifest.properties if manifest else {}
    wrong = sorted(key for key, value in properties.items() if plain.get(key) != value)
    if wrong:
        yield problem(name, f"not as in the manifest: {', '.join(wrong)}", named.repair)


def _numbers(named: Named, key: str) -> list[int]:
    """The values of a field of the index, as far as they are numbers of bytes."""
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
        digests, wrong = _digests(source.read(name), _largest(named, manifest), progress)
    except StorageError as error:
        yield problem(name, f"it cannot be read: {error.message}", "try again")
        return
    if wrong:
        yield problem(name, wrong, named.repair)
    for entry in named.entries:
        if entry.checksum != digests.sha512:
            yield problem(name, "its sha512 is not the one in the index", named.repair)
    if manifest:
        disk = manifest.disk
        if (digests.sha256, digests.sha512) != (disk.sha256, disk.sha512):
            yield problem(name, "its checksums are not those in the manifest", named.repair)
        if not wrong and digests.size != disk.size:
            what = f"what is in it has {digests.size} bytes, not {disk.size}"
            yield problem(name, what, named.repair)
    published_hash = None if found_hash is None else found_hash.decode(errors="replace").strip()
    if not wrong and published_hash not in (None, digests.sha1):
        yield problem(name, "what is in it has not the sha1 of its .hash", named.repair)


def _largest(named: Named, manifest: Manifest | None) -> int:
    """Bytes that the decompressed disk may have."""
    if manifest:
        return manifest.disk.size
    # The index has the virtual size, on top of which come a qcow2's own tables and lost clusters.
    virtual = _numbers(named, "size")
    return min(LARGEST, 2 * max(virtual) + _QCOW2_TABLES) if virtual else LARGEST


def _digests(pieces: Iterable[bytes], largest: int, progress: Progress) -> tuple[Digests, str]:
    """Read a compressed disk to its end; its digests, and what is wrong with the xz stream.

    The digests of the disk in it are right only where nothing is.
    """
    sums, wrong = Checksums(), ""
    stream = progress.counted(sums.of_stream(pieces))
    try:
        for data in xz_stream(stream, largest=largest, what="it"):
            sums.add_disk(data)
    except DamagedError as error:
        wrong = error.message
        for _ in stream:
            pass
    return sums.digests, wrong
