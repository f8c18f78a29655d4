"""A store as everybody sees it: the published part, by a policy that lets them read no other.

Somebody without credentials, as the plan of a fork's pull request is, gets 403 for staging and for
caches, which is no absence. Neither is needed to plan: what waits there is not theirs to promote.
"""

from collections.abc import Iterator, Sequence

from lago_images.errors import NotFoundError
from lago_images.storage.base import Blob, Stat, Store


class PublicStore:
    """A store without the keys that start with one of ``private``: for it, there are none."""

    def __init__(self, store: Store, *, private: tuple[str, ...]) -> None:
        """Wrap a store that is not written to."""
        self._store = store
        self._private = private

    def __getattr__(self, name: str) -> object:
        """Pass on what reads no key, and what the store refuses anyway: writes."""
        return getattr(self._store, name)

    def list(self, prefix: str = "", *, marks: Sequence[str] = ()) -> Iterator[Stat]:
        """List as ``base.Store`` does; what is private is not asked for."""
        return (
            iter(()) if prefix.startswith(self._private) else self._store.list(prefix, marks=marks)
        )

    def head(self, key: str) -> Stat:
        """Look as ``base.Store`` does; raises ``NotFoundError`` for what is private."""
        self._refuse(key)
        return self._store.head(key)

    def get(self, key: str) -> Blob:
        """Read as ``base.Store`` does; raises ``NotFoundError`` for what is private."""
        self._refuse(key)
        return self._store.get(key)

    def _refuse(self, key: str) -> None:
        if key.startswith(self._private):
            raise NotFoundError(f"reading {key} of {self._store.url}: only its project may")
