"""What an image is booted under: its spec's word, else what its base was booted under."""

from dataclasses import replace

import pytest

from lago_images.building.bases.prepared import FinishedBase
from lago_images.building.image import firmwares
from lago_images.repository.records.manifest import BootTest
from lago_images.repository.records.state import StoredBuild
from tests.support.builders import lines, manifest


def base(boot):
    made = replace(manifest(), boot=boot)
    return StoredBuild(manifest=made, folder=made.key.staging)


def booted(**seconds):
    return BootTest(seconds=1.0, accel="kvm", firmware=seconds)


@pytest.mark.parametrize(
    ("kind", "more", "names"),
    [
        ("bootstrap:debian-12", (), ("bios", "uefi")),
        ("bootstrap:debian-12", ("#firmware=bios",), ("bios",)),
        ("libguestfs:x", (), ("",)),
        ("libguestfs:x", ("#firmware=uefi bios",), ("bios", "uefi")),
    ],
)
def test_an_image_that_is_no_layer(kind, more, names):
    assert firmwares(lines(*more, base=kind), None) == names


@pytest.mark.parametrize(
    ("boot", "names"),
    [
        (booted(uefi=50.0, bios=30.0), ("bios", "uefi")),
        (booted(bios=30.0), ("bios",)),
        (booted(), ("",)),
        (None, ("",)),
    ],
)
def test_a_layer_is_booted_as_its_base_was(boot, names):
    assert firmwares(lines(), base(boot)) == names
    assert firmwares(lines("#firmware=uefi"), base(boot)) == ("uefi",)


def test_a_layer_is_booted_as_its_base_of_this_run_is(tmp_path):
    kinds = ("bios", "uefi")
    base = FinishedBase(name="one", disk=tmp_path / "disk", fingerprint="", firmwares=kinds)
    assert firmwares(lines(), base) == kinds
    assert firmwares(lines("#firmware=uefi"), base) == ("uefi",)


def test_a_record_says_its_boots_in_few_words():
    assert str(booted(uefi=50.4, bios=30.0)) == "bios 30 s, uefi 50 s (kvm)"
    assert str(BootTest(seconds=31.4, accel="tcg")) == "31 s (tcg)"
    again = replace(booted(bios=30.0), again=12.2)
    assert str(again) == "bios 30 s, again 12 s (kvm)"
