"""Documents as they were found, checked when they are read for the first time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lago_images.errors import RepositoryError
from lago_images.repository.cache import refuse_text
from lago_images.repository.check import manifest_problems, release_problems
from lago_images.repository.layout import BuildKey, ReleaseKey
from lago_images.repository.manifest import Manifest
from lago_images.repository.release import Release


class CacheError(RepositoryError):
    """What the cache holds is not what was put into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Documents with their ETags by key, and which of them must be checked."""

    entries: Mapping[str, tuple[str, Any]]
    fresh: frozenset[str]


def read_release(found: Found, name: str, key: ReleaseKey) -> Release:
    """The release at ``key``; raises ``RepositoryError``, or ``CacheError`` for a cached one."""
    document = found.entries[name][1]
    if name not in found.fresh:
        try:
            return Release.from_plain(document, name)
        except RepositoryError as error:
            raise CacheError(error.message) from error
    release = Release.from_plain(refuse_text(document, name), name)
    if problems := release_problems(release, key):
        raise RepositoryError(f"{key} is not a release: {'; '.join(problems)}")
    return release


def read_manifest(found: Found, name: str, key: BuildKey) -> Manifest:
    """The manifest at ``key``; raises as ``read_release`` does."""
    document = found.entries[name][1]
    if name not in found.fresh:
        try:
            return Manifest.from_plain(document, name)
        except RepositoryError as error:
            raise CacheError(error.message) from error
    manifest = Manifest.from_plain(refuse_text(document, name), name)
    if problems := manifest_problems(manifest, key):
        raise RepositoryError(f"{key.manifest} is not a manifest: {'; '.join(problems)}")
    return manifest
