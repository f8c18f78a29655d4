"""A bootstrapped base and a layer on it, by the command line, booted under all their firmware.

Half an hour under emulation: ``LAGO_IMAGES_TEST_BOOTS=all`` runs it. Its parts are tested every
time: ``test_customise.py`` builds a layer, ``clients/test_machines.py`` boots it under both.
"""

import json
import os
from pathlib import Path

import pytest

from lago_images.building.boot.machines import machine_for
from tests.support.specs import SpecsRepo
from tests.tools import cannot, need

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        os.environ.get("LAGO_IMAGES_TEST_BOOTS") != "all",
        reason="takes half an hour; LAGO_IMAGES_TEST_BOOTS=all runs it",
    ),
]

HEAD = "#arch=x86_64\n#distro=debian\n"
LAYER = HEAD + "#base=layer:below\ninstall less\nwrite /etc/motd:a layer\n"


@pytest.mark.parametrize(
    ("release", "properties", "firmware", "partition"),
    [
        ("debian-12", (), {"bios", "uefi"}, 3),
        ("debian-13", (), {"bios", "uefi"}, 3),
        ("debian-13", ("#cloud-init=yes",), {"bios", "uefi"}, 3),
        ("debian-12", ("#firmware=bios",), {"bios"}, 1),
    ],
)
def test_base_and_layer_boot_under_all_their_firmware(
    tmp_path, release, properties, firmware, partition
):
    need("mmdebstrap", "virt-sysprep", "qemu-system-x86_64", "mkfs.vfat", "mcopy")
    if not all(Path(file).exists() for file in machine_for("x86_64", "uefi").files):
        cannot("UEFI firmware is not installed (package ovmf)")
    specs = SpecsRepo.create(tmp_path / "specs", {"LAGO_IMAGES_BOOT_TIMEOUT": "900"})
    named = f"#expand=/dev/sda{partition}\n"
    lines = "".join(f"{line}\n" for line in properties)
    specs.write("image-specs/below", f"{HEAD}{named}{lines}#base=bootstrap:{release}\n")
    specs.write("image-specs/above", named + LAYER)
    specs.commit()
    ran = specs.run("build", timeout=4 * 3600)
    assert ran.code == 0, ran.err
    for name in ("below", "above"):
        [file] = (specs.root / "image-repo/images" / name).rglob("manifest.json")
        assert set(json.loads(file.read_text())["boot"]["firmware"]) == firmware
    index = (specs.root / "image-repo/index").read_text()
    assert index.count(f"\nexpand=/dev/sda{partition}\n") == 2
