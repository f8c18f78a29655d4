"""List a bucket, page by page; a long list in parts side by side."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from lago_images.errors import StorageError
from lago_images.host.threads import side_by_side
from lago_images.storage.base import Stat
from lago_images.storage.s3.bucket import Bucket
from lago_images.storage.s3.etags import bare
from lago_images.storage.s3.failures import understood

WORKERS = 8


def listed(bucket: Bucket, prefix: str, marks: Sequence[str]) -> Iterator[Stat]:
    """List the objects below a prefix, by key. See ``base.Store.list`` for ``marks``."""
    if not marks:
        yield from _between(bucket, prefix, "", "")
        return
    bounds = ["", *sorted(marks), ""]
    with side_by_side(WORKERS, "list") as workers:
        parts = workers.map(
            lambda bound: list(_between(bucket, prefix, *bound)),
            pairwise(bounds),
        )
        for part in parts:
            yield from part


def _between(bucket: Bucket, prefix: str, after: str, until: str) -> Iterator[Stat]:
    """List the objects whose keys come after one key, up to another and with it; "" is no bound."""
    for entry in _entries(bucket, prefix, after):
        with understood(_doing(prefix), bucket.where):
            stat = Stat(
                key=entry["Key"].removeprefix(bucket.prefix),
                size=entry["Size"],
                etag=bare(entry["ETag"]),
                modified=entry["LastModified"].timestamp(),
            )
        if until and stat.key > until:
            return
        # The prefix itself may be an object: consoles make one for a folder.
        if stat.key:
            yield stat


def _doing(prefix: str) -> str:
    return f"listing {prefix or 'everything'}"


def _entries(bucket: Bucket, prefix: str, after: str) -> Iterator[Any]:
    begin = {"StartAfter": bucket.prefix + after} if after else {}
    token: dict[str, str] = {}
    doing = _doing(prefix)
    while True:
        page = bucket.call(
            doing, bucket.small.list_objects_v2, Prefix=bucket.prefix + prefix, **begin, **token
        )
        yield from page.get("Contents", ())
        if not page.get("IsTruncated"):
            return
        # Without a new token the rest is out of reach, and what is missing from a list would pass
        # for absent (promise 7).
        following = {"ContinuationToken": page.get("NextContinuationToken", "")}
        if following == token or not following["ContinuationToken"]:
            raise StorageError(f"{doing} in {bucket.where}: the list is cut off")
        token = following
