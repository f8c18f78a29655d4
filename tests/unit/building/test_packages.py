from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.building.packages import parse, parse_dpkg_status, render
from lago_images.repository.records.changes import Package

_NAMES = st.from_regex(r"[a-z0-9][a-z0-9+.-]{0,8}", fullmatch=True)
_VERSIONS = st.from_regex(r"[0-9][0-9a-z.+~:-]{0,8}", fullmatch=True)
PACKAGES = st.builds(
    Package, name=_NAMES, version=_VERSIONS, arch=st.sampled_from(["amd64", "all", "noarch"])
)
LICENCES = st.from_regex(r"([A-Za-z0-9.+-]+( (AND|OR) [A-Za-z0-9.+-]+)?)?", fullmatch=True)


def package(name, version, arch="amd64"):
    return Package(name=name, version=version, arch=arch)


@given(st.lists(PACKAGES, max_size=20, unique=True), st.data())
def test_a_rendered_list_is_read_back(packages, data):
    licensed = [replace(package, licence=data.draw(LICENCES)) for package in packages]
    assert parse(render(licensed)) == tuple(sorted(licensed))


@pytest.mark.parametrize(
    "licence",
    ["(none)", "GPL\x1b[31m", "x" * 301],
    ids=["none", "escape", "long"],
)
def test_an_invalid_licence_is_dropped_and_its_package_kept(licence):
    assert [p.licence for p in parse(f"bash 5.2-1 x86_64 {licence}")] == [""]


def test_invalid_package_lines_are_dropped():
    text = (
        "good 1.0 amd64\n<b>evil</b> 1 amd64\n::set-env 1 amd64\ngpg-pubkey 1-2 (none)\nshort 1\n"
    )
    assert [p.name for p in parse(text)] == ["good"]


def test_dpkg_packages_that_are_not_installed_are_dropped():
    status = (
        "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\n"
        "Description: a shell\n Status: not a field\n\n"
        "Package: old\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    assert parse_dpkg_status(status) == (package("bash", "5.2-1"),)
