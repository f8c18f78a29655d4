"""Open the store that a repository's URL names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from lago_images.console import Console
from lago_images.errors import UsageError
from lago_images.settings import Settings
from lago_images.storage.base import Store
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.public import PublicStore

if TYPE_CHECKING:
    from lago_images.storage.s3.store import S3Store

_FORMS = "s3://bucket/prefix, file:///dir or a path"
# One slash is a slip of the same, not the folder ``s3:``; a path may say ``./s3:/``.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
# Wider than S3's own rule: other stores allow capitals, underscores and ``tenant:bucket``.
_BUCKET = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._:]{1,254}")


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
        UsageError: The URL has none of these forms.
        StorageError: The AWS settings cannot work.
    """
    scheme = _SCHEME.match(url)
    match scheme and scheme[1].lower():
        case None:
            # An empty setting would be the folder itself, and no path has a null character.
            if not url.strip() or "\0" in url:
                raise UsageError("the repository's URL is empty", hint=f"use {_FORMS}")
            return DirectoryStore(path=settings.folder / Path(url).expanduser())
        case "file":
            return DirectoryStore(path=_file(url))
        case "s3":
            s3 = _s3(url, settings, environ)
            store = s3 if not s3.bucket.anonymous else _public(s3)
        case "http" | "https":
            # A web server lists nothing, and what is withdrawn or gone is in no rendered file.
            raise UsageError(
                f"{url}: a repository can neither be read whole nor written over HTTP",
                hint=f"name the store itself: {_FORMS}; a public bucket is read without "
                "credentials, and an S3 endpoint goes into AWS_ENDPOINT_URL_S3. What clients get "
                f"of it is in {url.rstrip('/')}/images.json, for people in index.html beside that",
            )
        case _:
            raise UsageError(f"{url}: not a place for a repository", hint=f"use {_FORMS}")
    if settings.single_writer:
        console.warn(f"single-writer is set: nothing else may write to {store.url} meanwhile")
    return store


def _public(store: Store) -> Store:
    return cast("Store", PublicStore(store, private=("builds/", "state/")))


def from_folder(url: str, folder: Path) -> str:
    """Make absolute a repository's path that somebody named in ``folder``.

    A URL is left as it is.
    """
    if not url.strip() or _SCHEME.match(url):
        return url
    return str(folder / Path(url).expanduser())


def _file(url: str) -> Path:
    # RFC 8089: the host may be empty or localhost; file://srv/images has a host named "srv".
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise UsageError(
            f"{url}: a file URL has three slashes and a path of this machine",
            hint="file:///srv/images",
        )
    return Path(unquote(parts.path))


def _s3(url: str, settings: Settings, environ: Mapping[str, str]) -> "S3Store":
    # boto3 takes a third of a second to import, and a directory does without.
    from lago_images.storage.s3.store import S3Store  # noqa: PLC0415

    bucket, _, prefix = url.partition("://")[2].partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{url}: {bucket!r} is not a bucket's name", hint=f"use {_FORMS}")
    # S3 takes these as they are; proxies and clients make other paths of them.
    prefix = prefix.strip("/")
    if prefix and not {"", ".", ".."}.isdisjoint(prefix.split("/")):
        raise UsageError(f"{url}: the prefix has an empty, . or .. part", hint=f"use {_FORMS}")
    return S3Store.open(bucket, prefix, environ=environ, single_writer=settings.single_writer)
