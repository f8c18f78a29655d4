import json
import re
from functools import cache

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from packageurl import PackageURL

from lago_images.building import packages as contents
from lago_images.building.bases.prepared import Package as Installed
from lago_images.errors import RepositoryError
from lago_images.repository.statements import sbom
from tests.support.builders import manifest

PACKAGES = b"bash 5.2.15-2+b7 amd64\nlogin 1:4.13+dfsg1-1 amd64\ntzdata 2024a-0+deb12u1 all\n"


@cache
def validator():
    return JsonStrictValidator(SchemaVersion.V1_6)


def made(packages=PACKAGES, **more):
    count = None if packages is None else packages.count(b"\n")
    data = sbom.render(manifest(packages=count, **more), packages)
    assert validator().validate_str(data.decode()) is None
    return json.loads(data)


def urls(plain):
    return [one["purl"] for one in plain["components"] if "purl" in one]


def test_the_sbom_matches_the_cyclonedx_schema():
    """What ``made`` asserts can fail."""
    plain = made()
    plain["components"][0]["licence"] = "GPL"
    assert validator().validate_str(json.dumps(plain)) is not None


def test_the_image_is_the_subject_of_the_sbom():
    of = manifest(packages=3, tools={"lago-images": "0.1"})
    plain = made(tools={"lago-images": "0.1"})
    image = plain["metadata"]["component"]
    assert (image["name"], image["version"]) == ("debian-12", "b1")
    assert image["hashes"] == [
        {"alg": "SHA-256", "content": of.disk.sha256},
        {"alg": "SHA-512", "content": of.disk.sha512},
    ]
    assert {one["name"]: one["value"] for one in image["properties"]} == {
        "lago-images:arch": "x86_64",
        "lago-images:commit": "c1",
        "lago-images:dirty": "false",
        "lago-images:file": "debian-12.qcow2.xz",
        "lago-images:fingerprint": "sha256:f1",
        "lago-images:packages": "3",
    }
    assert plain["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    [tool] = plain["metadata"]["tools"]["components"]
    assert (tool["name"], tool["version"]) == ("lago-images", "0.1")


def test_every_package_is_a_component_of_the_image():
    plain = made()
    expected = [
        "pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64&distro=debian-12",
        "pkg:deb/debian/login@1:4.13%2Bdfsg1-1?arch=amd64&distro=debian-12",
        "pkg:deb/debian/tzdata@2024a-0%2Bdeb12u1?arch=all&distro=debian-12",
    ]
    assert urls(plain) == expected
    [system] = [one for one in plain["components"] if one["type"] == "operating-system"]
    assert (system["name"], system["version"]) == ("debian", "12")
    [contained] = [one["dependsOn"] for one in plain["dependencies"] if "dependsOn" in one]
    assert contained == [*expected, "system"]


def test_the_same_image_gives_the_same_bytes():
    of = manifest(packages=3)
    other_order = b"".join(reversed(PACKAGES.splitlines(keepends=True)))
    assert sbom.render(of, PACKAGES) == sbom.render(of, other_order)


def test_another_build_has_another_serial_number():
    one, two = (made(build_id=build)["serialNumber"] for build in ("b1", "b2"))
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", one)
    assert one != two


@pytest.mark.parametrize(
    ("properties", "url"),
    [
        ({"osinfo": "debian12"}, "pkg:deb/debian/p@1:2-3?arch=x86_64&distro=debian-12"),
        ({"osinfo": "ubuntu22.04"}, "pkg:deb/ubuntu/p@1:2-3?arch=x86_64&distro=ubuntu-22.04"),
        ({"osinfo": "fedora44"}, "pkg:rpm/fedora/p@2-3?arch=x86_64&distro=fedora-44&epoch=1"),
        ({"distro": "fc44"}, "pkg:rpm/fedora/p@2-3?arch=x86_64&distro=fedora-44&epoch=1"),
        (
            {"osinfo": "centos-stream9", "distro": "el9"},
            "pkg:rpm/centos/p@2-3?arch=x86_64&distro=centos-9&epoch=1",
        ),
        (
            {"osinfo": "almalinux8", "distro": "el8"},
            "pkg:rpm/almalinux/p@2-3?arch=x86_64&distro=almalinux-8&epoch=1",
        ),
        ({"osinfo": "rhel9.2"}, "pkg:rpm/redhat/p@2-3?arch=x86_64&distro=rhel-9.2&epoch=1"),
        ({"osinfo": "alpinelinux3.19"}, "pkg:apk/alpine/p@1:2-3?arch=x86_64&distro=alpine-3.19"),
        ({"distro": "debian"}, "pkg:deb/debian/p@1:2-3?arch=x86_64"),
        ({"osinfo": "cirros0.3.5", "distro": "cirros"}, "pkg:generic/p@1:2-3?arch=x86_64"),
        ({"distro": "el9"}, "pkg:generic/p@1:2-3?arch=x86_64"),
        ({}, "pkg:generic/p@1:2-3?arch=x86_64"),
    ],
)
def test_package_urls_name_the_distribution(properties, url):
    assert urls(made(b"p 1:2-3 x86_64\n", properties=properties)) == [url]


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", [{"license": {"id": "MIT"}}]),
        ("GPL-2.0-or-later AND MIT", [{"expression": "GPL-2.0-or-later AND MIT"}]),
        ("GPLv2+ and BSD", [{"license": {"name": "GPLv2+ and BSD"}}]),
        ("<script>", [{"license": {"name": "<script>"}}]),
    ],
)
def test_licences_are_those_of_the_package_manager(licence, expected):
    plain = made(f"bash 5.2-1.fc44 x86_64 {licence}\nother 1-1.fc44 noarch\n".encode())
    licences = {one["name"]: one.get("licenses") for one in plain["components"]}
    assert licences["bash"] == expected
    assert licences["other"] is None


def test_several_versions_of_a_package_are_all_listed():
    kernels = b"kernel 6.1-1.fc44 x86_64\nkernel 6.2-1.fc44 x86_64\n"
    assert len(urls(made(kernels, properties={"osinfo": "fedora44"}))) == 2


INSTALLED = st.builds(
    Installed,
    name=st.from_regex(r"[A-Za-z0-9][\w+.()~-]{0,20}", fullmatch=True),
    version=st.from_regex(r"[\w+.:~^()-]{1,20}", fullmatch=True),
    arch=st.from_regex(r"[\w-]{1,10}", fullmatch=True),
)


@settings(max_examples=60)
@given(st.sets(INSTALLED, max_size=5), st.sampled_from(["debian12", "fedora44", "other"]))
def test_any_package_list_gives_a_valid_sbom_that_is_read_back(packages, osinfo):
    plain = made(contents.render(packages).encode(), properties={"osinfo": osinfo})
    back = set()
    for one in plain.get("components", []):
        if one["type"] == "library":
            url = PackageURL.from_string(one["purl"])
            assert url.name.lower() == one["name"].lower()
            back.add(
                Installed(name=one["name"], version=one["version"], arch=url.qualifiers["arch"])
            )
    assert back == packages


def test_the_sbom_of_an_image_without_a_package_list_says_so():
    plain = made(None)
    values = {one["name"]: one["value"] for one in plain["metadata"]["component"]["properties"]}
    assert values["lago-images:packages"] == "unknown"
    assert urls(plain) == []
    made(None, properties={})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"bash 5.2\n", 1),
        (b"bash 5.2 amd64\n\n", 2),
        (b"bash 5.2 amd64\nbash  5.2 amd64\n", 2),
        (b"bash 5.2 amd64\n<script> 1 amd64\n", 2),
        (b"bash 5.2 \xff\n", 1),
        (b"bash 5.2 amd64\nbash 5.2 amd64\n", 2),
    ],
)
def test_an_invalid_package_line_is_refused_with_its_number(text, line):
    with pytest.raises(RepositoryError) as caught:
        sbom.render(manifest(packages=text.count(b"\n")), text)
    assert caught.value.message.startswith(f"builds/debian-12/x86_64/b1/packages.txt:{line}: ")


@pytest.mark.parametrize(("count", "packages"), [(4, PACKAGES), (None, PACKAGES), (3, None)])
def test_a_package_list_other_than_the_manifests_is_refused(count, packages):
    with pytest.raises(RepositoryError, match=r"packages, and|no list of packages, and"):
        sbom.render(manifest(packages=count), packages)


def test_an_impossible_time_is_refused():
    with pytest.raises(RepositoryError, match="in no year"):
        sbom.render(manifest(packages=3, created=2**61), PACKAGES)
