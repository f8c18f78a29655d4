from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.building.bases.prepared import Package
from lago_images.building.packages import Change, compare, parse, parse_dpkg_status, render

_NAMES = st.from_regex(r"[a-z0-9][a-z0-9+.-]{0,8}", fullmatch=True)
_VERSIONS = st.from_regex(r"[0-9][0-9a-z.+~:-]{0,8}", fullmatch=True)
PACKAGES = st.builds(
    Package, name=_NAMES, version=_VERSIONS, arch=st.sampled_from(["amd64", "all", "noarch"])
)
LICENCES = st.from_regex(r"([A-Za-z0-9.+-]+( (AND|OR) [A-Za-z0-9.+-]+)?)?", fullmatch=True)


def package(name, version, arch="amd64"):
    return Package(name=name, version=version, arch=arch)


@given(st.lists(PACKAGES, max_size=20, unique=True), st.data())
def test_what_is_rendered_is_read_back(packages, data):
    licensed = [replace(package, licence=data.draw(LICENCES)) for package in packages]
    assert parse(render(licensed)) == tuple(sorted(licensed))


@pytest.mark.parametrize(
    "licence",
    ["(none)", "GPL\x1b[31m", "x" * 301],
    ids=["none", "escape", "long"],
)
def test_a_licence_that_is_none_is_left_out_and_the_package_kept(licence):
    assert [p.licence for p in parse(f"bash 5.2-1 x86_64 {licence}")] == [""]


@given(st.lists(PACKAGES, max_size=20), st.lists(PACKAGES, max_size=20))
def test_a_difference_leads_from_the_old_to_the_new(old, new):
    difference = compare(old, new)
    result = set(old) - set(difference.removed) | set(difference.added)
    for change in difference.upgraded:
        was = {p for p in result if p.name == change.name and p.version == change.old}
        replaced = {p for p in was if package(p.name, change.new, p.arch) in set(new)}
        assert replaced
        result -= replaced
        result |= {package(p.name, change.new, p.arch) for p in replaced}
    assert result == set(new)
    assert bool(difference) == (set(old) != set(new))


def test_upgrades_are_told_apart_from_versions_side_by_side():
    old = [package("bash", "5.1"), package("kernel", "6.1"), package("gone", "1")]
    new = [package("bash", "5.2"), package("kernel", "6.1"), package("kernel", "6.2")]
    difference = compare(old, new)
    assert difference.upgraded == (Change(name="bash", old="5.1", new="5.2"),)
    assert difference.added == (package("kernel", "6.2"),)
    assert difference.removed == (package("gone", "1"),)


def test_what_a_guest_cannot_mean_is_left_out():
    text = (
        "good 1.0 amd64\n<b>evil</b> 1 amd64\n::set-env 1 amd64\ngpg-pubkey 1-2 (none)\nshort 1\n"
    )
    assert [p.name for p in parse(text)] == ["good"]


def test_dpkg_knows_more_packages_than_are_installed():
    status = (
        "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\n"
        "Description: a shell\n Status: not a field\n\n"
        "Package: old\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    assert parse_dpkg_status(status) == (package("bash", "5.2-1"),)
