"""Find, of the files that are not committed, those that an image is built of."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lago_images.planning.model import Tree
from lago_images.planning.paths import Paths
from lago_images.settings import FILE
from lago_images.specs.bases import descent
from lago_images.specs.folder import QUARANTINE, test_places
from lago_images.specs.model import BaseKind, Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncommitted:
    """Tell of the images of one tree, one after the other, what of them is not in git's head."""

    tree: Tree
    paths: Paths

    @classmethod
    def of(cls, tree: Tree) -> "Uncommitted":
        return cls(tree=tree, paths=Paths.of(tree.dirty))

    def behind(self, names: Iterable[str]) -> frozenset[str]:
        """Return the uncommitted files that images, or the bases they stand on, are made of.

        The quarantine is behind every image: their tests are judged by it.
        """
        if not self.tree.dirty:
            return frozenset()
        specs = [self.tree.specs[name] for name in names if name in self.tree.specs]
        below = {each.name: each for spec in specs for each in descent(spec, self.tree.specs)}
        read = {path for spec in below.values() for path in self._read(spec)}
        return frozenset(touched for path in read for touched in self.paths.touching(path))

    def _read(self, spec: Spec) -> Iterator[str]:
        for path in self.tree.inputs.get(spec.name, ()):
            yield from self.tree.way(path)
        for path in self.tree.way(spec.path):
            folder, slash, _ = path.rpartition("/")
            # Removed ones, too, which are no input any more.
            for beside in (path, *test_places(path), f"{folder}{slash}{QUARANTINE}"):
                yield from self.tree.way(beside)
        if spec.base.kind is BaseKind.LIBGUESTFS:
            yield FILE
