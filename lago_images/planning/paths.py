"""Find, of paths that changed, those that reading a file or a folder would meet."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Paths:
    """Hold paths relative to one folder, with ``/``."""

    paths: frozenset[str]
    _below: dict[str, list[str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, paths: Iterable[str]) -> "Paths":
        indexed = cls(frozenset(paths))
        for path in sorted(indexed.paths):
            for folder in _above(path):
                indexed._below.setdefault(folder, []).append(path)
        return indexed

    def touching(self, path: str) -> list[str]:
        """Return those that are ``path``, are in it, or are a folder (a submodule) around it."""
        if path == ".":
            return sorted(self.paths)
        if path in self.paths:
            return [path]
        # Git names a submodule by its folder, and no file in it.
        return [*self._below.get(path, ()), *(up for up in _above(path) if up in self.paths)]


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
