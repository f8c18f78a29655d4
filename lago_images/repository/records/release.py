"""Define releases: a build made public as a numbered revision, or a revision withdrawn.

It binds bytes: the whole manifest, and the SHA-256 of every object of the public copy.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec

from lago_images.repository.records.access import Access
from lago_images.repository.records.changes import PackageLines
from lago_images.repository.records.fields import BUILD_ID, Arch, BuildId, Name, Sha256
from lago_images.repository.records.layout import MANIFEST, BuildFolder, BuildKey, ReleaseKey
from lago_images.repository.records.manifest import DiskFile, Manifest, canonical
from lago_images.repository.records.parsing import (
    LARGEST,
    Count,
    DocumentError,
    Positive,
    SchemaError,
    Text,
    from_plain,
    matching,
    parse_json,
)
from lago_images.settings import FORMS

# What stands for the commit in what is made outside git.
NO_COMMIT = "unknown"
_FIRST_SCHEMA = 1

FileName = Annotated[str, matching(BUILD_ID.pattern, "a file's name")]


class OldRepositoryError(SchemaError):
    """Raised for a repository of the layout before public copies, which is refused whole."""

    def __init__(self, document: str) -> None:
        super().__init__(
            f"{document} is of an older lago-images, whose public disks lie where builders write",
            hint="publish into a new, empty repository",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectDigest:
    """Bind an object of a public copy: its SHA-256, in hexadecimal, and its size in bytes."""

    sha256: Sha256
    size: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseBinding:
    """Name the release that a layer stands on; ``sha256`` is of its compressed disk."""

    name: Name
    arch: Arch
    build: BuildId
    revision: Positive
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedImage:
    """Bind the bytes that a release makes public.

    Attributes:
        build: The id of the build, as it was staged.
        folder: The id of the public copy: the build's, a dot and a nonce of its publication.
        manifest: The build's manifest, whole.
        objects: Every object of the public copy by file name, the disk and the manifest too.
        base: The release that a layer stands on; None for other images.
        access: How people log in to it; None in releases older than this field, and where the
            publisher had no spec.
    """

    build: BuildId
    folder: BuildId
    manifest: Manifest
    objects: Mapping[FileName, ObjectDigest]
    base: BaseBinding | None = None
    access: Access | None = None

    @property
    def public(self) -> BuildFolder:
        name, arch = self.manifest.name, self.manifest.arch
        return BuildKey(name=name, arch=arch, build_id=self.folder).public

    @property
    def also(self) -> dict[str, DiskFile]:
        """Return the other forms of the disk that are public, of those that were built."""
        public = self.public
        return {
            form: file
            for form, file in self.manifest.also.items()
            if public.also(form).removeprefix(public.folder) in self.objects
        }

    def problems(self) -> Iterator[str]:
        """Return where the parts, each right by itself, do not agree."""
        manifest, disk, public = self.manifest, self.manifest.disk, self.public
        yield from manifest.problems(BuildKey(name=manifest.name, arch=manifest.arch,
                                              build_id=self.build))  # fmt: skip
        # The nonce after the build's id keeps two publishers of one build out of one folder.
        if not self.folder.startswith(f"{self.build}."):
            yield f"its folder {self.folder} is not one of the build {self.build}"
        needed = (public.disk, public.hash, public.metadata, public.manifest)
        names = [key.removeprefix(public.folder) for key in needed]
        if missing := [name for name in names if name not in self.objects]:
            yield f"its objects lack {', '.join(missing)}"
            return
        if self.objects[MANIFEST].sha256 != hashlib.sha256(manifest.to_json()).hexdigest():
            yield f"its manifest does not have the sha256 in objects[{MANIFEST!r}]"
        expected = ObjectDigest(sha256=disk.sha256, size=disk.compressed_size)
        if self.objects[names[0]] != expected:
            yield f"objects[{names[0]!r}] is not the disk of the manifest"
        for form in FORMS:
            name = public.also(form).removeprefix(public.folder)
            file = manifest.also.get(form)
            bound = file and ObjectDigest(sha256=file.sha256, size=file.size)
            if name in self.objects and self.objects[name] != bound:
                yield f"objects[{name!r}] is not the {form} of the manifest"
        yield from self._base_problems()

    def _base_problems(self) -> Iterator[str]:
        wanted, base = self.manifest.base_key, self.base
        if wanted is None or base is None:
            if wanted is not None or base is not None:
                yield "only a layer's release names the release of its base"
            return
        if (base.name, base.arch, base.build) != (wanted.name, wanted.arch, wanted.build_id):
            yield "its base is not the build that the manifest names"
        if self.manifest.base.digest != f"sha256:{base.sha256}":
            yield "its base does not have the digest that the manifest names"


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """Record the state that a release was made of, and the person or CI run that made it.

    Attributes:
        commit: What the publisher had checked out; ``NO_COMMIT`` outside git.
        dirty: Whether the files differed from that commit.
        actor: The CI's name for who started it; ``user@host`` outside CI.
        run: The URL of the CI's run; empty outside CI.
        repository: The URL of the specs' repository that was checked out, without user and
            password; empty where that has none, and in a withdrawal.
    """

    commit: Text
    dirty: bool = False
    actor: Text = ""
    run: Text = ""
    repository: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageDiff(PackageLines):
    """The packages that clients get other than before, for whoever asks what is new.

    Attributes:
        since: The revision that was offered before.
        added: Sorted, each ``name version arch``; as ``packages.txt`` has it.
        removed: The same.
        upgraded: Sorted, each ``name old new``; ``new`` may be the older version.
        omitted: How many more changes there were: a release holds the first of each kind only.
    """

    since: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The record of one revision of one image.

    Attributes:
        image: What is made public; None withdraws the revision that ``withdraws`` names.
        withdraws: The revision a withdrawal takes away; None in a plain release.
        released: Of which state, and by whom.
        published: Whole seconds since the epoch.
        reason: Why, for a withdrawal or a rollback; else empty.
        nonce: Tells the publisher's own write from another's when the answer was lost.
        package_changes: What clients get since this record, beside what they got before it; None
            where nothing was offered before or after it, or the packages of one are not known.
    """

    SCHEMA: ClassVar[int] = 2
    WHAT: ClassVar[str] = "a release"

    name: Name
    arch: Arch
    revision: Positive
    image: ReleasedImage | None
    released: Released
    published: Count
    nonce: Text
    withdraws: Count | None = None
    reason: Text = ""
    package_changes: PackageDiff | None = None

    @property
    def key(self) -> ReleaseKey:
        return ReleaseKey(name=self.name, arch=self.arch, revision=self.revision)

    @property
    def build(self) -> str | None:
        """Return the id of the build made public; None in a withdrawal."""
        return self.image.build if self.image else None

    @property
    def fingerprint(self) -> str:
        """Return the build's; empty in a withdrawal."""
        return self.image.manifest.fingerprint if self.image else ""

    @property
    def manifest(self) -> Manifest | None:
        """Return the build's; None in a withdrawal."""
        return self.image.manifest if self.image else None

    @property
    def commit(self) -> str:
        """Return the commit of the published bytes; in a withdrawal, what was checked out."""
        return self.image.manifest.commit if self.image else self.released.commit

    @property
    def dirty(self) -> bool:
        """Return whether the files were not those of ``commit``."""
        return self.image.manifest.dirty if self.image else self.released.dirty

    @property
    def public(self) -> BuildFolder | None:
        """Return the public copy; None in a withdrawal."""
        return self.image.public if self.image else None

    def to_json(self) -> bytes:
        plain: dict[str, Any] = msgspec.to_builtins(self, enc_hook=dict)
        if self.image:
            # msgspec writes fields alone: but the digest in `objects` is of a manifest with its
            # schema.
            plain["image"]["manifest"] = self.image.manifest.to_plain()
        return canonical({"schema": self.SCHEMA, **plain})

    @classmethod
    def parse(cls, data: bytes, key: ReleaseKey) -> "Release":
        """Read the release ``key``.

        Raises ``RepositoryError`` with the release's path and all that is wrong: it is not JSON, of
        another schema, a field is not what it must be, its parts do not agree, or it is another
        release. ``OldRepositoryError`` for a release of the layout before.
        """
        message = f"{key} is not {cls.WHAT}"
        return cls.from_plain(parse_json(data, message, largest=LARGEST), key)

    @classmethod
    def from_plain(cls, plain: object, key: ReleaseKey) -> "Release":
        """Make a release of what ``parse_json`` returned; raises as ``parse`` does."""
        # Told first: of the older layout every field would be reported as wrong.
        schema = plain.get("schema") if isinstance(plain, dict) else None
        if type(schema) is int and schema == _FIRST_SCHEMA:
            raise OldRepositoryError(str(key))
        release = from_plain(plain, cls, str(key))
        problems = [] if release.key == key else [f"it is release {release.key}"]
        if (release.image is None) == (release.withdraws is None):
            problems.append("it must either name a build or withdraw a revision")
        if release.image:
            problems.extend(release.image.problems())
            if release.image.manifest.key.image != release.key.image:
                problems.append(f"its manifest is of {release.image.manifest.key.image}")
        if problems:
            raise DocumentError(str(key), cls.WHAT, problems)
        return release
