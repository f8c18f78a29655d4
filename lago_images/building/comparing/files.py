"""Tell how the files of two disks differ."""

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from lago_images.building.comparing.tree import File


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDifference:
    """A file that is not the same on both disks.

    Attributes:
        path: In the guest.
        what: In words, such as ``content`` or ``mode 0644 → 0600``; ``new`` or ``missing``.
        expected: Why it could not be the same; empty where it should have been.
    """

    path: str
    what: tuple[str, ...]
    expected: str = ""


def differing(
    old: Mapping[str, File], new: Mapping[str, File], *, with_times: bool
) -> Iterator[FileDifference]:
    """Yield the files that differ, sorted by path; ``with_times``: also those of another time."""
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            yield FileDifference(path=path, what=("missing",))
        elif path not in old:
            yield FileDifference(path=path, what=("new",))
        elif what := tuple(_differences(old[path], new[path], with_times=with_times)):
            yield FileDifference(path=path, what=what)


def _differences(old: File, new: File, *, with_times: bool) -> Iterator[str]:
    if stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
        yield "kind"
    elif old.mode != new.mode:
        yield f"mode {stat.S_IMODE(old.mode):04o} → {stat.S_IMODE(new.mode):04o}"
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield f"owner {old.uid}:{old.gid} → {new.uid}:{new.gid}"
    if old.size != new.size:
        yield f"size {old.size} → {new.size}"
    if (old.content, old.device) != (new.content, new.device):
        yield "target" if stat.S_ISLNK(old.mode) else "content"
    if (old.links, old.first_name) != (new.links, new.first_name):
        yield "names of one file"
    if old.attributes != new.attributes:
        yield "extended attributes"
    if with_times and old.modified != new.modified:
        yield f"time {_moment(old.modified)} → {_moment(new.modified)}"


def _moment(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{moment}.{rest:09d}" if rest else moment
