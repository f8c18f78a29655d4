"""Where symbolic links lead: what git has to be asked about besides the path as it is written."""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from lago_images.spec.host_files import is_inside, refusal

# As many as Linux follows in one path (path_resolution(7)).
_MOST = 40


@dataclass(slots=True)
class Links:
    """The links in paths below ``root``; each folder on the way is looked at once."""

    root: Path
    _top: str = ""
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._top = os.path.realpath(self.root)
        self._known[self._top] = (self._top,)

    def way(self, path: str) -> tuple[str, ...]:
        """Return the links below ``root`` that reading ``path`` follows, in order, and their end.

        Raises:
            OSError: Links lead in a circle.
            ValueError: They lead outside ``root``, or to git's own files.
        """
        *links, real = self._follow(f"{self._top}/{path}", _MOST)
        if why_not := refusal(real, self._top):
            raise ValueError(f"{path} {why_not}")
        below = [link for link in links if is_inside(link, self._top)]
        return tuple(found[len(self._top) :].lstrip("/") or "." for found in (*below, real))

    def _follow(self, path: str, most: int) -> tuple[str, ...]:
        if not path.strip("/"):
            return ("/",)
        found = self._known.get(path)
        if found is None:
            folder, name = os.path.split(path)
            found = self._known[path] = self._last(self._follow(folder, most), name, most)
        return found

    def _last(self, folder: tuple[str, ...], name: str, most: int) -> tuple[str, ...]:
        """A way that goes on from a folder's by one part of a path."""
        *links, real = folder
        here = os.path.join(real, name)  # noqa: PTH118 -- a Path takes ten times as long
        if name in {"", "."}:
            return folder
        if name == "..":
            return (*links, os.path.dirname(real))  # noqa: PTH120 -- as above
        if not os.path.islink(here):  # noqa: PTH114 -- as above
            return (*links, here)
        if not most:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.path.join(real, os.readlink(here))  # noqa: PTH115, PTH118 -- as above
        return (*links, here, *self._follow(target, most - 1))
