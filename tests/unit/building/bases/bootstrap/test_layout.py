"""The disk of a bootstrap: partitions, identifiers, and GRUB's place for a BIOS."""

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.building.bases.bootstrap.layout import (
    ESP_SIZE,
    MIB,
    SECTOR,
    BiosLoader,
    Layout,
)
from lago_images.errors import BuildError


def layout(*, has_uefi=True, size=6 * 2**30, identity="sha256:1"):
    return Layout(size=size, has_uefi=has_uefi, identity=identity)


def partitions(script):
    return [
        (int(start), int(size)) for start, size in re.findall(r"start=(\d+), size=(\d+)", script)
    ]


@given(st.integers(512, 2**25))
def test_partitions_follow_one_another_and_the_root_is_the_last(mib):
    made = layout(size=mib * MIB)
    boot, esp, root = partitions(made.script)
    assert boot[0] * SECTOR == made.core_start
    assert boot[0] + boot[1] == esp[0] == made.esp.start // SECTOR
    assert esp[0] + esp[1] == root[0]
    assert (root[0] * SECTOR, root[1] * SECTOR) == (made.root_start, made.root_size)
    # GPT's second copy has 33 sectors.
    assert root[0] + root[1] <= made.size // SECTOR - 33


@given(st.integers(512, 2**25))
def test_a_disk_without_a_bios_has_two_partitions_from_the_first_mib_on(mib):
    made = Layout(size=mib * MIB, has_uefi=True, identity="sha256:1", arch="aarch64")
    esp, root = partitions(made.script)
    assert esp == (MIB // SECTOR, ESP_SIZE // SECTOR)
    assert esp[0] + esp[1] == root[0]
    assert (root[0] * SECTOR, root[1] * SECTOR) == (made.root_start, made.root_size)
    assert root[0] + root[1] <= made.size // SECTOR - 33


def test_a_disk_for_a_bios_alone_is_as_it_always_was():
    made = layout(has_uefi=False)
    assert "label: dos" in made.script
    assert "start=2048, type=83, bootable" in made.script
    assert (made.core_start, made.root_start) == (SECTOR, MIB)
    assert made.root_size == made.size - MIB


def test_identifiers_are_of_the_fingerprint_alone():
    names = ("root_uuid", "hash_seed", "esp_serial", "script")
    one, same, other = layout(), layout(), layout(identity="sha256:2")
    assert all(getattr(one, name) == getattr(same, name) for name in names)
    assert all(getattr(one, name) != getattr(other, name) for name in names)
    assert len({one.root_uuid, one.hash_seed, one.esp.guid}) == 3


def test_fstab_names_the_serial_number_that_mkfs_writes():
    assert layout().esp_uuid.replace("-", "") == layout().esp_serial
    assert re.fullmatch(r"[0-9A-F]{4}-[0-9A-F]{4}", layout().esp_uuid)


@pytest.mark.parametrize(("has_uefi", "sector"), [(True, 2048), (False, 1)])
def test_grubs_two_parts_find_one_another(has_uefi, sector):
    made = layout(has_uefi=has_uefi)
    loader = BiosLoader.at(made, bytes(512), b"\xff" * 3000)
    assert len(loader.boot_code) == 440
    assert struct.unpack_from("<Q", loader.boot_code, 0x5C) == (sector,)
    assert struct.unpack_from("<Q", loader.core, 500) == (sector + 1,)
    assert loader.core[:500] + loader.core[508:] == b"\xff" * 2992


@pytest.mark.parametrize(("has_uefi", "room"), [(True, MIB), (False, MIB - SECTOR)])
def test_an_image_of_grub_that_does_not_fit_is_refused(has_uefi, room):
    assert len(BiosLoader.at(layout(has_uefi=has_uefi), bytes(512), bytes(room)).core) == room
    with pytest.raises(BuildError, match="more than its"):
        BiosLoader.at(layout(has_uefi=has_uefi), bytes(512), bytes(room + 1))
