"""What an image is booted under: its spec's word, else that of what it stands on."""

from dataclasses import replace

import pytest

from lago_images.repository.records.manifest import BootTest
from lago_images.specs.bases import required_firmwares
from tests.support.builders import lines


def booted(**seconds):
    return BootTest(seconds=1.0, accel="kvm", firmware=seconds)


@pytest.mark.parametrize(
    ("kind", "more", "names"),
    [
        ("bootstrap:debian-12", (), ("bios", "uefi")),
        ("bootstrap:debian-12", ("#firmware=bios",), ("bios",)),
        ("libguestfs:x", (), ()),
        ("libguestfs:x", ("#firmware=uefi bios",), ("bios", "uefi")),
    ],
)
def test_a_layer_is_for_what_its_bottom_is_for(kind, more, names):
    bottom = replace(lines(*more, base=kind), name="bottom")
    middle = replace(lines(base="layer:bottom"), name="middle")
    top = replace(lines(base="layer:middle"), name="top")
    specs = {spec.name: spec for spec in (bottom, middle, top)}
    assert [required_firmwares(spec, specs) for spec in specs.values()] == [names] * 3
    own = replace(lines("#firmware=uefi", base="layer:middle"), name="own")
    assert required_firmwares(own, specs) == ("uefi",)


def test_a_bootstrap_for_arm_is_booted_under_uefi_alone():
    bottom = replace(lines(base="bootstrap:debian-13", arch="aarch64"), name="bottom")
    layer = replace(lines(base="layer:bottom", arch="aarch64"), name="layer")
    specs = {"bottom": bottom, "layer": layer}
    assert [required_firmwares(spec, specs) for spec in specs.values()] == [("uefi",)] * 2


def test_a_layer_on_nothing_or_on_itself_is_for_what_is_usual():
    one = replace(lines(base="layer:two"), name="one")
    two = replace(lines(base="layer:one"), name="two")
    assert required_firmwares(one, {"one": one, "two": two}) == ()
    assert required_firmwares(one, {}) == ()


def test_a_record_says_its_boots_in_few_words():
    assert str(booted(uefi=50.4, bios=30.0)) == "bios 30 s, uefi 50 s (kvm)"
    assert str(BootTest(seconds=31.4, accel="tcg")) == "31 s (TCG: emulation without KVM)"
    again = replace(booted(bios=30.0), again=12.2)
    assert str(again) == "bios 30 s, second boot 12 s (kvm)"
