"""Make one store of two: writes go to the upper, and what it lacks is read from the lower.

A pull request from a fork may read the repository and write nothing; its builds stay here.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from pathlib import Path

from lago_images.console import Advance, Console
from lago_images.errors import ConflictError, NotFoundError, TamperedError
from lago_images.host.retry import RetryPolicy
from lago_images.storage.base import Blob, ContentDigest, Headers, Stat, Store, Unfinished, Uploaded

_PLAIN = Headers()


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayStore:
    """See ``base.Store`` for the contract."""

    upper: Store
    lower: Store

    @property
    def url(self) -> str:
        return f"{self.upper.url} over {self.lower.url}"

    @property
    def folder(self) -> None:
        return None

    def ensure_safe_writes(self, *, single_writer: bool, console: Console) -> None:
        self.upper.ensure_safe_writes(single_writer=single_writer, console=console)

    def list(
        self, prefix: str = "", *, marks: Sequence[str] = (), without: Collection[str] = ()
    ) -> Iterator[Stat]:
        last = None
        stores = (self.upper, self.lower)
        lists = (store.list(prefix, marks=marks, without=without) for store in stores)
        both = merge(*lists, key=lambda s: s.key)
        for stat in both:
            if stat.key != last:
                yield stat
            last = stat.key

    def sizes(
        self, prefix: str, keys: Collection[str], *, marks: Sequence[str] = ()
    ) -> dict[str, int]:
        stores = (self.lower, self.upper)
        lower, upper = (store.sizes(prefix, keys, marks=marks) for store in stores)
        return lower | upper

    def head(self, key: str) -> Stat:
        try:
            return self.upper.head(key)
        except NotFoundError:
            return self.lower.head(key)

    def get(self, key: str) -> Blob:
        try:
            return self.upper.get(key)
        except NotFoundError:
            return self.lower.get(key)

    def read(self, key: str, *, start: int = 0) -> Iterator[bytes]:
        return self._holder(key).read(key, start=start)

    def check_readable(self, key: str) -> None:
        self._holder(key).check_readable(key)

    def download(self, key: str, path: Path, *, advance: Advance | None = None) -> None:
        self._holder(key).download(key, path, advance=advance)

    def _holder(self, key: str) -> Store:
        """Return the store that a key is read from."""
        try:
            self.upper.head(key)
        except NotFoundError:
            return self.lower
        return self.upper

    def put(
        self,
        key: str,
        data: bytes,
        *,
        expected: str | None,
        headers: Headers = _PLAIN,
        retry: RetryPolicy | None = None,
    ) -> str:
        return self.upper.put(key, data, expected=expected, headers=headers, retry=retry)

    def upload(
        self,
        key: str,
        chunks: Iterable[bytes],
        *,
        headers: Headers = _PLAIN,
        advance: Advance | None = None,
        retry: RetryPolicy | None = None,
    ) -> Uploaded:
        return self.upper.upload(key, chunks, headers=headers, advance=advance, retry=retry)

    def copy(
        self,
        source: str,
        target: str,
        *,
        etag: str,
        size: int,
        sha256: str,
        headers: Headers = _PLAIN,
    ) -> None:
        holder, expected = self._holder(source), ContentDigest(size=size, sha256=sha256)
        if holder is self.upper:
            self.upper.copy(source, target, etag=etag, size=size, sha256=sha256, headers=headers)
            return
        if holder.head(source).etag != etag:
            raise ConflictError(f"copying {source}: it has changed since it was judged")
        # No store copies from another one's objects: the bytes go through here, and are proved.
        copied = self.upper.upload(target, holder.read(source), headers=headers)
        try:
            expected.check_copy(
                source, target, ContentDigest(size=copied.size, sha256=copied.sha256)
            )
        except TamperedError:
            self.upper.delete([target])
            raise

    def delete(self, keys: Iterable[str]) -> None:
        self.upper.delete(keys)

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        return self.upper.unfinished(prefix)

    def abort(self, upload: Unfinished) -> None:
        self.upper.abort(upload)
