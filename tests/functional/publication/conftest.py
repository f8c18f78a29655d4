"""The scene is made once; every worker has a place of its own to disturb it in."""

import pytest

from tests.functional.publication import scene as scenes
from tests.functional.publication.calls import Caller
from tests.functional.publication.scene import Scene
from tests.support.keys import make_key
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git", "qemu-img")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    root = tmp_path_factory.mktemp("scene")
    call = Caller(repo=SpecsRepo.create(root / "specs"), log=root / "log")
    return scenes.make(root / "repository", call)


@pytest.fixture(scope="session")
def published_signed(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    need("gpg")
    root = tmp_path_factory.mktemp("signed-scene")
    call = Caller(repo=SpecsRepo.create(root / "specs"), log=root / "log")
    return scenes.make(root / "repository", call, make_key(root, "publisher"))
