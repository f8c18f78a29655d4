"""Which of many paths concern one: quickly, for thousands of both."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Paths:
    """A set of paths relative to one folder, with ``/``."""

    paths: frozenset[str]
    _below: dict[str, list[str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, paths: Iterable[str]) -> "Paths":
        made = cls(frozenset(paths))
        for path in sorted(made.paths):
            for folder in _above(path):
                made._below.setdefault(folder, []).append(path)
        return made

    def touching(self, path: str) -> list[str]:
        """Those that are ``path``, are in it, or are a folder (a submodule) that it is in."""
        if path in self.paths:
            return [path]
        return [*self._below.get(path, ()), *(up for up in _above(path) if up in self.paths)]


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
