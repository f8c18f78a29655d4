"""A published base and a layer with packages on it are made again from their manifests.

Minutes: ``LAGO_IMAGES_TEST_BOOTS=all`` runs it. ``tests/functional/test_reproduce.py`` has what
differs, with disks that take a moment.
"""

import os
import re
from collections.abc import Iterator

import pytest

from lago_images.building.bases.bootstrap.debian import host_mirrors
from lago_images.host.process import Runner
from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.server_threads import in_thread
from tests.support.specs import SpecsRepo
from tests.tools import need

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        os.environ.get("LAGO_IMAGES_TEST_BOOTS") != "all",
        reason="takes minutes; LAGO_IMAGES_TEST_BOOTS=all runs it",
    ),
]
need("apt-get", "mmdebstrap", "mkfs.vfat", "mcopy", "7zz", "bwrap", "slirp4netns")

HEAD = "#arch=x86_64\n#distro=debian\n#expand=/dev/sda3\n#boot-test=no: only its bytes matter\n"


def reproduced(specs):
    """Build both images and then each again, to the same bytes; what that said of each."""
    ran = specs.run("build", timeout=1800)
    assert ran.code == 0, ran.err
    said = [specs.run("repo", "reproduce", name, timeout=1800) for name in ("below", "above")]
    for again in said:
        assert again.code == 0, again.out + again.err
        assert "same bytes" in again.out
    return said


def test_a_base_and_a_layer_of_namespaces_are_the_same_bytes_again(tmp_path):
    specs = SpecsRepo.create(tmp_path / "specs", {"LAGO_IMAGES_ENGINE": "namespace"})
    specs.write("image-specs/below", f"{HEAD}#base=bootstrap:debian-12\n")
    commands = "install less\nrun-command useradd --create-home me\nroot-password password:123456\n"
    specs.write("image-specs/above", f"{HEAD}#base=layer:below\n{commands}")
    specs.commit()
    reproduced(specs)


MOMENT = "20260131T120000Z"


@pytest.fixture
def snapshots() -> Iterator[LoopbackServer]:
    """A mirror with a folder for a moment, whose files are those of this host's mirrors now."""
    mirrors = host_mirrors(Runner())
    assert mirrors is not None
    archives = {"debian": mirrors.main, "debian-security": mirrors.security}

    class Redirect(QuietHandler):
        def do_GET(self) -> None:
            found = re.fullmatch(rf"/archive/(debian(?:-security)?)/{MOMENT}/(.*)", self.path)
            self.send_response(302 if found else 404)
            if found:
                self.send_header("Location", f"{archives[found[1]]}/{found[2]}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with LoopbackServer(Redirect) as server, in_thread(server):
        yield server


def test_a_base_of_a_snapshot_and_a_layer_are_the_same_bytes_again(tmp_path, snapshots):
    specs = SpecsRepo.create(
        tmp_path / "specs",
        {"LAGO_IMAGES_ENGINE": "namespace", "LAGO_IMAGES_COMPRESSION_LEVEL": "0"},
    )
    mirror = f"#mirror={snapshots.url}/archive/debian\n#snapshot={MOMENT}\n"
    specs.write("image-specs/below", f"{HEAD}#base=bootstrap:debian-12\n{mirror}")
    specs.write("image-specs/above", f"{HEAD}#base=layer:below\nrun-command useradd me\n")
    specs.commit()
    for again in reproduced(specs):
        # Nothing moves on.
        assert "archives that move on" not in again.err
