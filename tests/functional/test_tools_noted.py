"""A build notes the versions of the programs that take part in it."""

import json
import os

from lago_images.building.image import tools
from lago_images.host.process import Runner
from lago_images.specs.model import BaseKind
from tests.support.specs import SpecsRepo
from tests.tools import need

need("qemu-img", "git", "mmdebstrap")


def test_the_program_that_bootstraps_is_noted_of_bootstraps_alone(tmp_path):
    repo = SpecsRepo.with_one(tmp_path / "specs")
    repo.spec("layer", "layer:one")
    repo.commit()
    ran = repo.run("build")
    assert ran.code == 0, ran.err
    all_of_them = tools(Runner(environ=os.environ), BaseKind.BOOTSTRAP)
    assert all_of_them["mmdebstrap"]
    others = {name: text for name, text in all_of_them.items() if name != "mmdebstrap"}
    for name in ("one", "layer"):
        [manifest] = (repo.root / f"image-repo/images/{name}").rglob("manifest.json")
        assert json.loads(manifest.read_text())["tools"] == others
