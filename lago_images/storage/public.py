"""Show a store as somebody without credentials sees it, such as a fork's pull request.

Staging and caches may be the project's alone. What the store's policy keeps from everybody is not
theirs to promote, and is no failure: a plan needs neither. Of all else a refusal says nothing.
"""

from collections.abc import Collection, Iterator, Sequence

from lago_images.errors import KeylessError, NotFoundError
from lago_images.storage.base import Blob, Stat, Store


class PublicStore:
    """PublicStore is empty below ``private`` where the store refuses that to everybody."""

    def __init__(self, store: Store, *, private: tuple[str, ...]) -> None:
        """Wrap a store that is not written to."""
        self._store = store
        self._private = private

    def __getattr__(self, name: str) -> object:
        """Pass on what reads no key, and what the store refuses anyway: writes."""
        return getattr(self._store, name)

    def list(
        self, prefix: str = "", *, marks: Sequence[str] = (), without: Collection[str] = ()
    ) -> Iterator[Stat]:
        """List as ``base.Store`` does; nothing where a private prefix is refused."""
        try:
            yield from self._store.list(prefix, marks=marks, without=without)
        except KeylessError:
            if not prefix.startswith(self._private):
                raise

    def head(self, key: str) -> Stat:
        """Look as ``base.Store`` does; raises ``NotFoundError`` for what is private."""
        try:
            return self._store.head(key)
        except KeylessError as error:
            raise self._missing(key, error) from error

    def get(self, key: str) -> Blob:
        """Read as ``base.Store`` does; raises ``NotFoundError`` for what is private."""
        try:
            return self._store.get(key)
        except KeylessError as error:
            raise self._missing(key, error) from error

    def _missing(self, key: str, error: KeylessError) -> KeylessError | NotFoundError:
        # Without s3:ListBucket a store answers 403 for a missing object, too: of all else than the
        # private prefixes a refusal proves no absence (promise 7).
        is_private = key.startswith(self._private)
        return NotFoundError(error.message, hint=error.hint) if is_private else error
