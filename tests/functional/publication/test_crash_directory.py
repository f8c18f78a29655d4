"""A publication into a directory dies before every change it makes to a file.

Every file that is made, named, renamed, locked or removed is a point to die at. At each the
publication is stopped and the directory copied as it is, which is what a kill would leave; every
so often it is killed. The next run is tried on each state of the directory once: many changes are
to what no other process sees, such as a lock.
"""

import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lago_images.storage.directory.files import PRIVATE
from lago_images.storage.directory.store import DirectoryStore
from tests.functional.publication import scene as scenes
from tests.functional.publication.calls import Caller
from tests.functional.publication.judges import judge
from tests.functional.publication.scene import NEW, OLD, Scene, old_or_new
from tests.tools import need

need("virt-builder", "virt-index-validate")

WORKERS = 2
# Of so many points, one is a kill, too.
KILLED = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory to disturb the scene in, or one that a disturbance left."""

    root: Path
    scene: Scene
    call: Caller

    @property
    def store(self) -> DirectoryStore:
        return DirectoryStore(path=self.root)

    @property
    def environ(self) -> Mapping[str, str]:
        return {
            "LAGO_IMAGES_REPOSITORY": str(self.root),
            "LAGO_IMAGES_BASE_URL": "http://images.test",
        }

    def publish(self, **watched) -> int:
        shutil.rmtree(self.root, ignore_errors=True)
        self.scene.restore(self.store)
        environ = self.environ
        return self.call.watched("ci", "publish", environ=environ, below=self.root, **watched)

    def killed(self, number: int) -> None:
        assert self.publish(die_at=number) == -signal.SIGKILL, (number, self.call.output())
        self.converges()

    def converges(self) -> None:
        judge(self.scene, old_or_new(self.store), (OLD, NEW), self.root.parent)
        scenes.converged(self.store, self.scene, self.call, self.environ)
        # What a killed writer left is found, and can be removed.
        for upload in self.store.unfinished():
            self.store.abort(upload)
        assert list(self.store.unfinished()) == []


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """What a directory was like, each state once: a copy by what tells it from the others."""

    root: Path
    folder: Path
    found: dict[str, Path] = field(default_factory=dict)

    def keep(self) -> None:
        """Copy the directory, if it was never like this."""
        state = _state(self.root)
        if state not in self.found:
            self.found[state] = copy = self.folder / str(len(self.found)) / "repository"
            copy.parent.mkdir(parents=True)
            # Objects as links: they are never written to, and their ETags tell of their inodes.
            subprocess.run(["cp", "-al", self.root, copy], check=True)
            shutil.rmtree(copy / PRIVATE)
            subprocess.run(["cp", "-a", self.root / PRIVATE, copy / PRIVATE], check=True)


def _state(root: Path) -> str:
    """Names, kinds, contents and ETags; times and the names that chance gives say nothing."""
    digest = hashlib.sha256()
    for line in sorted(_lines(root)):
        digest.update(line + b"\n")
    return digest.hexdigest()


def _lines(root: Path) -> Iterator[bytes]:
    for folder, _, files in os.walk(root):
        names = [Path(folder), *(Path(folder, name) for name in files)]
        for path in names:
            status = path.lstat()
            name = re.sub(r"\b[0-9a-f]{32}\b", "", str(path.relative_to(root)))
            content: object = ""
            if stat.S_ISREG(status.st_mode):
                is_private = name.startswith(PRIVATE)
                content = path.read_bytes() if is_private else (status.st_ino, status.st_mtime_ns)
            yield f"{name} {status.st_mode:o} {content!r}".encode()


# Some hundred publications: longer on a busy machine than other tests may take.
@pytest.mark.timeout(3600)
def test_a_publication_killed_before_any_file_change_converges_on_the_next_run(
    published: Scene, tmp_path: Path, record_property
) -> None:
    callers = [Caller(repo=published.repo, log=tmp_path / f"log-{n}") for n in range(WORKERS)]
    places = [
        Place(root=tmp_path / str(number) / "repository", scene=published, call=call)
        for number, call in enumerate(callers)
    ]
    for place in places:
        place.root.parent.mkdir()
    states = States(root=places[0].root, folder=tmp_path / "states")
    assert places[0].publish(at=states.keep) == 0, callers[0].output()
    scenes.published(places[0].store, published)
    points = range(1, callers[0].changes + 1)
    left = list(states.found.values())
    # Fewer, and the directory was not looked at.
    assert len(left) > len(points) / 3

    def some(first: int) -> None:
        for root in left[first::WORKERS]:
            Place(root=root, scene=published, call=callers[first]).converges()
            shutil.rmtree(root)
        for number in points[::KILLED][first::WORKERS]:
            places[first].killed(number)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(some, range(WORKERS)))
    text = f"died before each of {len(points)} changes to files, in {len(left)} states: 0 failures"
    record_property("points", text)
    print(f"\n{text}")
