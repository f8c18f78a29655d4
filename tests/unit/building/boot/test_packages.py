"""What the boot test makes of a guest's answer about its packages."""

from lago_images.building import packages
from lago_images.building.boot.boot_test import _installed


def listed(*lines: str) -> list[tuple[str, str]]:
    parsed = packages.parse("\n".join(_installed(lines)))
    return [(package.name, package.licence) for package in parsed]


def test_dpkg_lists_what_was_removed_too_and_knows_no_licence():
    assert listed("installed bash 5.2-1 amd64", "config-files old 1 amd64") == [("bash", "")]


def test_rpm_knows_licences_and_lists_its_keys_as_packages():
    assert listed(
        "installed bash 5.2-1.fc44 x86_64 GPL-3.0-or-later",
        "installed gpg-pubkey 1-2 (none) pubkey",
        "installed odd 1-1 noarch (none)",
    ) == [("bash", "GPL-3.0-or-later"), ("odd", "")]
