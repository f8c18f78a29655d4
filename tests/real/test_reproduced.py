"""A published base and a layer with packages on it are made again from their manifests.

Minutes: ``LAGO_IMAGES_TEST_BOOTS=all`` runs it. ``tests/functional/test_reproduce.py`` has what
differs, with disks that take a moment.
"""

import os

import pytest

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
need("mmdebstrap", "mkfs.vfat", "mcopy", "7zz", "bwrap", "slirp4netns")

HEAD = "#arch=x86_64\n#distro=debian\n#expand=/dev/sda3\n#boot-test=no: only its bytes matter\n"


def test_a_base_and_a_layer_of_namespaces_are_the_same_bytes_again(tmp_path):
    specs = SpecsRepo.create(tmp_path / "specs", {"LAGO_IMAGES_ENGINE": "namespace"})
    specs.write("image-specs/below", f"{HEAD}#base=bootstrap:debian-12\n")
    commands = "install less\nrun-command useradd --create-home me\nroot-password password:123456\n"
    specs.write("image-specs/above", f"{HEAD}#base=layer:below\n{commands}")
    specs.commit()
    ran = specs.run("build", timeout=1800)
    assert ran.code == 0, ran.err
    for name in ("below", "above"):
        again = specs.run("repo", "reproduce", name, timeout=1800)
        assert again.code == 0, again.out + again.err
        assert "same bytes" in again.out
