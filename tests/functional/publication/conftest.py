"""The scene is made once; every worker has a place of its own to disturb it in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.publication import scene as scenes
from tests.functional.publication.calls import Caller, caller
from tests.functional.publication.scene import Scene
from tests.support.keys import make_key
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git", "qemu-img")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    root = tmp_path_factory.mktemp("scene")
    repo = SpecsRepo.create(root / "specs")
    with caller(repo, root / "log") as call:
        return scenes.make(root / "repository", call)


@pytest.fixture(scope="session")
def published_signed(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    need("gpg")
    root = tmp_path_factory.mktemp("signed-scene")
    repo = SpecsRepo.create(root / "specs")
    with caller(repo, root / "log") as call:
        return scenes.make(root / "repository", call, make_key(root, "publisher"))


@pytest.fixture
def call(published: Scene, tmp_path: Path) -> Iterator[Caller]:
    with caller(published.repo, tmp_path / "log") as made:
        yield made
