"""A publication into a directory is killed before every change it makes to a file.

Every file that is made, named, renamed, locked or removed is a point to die at.
"""

import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from lago_images.storage.directory.store import DirectoryStore
from tests.functional.publication import scene as scenes
from tests.functional.publication.calls import Caller, caller
from tests.functional.publication.judges import judge
from tests.functional.publication.scene import NEW, OLD, Scene, old_or_new
from tests.tools import need

need("virt-builder", "virt-index-validate")

WORKERS = 2


@dataclass
class Place:
    """A directory to disturb the scene in."""

    root: Path
    scene: Scene
    call: Caller

    @property
    def store(self) -> DirectoryStore:
        return DirectoryStore(path=self.root)

    def publish(self, die_at: int = 0) -> int:
        environ = {
            "LAGO_IMAGES_REPOSITORY": str(self.root),
            "LAGO_IMAGES_BASE_URL": "http://images.test",
        }
        shutil.rmtree(self.root, ignore_errors=True)
        self.scene.restore(self.store)
        below = str(self.root)
        return self.call.call("ci", "publish", environ=environ, below=below, die_at=die_at)

    def killed(self, number: int) -> None:
        assert self.publish(number) == -signal.SIGKILL, (number, self.call.output())
        judge(self.scene, old_or_new(self.store), (OLD, NEW), self.root.parent)
        environ = {
            "LAGO_IMAGES_REPOSITORY": str(self.root),
            "LAGO_IMAGES_BASE_URL": "http://images.test",
        }
        scenes.converged(self.store, self.scene, self.call, environ)


# Some hundred publications, each begun twice: longer on a busy machine than other tests may take.
@pytest.mark.timeout(3600)
def test_a_publication_killed_before_any_file_change_converges_on_the_next_run(
    published: Scene, tmp_path: Path, record_property
) -> None:
    with ExitStack() as stack:
        places = []
        for number in range(WORKERS):
            folder = tmp_path / str(number)
            folder.mkdir()
            made = stack.enter_context(caller(published.repo, folder / "log"))
            places.append(Place(root=folder / "repository", scene=published, call=made))
        assert places[0].publish() == 0, places[0].call.output()
        scenes.published(places[0].store, published)
        points = range(1, places[0].call.changes + 1)

        def some(first: int) -> None:
            for number in points[first::WORKERS]:
                places[first].killed(number)

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(some, range(WORKERS)))
        left = list(places[0].store.unfinished())
    text = f"killed before each of {len(points)} changes to files: 0 failures"
    record_property("points", text)
    print(f"\n{text}")
    # What a killed writer left is found, and can be removed.
    for upload in left:
        places[0].store.abort(upload)
    assert list(places[0].store.unfinished()) == []
