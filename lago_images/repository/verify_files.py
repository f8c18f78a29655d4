"""The small published files: fetched side by side, and read by our own strict readers."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from urllib.parse import urlsplit

from lago_images.errors import NotFoundError, RepositoryError
from lago_images.repository import clients, index, layout, metadata
from lago_images.repository.cache import THREADS
from lago_images.repository.index import Entry
from lago_images.repository.metadata import Version
from lago_images.repository.verify_model import REFRESH, Finding, Source, note, problem
from lago_images.repository.web import DeniedError

_SIGNED = ".asc"
_DENIED = "nothing in an unsigned repository; in a signed one, let everybody read it"


def fetch(
    source: Source, names: Iterable[str], denied: dict[str, Finding] | None = None
) -> dict[str, bytes]:
    """The small files of these names that are there.

    Signed files and keys that the server denies go into ``denied``, if it is given, as notes.
    """

    def get(name: str) -> bytes | None:
        try:
            return source.get(name).data
        except NotFoundError:
            return None
        except DeniedError as error:
            # S3 answers 403 for what is not there to those who may not list the bucket.
            if denied is None or not name.endswith(_SIGNED):
                raise
            denied[name] = note(name, f"taken as not there: {error.message}", _DENIED)
            return None

    wanted = sorted(names)
    with ThreadPoolExecutor(THREADS) as pool:
        return {
            name: data
            for name, data in zip(wanted, pool.map(get, wanted), strict=True)
            if data is not None
        }


def led_elsewhere(files: Mapping[str, bytes], url: str) -> Iterator[Finding]:
    """Where ``repo.metadata`` sends lago, if that is not the URL that was looked at."""
    try:
        published = clients.describe(files.get(layout.METADATA, b""))
    except RepositoryError:
        return
    for base in clients.elsewhere(published, url):
        what = f"it sends lago's users to {base}"
        if _is_loopback(base) and not _is_loopback(url):
            where = "which is each user's own machine"
            repair = "set base-url to the public URL, then lago-images repo refresh"
            yield problem(layout.METADATA, f"{what}, {where}", repair)
        else:
            yield note(layout.METADATA, what, f"lago-images repo verify {base}")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse(
    files: Mapping[str, bytes],
) -> tuple[list[Entry], list[Version], list[Finding]]:
    """What the two published formats say, by our own strict readers."""
    found = [
        problem(name, "it is not there: nothing is published", REFRESH)
        for name in (layout.INDEX, layout.METADATA)
        if name not in files
    ]
    entries, wrong = index.parse(files.get(layout.INDEX, b""))
    versions: list[Version] = []
    if layout.METADATA in files:
        versions, more = metadata.parse(files[layout.METADATA])
        wrong += more
    found += [
        problem(one.path if one.line is None else f"{one.path}:{one.line}", one.what, REFRESH)
        for one in wrong
    ]
    return entries, versions, found
