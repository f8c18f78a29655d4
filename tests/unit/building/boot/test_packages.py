"""What the boot test makes of a guest's answer about its packages."""

from lago_images.building import packages
from lago_images.building.boot.boot_test import _installed


def listed(*lines: str) -> list[tuple[str, str]]:
    parsed = packages.parse("\n".join(_installed(lines)))
    return [(package.name, package.licence) for package in parsed]


def test_removed_dpkg_packages_are_skipped_and_licences_are_unknown():
    assert listed("installed bash 5.2-1 amd64", "config-files old 1 amd64") == [("bash", "")]


def test_rpm_packages_have_licences_and_its_keys_are_skipped():
    assert listed(
        "installed bash 5.2-1.fc44 x86_64 GPL-3.0-or-later",
        "installed gpg-pubkey 1-2 (none) pubkey",
        "installed odd 1-1 noarch (none)",
    ) == [("bash", "GPL-3.0-or-later"), ("odd", "")]
