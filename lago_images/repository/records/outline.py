"""Hold of a release what plans need: read from the cache, that takes a fifth of all of it.

A document is read so after it was found good as a whole. Names are those of ``Release``, so that
histories are judged by the same functions.
"""

from typing import Literal

import msgspec

from lago_images.repository.records.layout import BuildFolder, BuildKey, ReleaseKey
from lago_images.settings import FORMS


class _Digest(msgspec.Struct, frozen=True, gc=False):
    digest: str


class _Disk(msgspec.Struct, frozen=True, gc=False):
    sha256: str


class ManifestOutline(msgspec.Struct, frozen=True, gc=False):
    """See ``Manifest``."""

    name: str
    arch: str
    build_id: str
    fingerprint: str
    base: _Digest
    disk: _Disk
    commit: str
    dirty: bool
    created: int

    @property
    def key(self) -> BuildKey:
        return BuildKey(name=self.name, arch=self.arch, build_id=self.build_id)


class _Size(msgspec.Struct, frozen=True, gc=False):
    size: int


class ImageOutline(msgspec.Struct, frozen=True):
    """See ``ReleasedImage``."""

    build: str
    folder: str
    manifest: ManifestOutline
    objects: dict[str, _Size]

    @property
    def public(self) -> BuildFolder:
        manifest = self.manifest
        return BuildKey(name=manifest.name, arch=manifest.arch, build_id=self.folder).public

    @property
    def also(self) -> frozenset[str]:
        """Return the other forms of the disk that are public."""
        names = {form: self.public.also(form).removeprefix(self.public.folder) for form in FORMS}
        return frozenset(form for form, name in names.items() if name in self.objects)

    def sizes(self) -> dict[str, int]:
        """Return the sizes that the objects of the public copy must have, by key."""
        folder = self.public.folder
        return {folder + name: expected.size for name, expected in self.objects.items()}


class _Released(msgspec.Struct, frozen=True, gc=False):
    commit: str
    dirty: bool = False


class ReleaseOutline(msgspec.Struct, frozen=True):
    """See ``Release``."""

    # Of another schema it is not taken from the cache: its object is read, and refused.
    schema: Literal[2]
    revision: int
    image: ImageOutline | None
    released: _Released
    withdraws: int | None = None
    reason: str = ""

    @property
    def build(self) -> str | None:
        """Return the id of the build made public; None in a withdrawal."""
        return self.image.build if self.image else None

    @property
    def fingerprint(self) -> str:
        """Return the build's; empty in a withdrawal."""
        return self.image.manifest.fingerprint if self.image else ""


_DECODER = msgspec.json.Decoder(ReleaseOutline)


def outline(raw: msgspec.Raw, key: ReleaseKey) -> ReleaseOutline:
    """Make an outline of the JSON of a release; raises ``msgspec.DecodeError`` if it is none."""
    del key
    return _DECODER.decode(raw)
