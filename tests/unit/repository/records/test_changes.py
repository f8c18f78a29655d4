from hypothesis import given
from hypothesis import strategies as st

from lago_images.repository.records.changes import (
    Package,
    PropertyChange,
    VersionChange,
    compare,
    compare_packages,
)
from lago_images.repository.records.manifest import BaseRecord
from tests.support.builders import manifest
from tests.unit.building.test_packages import PACKAGES, package


@given(st.lists(PACKAGES, max_size=20), st.lists(PACKAGES, max_size=20))
def test_a_difference_leads_from_the_old_to_the_new(old, new):
    difference = compare_packages(old, new)
    result = set(old) - set(difference.removed) | set(difference.added)
    for change in difference.upgraded:
        was = {p for p in result if p.name == change.name and p.version == change.old}
        replaced = {p for p in was if package(p.name, change.new, p.arch) in set(new)}
        assert replaced
        result -= replaced
        result |= {package(p.name, change.new, p.arch) for p in replaced}
    assert result == set(new)
    assert bool(difference) == (set(old) != set(new))


def test_upgrades_are_distinguished_from_versions_side_by_side():
    old = [package("bash", "5.1"), package("kernel", "6.1"), package("gone", "1")]
    new = [package("bash", "5.2"), package("kernel", "6.1"), package("kernel", "6.2")]
    difference = compare_packages(old, new)
    assert difference.upgraded == (VersionChange(name="bash", old="5.1", new="5.2"),)
    assert difference.added == (package("kernel", "6.2"),)
    assert difference.removed == (package("gone", "1"),)


def test_equal_builds_differ_in_nothing():
    changes = compare(manifest(), manifest(build_id="b2"), (), ())
    assert not changes.packages
    assert changes.properties == ()
    assert changes.bases is None
    assert changes.growth == 0


def test_added_removed_and_changed_properties_are_listed():
    old = manifest(properties={"name": "Debian", "notes": "old", "size": "6G"})
    new = manifest(properties={"name": "Debian", "notes": "new", "osinfo": "debian12"})
    assert compare(old, new).properties == (
        PropertyChange(name="notes", old="old", new="new"),
        PropertyChange(name="osinfo", old=None, new="debian12"),
        PropertyChange(name="size", old="6G", new=None),
    )


def test_a_base_of_the_same_name_and_other_bytes_is_another_base():
    old = manifest(base=BaseRecord(ref="layer:base", digest="sha256:" + "0" * 64, revision=1))
    new = manifest(base=BaseRecord(ref="layer:base", digest="sha256:" + "1" * 64, revision=2))
    assert compare(old, new).bases == (old.base, new.base)
    assert compare(old, old).bases is None


def test_package_changes_are_unknown_without_both_lists():
    packages = (Package(name="bash", version="5.2", arch="amd64"),)
    assert compare(manifest(), manifest(), None, packages).packages is None
    assert compare(manifest(), manifest(), packages, None).packages is None
    assert compare(manifest(), manifest(), (), packages).packages.added == packages
