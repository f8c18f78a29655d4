"""Open the store that a repository's URL names."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lago_images.addresses import SCHEME, bucket_and_prefix, file_path, refusal
from lago_images.console import Console
from lago_images.errors import UsageError
from lago_images.settings import Settings, expanded
from lago_images.storage.base import Store
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.public import PublicStore

if TYPE_CHECKING:
    from lago_images.storage.s3.store import S3Store


def open_store(
    url: str, *, settings: Settings, environ: Mapping[str, str], console: Console
) -> Store:
    """Return the store at a URL; nothing is read or written yet.

    Args:
        url: ``s3://bucket/prefix``, ``file:///dir``, or a path from the settings' folder.
        settings: For ``single_writer``, and the folder.
        environ: Endpoint, region and credentials of S3: the standard AWS variables.
        console: Warned of what is unusual.

    Raises:
        UsageError: The URL has none of these forms, or a ``~`` that means no folder.
        StorageError: The AWS settings cannot work.
    """
    if refused := refusal(url):
        raise UsageError(refused.what, hint=refused.hint)
    scheme = SCHEME.match(url)
    if scheme is None:
        return DirectoryStore(path=settings.folder / expanded(url))
    if scheme[1].lower() == "file":
        return DirectoryStore(path=Path(file_path(url)))
    s3 = _s3(url, settings, environ)
    store = s3 if not s3.bucket.anonymous else _public(s3)
    if settings.single_writer:
        console.warn(f"single-writer is set: nothing else may write to {store.url} meanwhile")
    return store


def _public(store: Store) -> Store:
    return cast("Store", PublicStore(store, private=("builds/", "state/")))


def from_folder(url: str, folder: Path) -> str:
    """Make absolute a repository's path that somebody named in ``folder``.

    A URL is left as it is. Raises as ``expanded``.
    """
    if SCHEME.match(url) or refusal(url):
        return url
    return str(folder / expanded(url))


def is_same(one: str, other: str, folder: Path) -> bool:
    """Return whether two addresses, of which a path starts in ``folder``, name one store.

    Raises as ``expanded``.
    """
    return _plain(one, folder) == _plain(other, folder)


def _plain(url: str, folder: Path) -> str:
    if refusal(url):
        return url
    scheme = SCHEME.match(url)
    if scheme is None:
        return str((folder / expanded(url)).resolve())
    if scheme[1].lower() == "file":
        return str(Path(file_path(url)).resolve())
    return "s3://" + "/".join(bucket_and_prefix(url))


def _s3(url: str, settings: Settings, environ: Mapping[str, str]) -> "S3Store":
    # boto3 takes a third of a second to import, and a directory does without.
    from lago_images.storage.s3.store import S3Store  # noqa: PLC0415

    bucket, prefix = bucket_and_prefix(url)
    return S3Store.open(bucket, prefix, environ=environ, single_writer=settings.single_writer)
