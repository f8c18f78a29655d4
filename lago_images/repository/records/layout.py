"""Name the keys of everything in a repository, and the headers that its HTTP clients get."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from lago_images.specs import names
from lago_images.storage.base import Headers, is_key

BUILDS = "builds/"
IMAGES = "images/"
RELEASES = "releases/"
STATE = "state/"
WRITTEN_ONCE = (BUILDS, IMAGES, RELEASES)
INDEX = "index"
SIGNED_INDEX = "index.asc"
METADATA = "repo.metadata"
SUMS = "SHA256SUMS"
SIGNED_SUMS = "SHA256SUMS.asc"
METADATA_SIGNATURE = "repo.metadata.asc"
CATALOGUE = "index.html"
CATALOGUE_PAGES = "catalogue/"
FEED = "feed.xml"
IMAGES_JSON = "images.json"
LATEST = "latest/"
KEY = "key.asc"
PUBLISHED = "state/published.json"
CACHE = "state/cache.json"
PAGES_CACHE = "state/pages.json"
# In writing order, after the pages, which some of these name: a crash between two writes leaves a
# newer file that names what exists, and repo.metadata, which is signed apart, after all that
# virt-builder reads.
RENDERED = (
    IMAGES_JSON,
    SUMS,
    SIGNED_SUMS,
    INDEX,
    SIGNED_INDEX,
    METADATA,
    METADATA_SIGNATURE,
    FEED,
    CATALOGUE,
    KEY,
)
# The folders of pages: rendered files of which each image has its own.
PAGE_FOLDERS = (CATALOGUE_PAGES, LATEST)
MANIFEST = "manifest.json"
PACKAGES = "packages.txt"
BOOT_FILES = "boot-files.txt"
SPEC = "spec.txt"
SBOM = "sbom.cdx.json"
PROVENANCE = "provenance.json"

NAME = names.NAME
# Names, architectures and builds: who writes to a bucket may give an object any key there is.
_WORD = f"({NAME.pattern})"
# No leading zeros: one revision has one key, or creating it would not take the number. No more
# digits than the numbers in records may have.
_NUMBER = r"([1-9][0-9]{0,17})"
_RELEASE = re.compile(rf"releases/{_WORD}/{_WORD}/{_NUMBER}\.json")
_MANIFEST = re.compile(rf"builds/{_WORD}/{_WORD}/{_WORD}/manifest\.json")
_IN_FOLDER = re.compile(rf"(builds/|images/){_WORD}/{_WORD}/{_WORD}/.+")
_PAGE = re.compile(rf"catalogue/{NAME.pattern}\.(?:html|xml)|latest/{NAME.pattern}\.json")
_KEYED = re.compile(r"(?:index|key)-([0-9A-F]{40,64})\.asc")
_RETIREMENT = re.compile(rf"releases/{_WORD}/{_WORD}/retired/{_WORD}\.json")
_LOSS = re.compile(rf"releases/{_WORD}/{_WORD}/lost/{_NUMBER}-{_NUMBER}\.json")
_OUTDATED = re.compile(rf"releases/{_WORD}/{_WORD}/outdated/{_NUMBER}\.{_NUMBER}\.json")

# RFC 8246: clients and caches need never ask again, also when a user reloads.
_ONCE = "public, max-age=31536000, immutable"
# Short, and checked again: what is rendered changes with every publication.
_RENDERED = "public, max-age=60, must-revalidate"


class ImageId(NamedTuple):
    """Tell images apart: one name may stand for images of several architectures."""

    name: str
    arch: str

    def __str__(self) -> str:
        return f"{self.name} ({self.arch})"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ReleaseKey:
    """Name the place of a release; ``revision`` counts from 1."""

    name: str
    arch: str
    revision: int

    @property
    def image(self) -> ImageId:
        return ImageId(self.name, self.arch)

    def __str__(self) -> str:
        return f"{RELEASES}{self.name}/{self.arch}/{self.revision}.json"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LossKey:
    """Name the place of a record that the loss of revisions, ``first`` to ``last``, is accepted."""

    name: str
    arch: str
    first: int
    last: int

    @property
    def image(self) -> ImageId:
        return ImageId(self.name, self.arch)

    def __str__(self) -> str:
        return f"{RELEASES}{self.name}/{self.arch}/lost/{self.first}-{self.last}.json"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class OutdatedKey:
    """Name the place of a record that a revision is outdated; ``number`` counts from 1 in each."""

    name: str
    arch: str
    revision: int
    number: int

    @property
    def release(self) -> ReleaseKey:
        """Return the release that the record is about."""
        return ReleaseKey(name=self.name, arch=self.arch, revision=self.revision)

    def __str__(self) -> str:
        return f"{RELEASES}{self.name}/{self.arch}/outdated/{self.revision}.{self.number}.json"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class BuildKey:
    """Name a folder of one build, by the build's own id or by that of its public copy."""

    name: str
    arch: str
    build_id: str

    @property
    def image(self) -> ImageId:
        return ImageId(self.name, self.arch)

    @property
    def staging(self) -> "BuildFolder":
        """Return the folder that a builder writes once, believed by nobody."""
        return BuildFolder(root=BUILDS, key=self)

    @property
    def public(self) -> "BuildFolder":
        """Return the folder that a publisher writes once, for everybody to read."""
        return BuildFolder(root=IMAGES, key=self)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class BuildFolder:
    """Name a folder with the files of one build; ``root`` is ``BUILDS`` or ``IMAGES``."""

    root: str
    key: BuildKey

    @property
    def folder(self) -> str:
        return f"{self.root}{self.key.name}/{self.key.arch}/{self.key.build_id}/"

    @property
    def retirement(self) -> str:
        """Return the record that a copy is offered no more, as ``repo gc`` is to remove it."""
        return f"{RELEASES}{self.key.name}/{self.key.arch}/retired/{self.key.build_id}.json"

    @property
    def manifest(self) -> str:
        return self.folder + MANIFEST

    @property
    def handle(self) -> str:
        """Return the disk's key without ``.xz``, which lago calls the handle."""
        return f"{self.folder}{self.key.name}.qcow2"

    @property
    def disk(self) -> str:
        return self.handle + ".xz"

    def also(self, form: str) -> str:
        """Return the disk's key in another form, such as ``qcow2``."""
        return f"{self.folder}{self.key.name}.{form}"

    @property
    def hash(self) -> str:
        return self.handle + ".hash"

    @property
    def metadata(self) -> str:
        return self.handle + ".metadata"

    @property
    def packages(self) -> str:
        """Return the installed packages, one ``name version arch [licence]`` a line."""
        return self.folder + PACKAGES

    @property
    def boot_files(self) -> str:
        """Return the files of ``/boot``, one ``SHA256 SIZE PATH`` a line."""
        return self.folder + BOOT_FILES

    @property
    def log(self) -> str:
        return self.folder + "build.log"

    @property
    def console(self) -> str:
        """Return the serial console's output during the boot test."""
        return self.folder + "console.log"

    @property
    def spec(self) -> str:
        """Return what the spec says, as the publisher has it; in a public copy alone."""
        return self.folder + SPEC

    @property
    def sbom(self) -> str:
        """Return the CycloneDX bill of materials; in a public copy alone."""
        return self.folder + SBOM

    @property
    def provenance(self) -> str:
        """Return the signed statement of where the disk comes from; in a public copy alone."""
        return self.folder + PROVENANCE


def signed_index(fingerprint: str) -> str:
    """Name the index that one key signs, whose path outlives the key's turn as ``index.asc``."""
    return f"index-{fingerprint}.asc"


def key_file(fingerprint: str) -> str:
    """Name the file of a public key, beside the index that it signs."""
    return f"key-{fingerprint}.asc"


def page(name: str) -> str:
    """Name the catalogue's page of an image, of all its architectures."""
    return f"{CATALOGUE_PAGES}{name}.html"


def image_feed(name: str) -> str:
    """Name the Atom feed of an image, of all its architectures."""
    return f"{CATALOGUE_PAGES}{name}.xml"


def latest(image: ImageId) -> str:
    """Name the small document that says where the newest revision of an image is."""
    return f"{LATEST}{image.name}.{image.arch}.json"


def is_rendered(key: str) -> bool:
    """Return whether a store's key is that of a rendered file."""
    return key in RENDERED or bool(_KEYED.fullmatch(key) or _PAGE.fullmatch(key))


def in_writing_order(names: Iterable[str]) -> list[str]:
    """Return rendered files in the order in which they are written.

    Keys' own files, pages, and what leads clients to these; each index before ``repo.metadata``,
    and a signature after what it signs. A crash between two writes leaves an older file beside a
    newer one, each of which is whole by itself and names only what exists.
    """
    places = {name: number for number, name in enumerate(RENDERED)}

    def place(name: str) -> tuple[int, str]:
        if name in places:
            return places[name], name
        if name.startswith("index-"):
            return places[SIGNED_INDEX], name
        return (-1 if name.startswith(PAGE_FOLDERS) else -2), name

    return sorted(names, key=place)


def key_behind(key: str) -> str:
    """Return the fingerprint in the name of a signed index or public key; else empty."""
    match = _KEYED.fullmatch(key)
    return match[1] if match else ""


def release_key(key: str) -> ReleaseKey | None:
    """Return the release that a store's key names, if it names one."""
    match = _RELEASE.fullmatch(key)
    return match and ReleaseKey(name=match[1], arch=match[2], revision=int(match[3]))


def staged_build(key: str) -> BuildKey | None:
    """Return the staged build whose manifest a store's key names, if it names one."""
    match = _MANIFEST.fullmatch(key)
    return match and BuildKey(name=match[1], arch=match[2], build_id=match[3])


def owner(key: str) -> BuildFolder | None:
    """Return the folder of a build that a store's key is in, staged or public, if it is in one."""
    match = _IN_FOLDER.fullmatch(key)
    if not match or not is_key(key):
        return None
    build = BuildKey(name=match[2], arch=match[3], build_id=match[4])
    return BuildFolder(root=match[1], key=build)


def retired_copy(key: str) -> BuildFolder | None:
    """Return the public copy that a store's key retires, if it retires one."""
    match = _RETIREMENT.fullmatch(key)
    return match and BuildKey(name=match[1], arch=match[2], build_id=match[3]).public


def loss_key(key: str) -> LossKey | None:
    """Return the record of an accepted loss that a store's key names, if it names one."""
    match = _LOSS.fullmatch(key)
    if not match or int(match[3]) > int(match[4]):
        return None
    return LossKey(name=match[1], arch=match[2], first=int(match[3]), last=int(match[4]))


def outdated_key(key: str) -> OutdatedKey | None:
    """Return the record that a revision is outdated which a store's key names, if it is one."""
    match = _OUTDATED.fullmatch(key)
    return match and OutdatedKey(
        name=match[1], arch=match[2], revision=int(match[3]), number=int(match[4])
    )


def headers(key: str) -> Headers:
    """Return the content type and caching for an object's HTTP clients."""
    once = key.startswith(WRITTEN_ONCE)
    # State is compared by its ETag: a copy in a cache would be an older verdict or commit.
    cache = "no-store" if key.startswith(STATE) else _ONCE if once else _RENDERED
    return Headers(content_type=_content_type(key), cache_control=cache)


def _content_type(key: str) -> str:
    types = {
        ".json": "application/json",
        ".metadata": "application/json",
        # A type, not a Content-Encoding, which clients take off: the checksums are of the .xz.
        ".xz": "application/x-xz",
        # None is registered; this one is what desktops and other publishers of images use.
        ".qcow2": "application/x-qemu-disk",
        ".html": "text/html; charset=utf-8",
        ".xml": "application/atom+xml; charset=utf-8",
    }
    ending = "." + key.rpartition(".")[2]
    if key == METADATA:
        return "application/json"
    return types.get(ending, "text/plain; charset=utf-8")
