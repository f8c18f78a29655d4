"""Where everything is in a repository, and what its HTTP clients are told of it."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from lago_images.specs import names
from lago_images.storage.base import Headers

BUILDS = "builds/"
RELEASES = "releases/"
STATE = "state/"
INDEX = "index"
SIGNED_INDEX = "index.asc"
METADATA = "repo.metadata"
METADATA_SIGNATURE = "repo.metadata.asc"
CATALOGUE = "index.html"
KEY = "key.asc"
PUBLISHED = "state/published.json"
CACHE = "state/cache.json"
RENDERED = (INDEX, SIGNED_INDEX, METADATA, METADATA_SIGNATURE, CATALOGUE, KEY)
MANIFEST = "manifest.json"

NAME = names.NAME
_RELEASE = re.compile(r"releases/([^/]+)/([^/]+)/([1-9][0-9]*)\.json")
_MANIFEST = re.compile(r"builds/([^/]+)/([^/]+)/([^/]+)/manifest\.json")
_IN_BUILD = re.compile(r"builds/([^/]+)/([^/]+)/([^/]+)/.+")
_KEYED = re.compile(r"(?:index|key)-([0-9A-F]{40,64})\.asc")
_RETIREMENT = re.compile(r"releases/([^/]+)/([^/]+)/retired/([^/]+)\.json")

_ONCE = "public, max-age=31536000, immutable"
# Short, and checked again: what is rendered changes with every publication.
_RENDERED = "public, max-age=60, must-revalidate"


class ImageId(NamedTuple):
    """What tells images apart: one name may stand for images of several architectures."""

    name: str
    arch: str

    def __str__(self) -> str:
        return f"{self.name} ({self.arch})"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ReleaseKey:
    """The place of a release; ``revision`` counts from 1."""

    name: str
    arch: str
    revision: int

    @property
    def image(self) -> ImageId:
        return ImageId(self.name, self.arch)

    def __str__(self) -> str:
        return f"{RELEASES}{self.name}/{self.arch}/{self.revision}.json"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class BuildKey:
    """The place of a build: a folder of its own that is written once."""

    name: str
    arch: str
    build_id: str

    @property
    def image(self) -> ImageId:
        return ImageId(self.name, self.arch)

    @property
    def folder(self) -> str:
        return f"{BUILDS}{self.name}/{self.arch}/{self.build_id}/"

    @property
    def manifest(self) -> str:
        return self.folder + MANIFEST

    @property
    def retirement(self) -> str:
        """The record that the build is offered no more, as ``repo gc`` is going to remove it."""
        return f"{RELEASES}{self.name}/{self.arch}/retired/{self.build_id}.json"

    @property
    def handle(self) -> str:
        """What lago calls the handle: the disk's key without ``.xz``."""
        return f"{self.folder}{self.name}.qcow2"

    @property
    def disk(self) -> str:
        return self.handle + ".xz"

    @property
    def hash(self) -> str:
        return self.handle + ".hash"

    @property
    def metadata(self) -> str:
        return self.handle + ".metadata"

    @property
    def packages(self) -> str:
        """The installed packages, one ``name version arch`` a line."""
        return self.folder + "packages.txt"

    @property
    def log(self) -> str:
        return self.folder + "build.log"

    @property
    def console(self) -> str:
        """What the serial console said during the boot test."""
        return self.folder + "console.log"


def signed_index(fingerprint: str) -> str:
    """The index as one key signs it, at a path that outlives the key's turn as ``index.asc``."""
    return f"index-{fingerprint}.asc"


def key_file(fingerprint: str) -> str:
    """One public key, beside the index it signs."""
    return f"key-{fingerprint}.asc"


def key_behind(key: str) -> str:
    """The fingerprint in the name of a signed index or of a public key; else empty."""
    match = _KEYED.fullmatch(key)
    return match[1] if match else ""


def release_key(key: str) -> ReleaseKey | None:
    """The release that a store's key names, if it names one."""
    match = _RELEASE.fullmatch(key)
    return match and ReleaseKey(name=match[1], arch=match[2], revision=int(match[3]))


def build_key(key: str) -> BuildKey | None:
    """The build whose manifest a store's key names, if it names one."""
    return _build(_MANIFEST, key)


def owner(key: str) -> BuildKey | None:
    """The build whose folder a store's key is in, if it is in one."""
    return _build(_IN_BUILD, key)


def retired_build(key: str) -> BuildKey | None:
    """The build that a store's key retires, if it retires one."""
    return _build(_RETIREMENT, key)


def _build(form: re.Pattern[str], key: str) -> BuildKey | None:
    match = form.fullmatch(key)
    return match and BuildKey(name=match[1], arch=match[2], build_id=match[3])


def headers(key: str) -> Headers:
    """The content type and caching that an object's HTTP clients are told."""
    once = key.startswith((BUILDS, RELEASES))
    cache = "no-store" if key.startswith(STATE) else _ONCE if once else _RENDERED
    return Headers(content_type=_content_type(key), cache_control=cache)


def _content_type(key: str) -> str:
    types = {
        ".json": "application/json",
        ".metadata": "application/json",
        ".xz": "application/x-xz",
        ".html": "text/html; charset=utf-8",
    }
    ending = "." + key.rpartition(".")[2]
    if key == METADATA:
        return "application/json"
    return types.get(ending, "text/plain; charset=utf-8")
