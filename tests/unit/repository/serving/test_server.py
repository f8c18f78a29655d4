import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.repository.rendering import client_setup
from lago_images.repository.rendering.site import PublicKey
from lago_images.repository.serving.server import served, span


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("/", "index.html"),
        ("/index", "index"),
        ("/index.asc?now", "index.asc"),
        ("/repo.metadata", "repo.metadata"),
        ("/images.json", "images.json"),
        ("/feed.xml", "feed.xml"),
        ("/catalogue/debian-12.html", "catalogue/debian-12.html"),
        ("/catalogue/debian-12.xml", "catalogue/debian-12.xml"),
        ("/latest/debian-12.x86_64.json", "latest/debian-12.x86_64.json"),
        ("/catalogue/debian-12.js", None),
        ("/catalogue/.html", None),
        ("/catalogue/a/b.html", None),
        ("/catalogue/a%00.html", None),
        ("/latest/", None),
        (f"/index-{'0A' * 20}.asc", f"index-{'0A' * 20}.asc"),
        (f"/key-{'0A' * 20}.asc", f"key-{'0A' * 20}.asc"),
        ("/key-secret.asc", None),
        ("/images/a/x86_64/1/a.qcow2.xz", "images/a/x86_64/1/a.qcow2.xz"),
        ("/images/a/x86_64/1/%61.qcow2.xz", "images/a/x86_64/1/a.qcow2.xz"),
        ("/releases/a/x86_64/1.json", "releases/a/x86_64/1.json"),
        ("/state/published.json", None),
        ("/state/cache.json", None),
        ("/.lock", None),
        ("/images/", None),
        ("/builds/a/x86_64/1/a.qcow2.xz", None),
        ("/images/.tmp/x", None),
        ("/images/a/.part", None),
        ("/images/../../etc/passwd", None),
        ("/images/%2e%2e/secret", None),
        ("/images//etc/passwd", None),
        ("/images/a%00b", None),
        ("/images/a%0d%0aSet-Cookie:x", None),
        ("/lago-images.toml", None),
        ("//index", None),
        ("//[", None),
        ("http://h/index", None),
    ],
)
def test_only_published_objects_of_the_layout_are_served(target, key):
    assert served(target) == key


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, None),
        ("bytes=" + "9" * 5000 + "-", None),
        ("bytes=0-0", range(1)),
        ("bytes=0-", range(100)),
        ("bytes=10-19", range(10, 20)),
        ("bytes=90-1000", range(90, 100)),
        ("bytes=-5", range(95, 100)),
        ("bytes=-500", range(100)),
        ("bytes=-", None),
        ("bytes=9-3", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_ranges_follow_rfc_9110(asked, expected):
    assert span(asked, 100) == expected


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_behind_the_end_is_unsatisfiable(asked):
    part = span(asked, 100)
    assert part is not None
    assert not part


@given(st.text(max_size=40), st.integers(0, 10**6))
def test_no_range_header_leads_outside_the_object(asked, size):
    part = span(asked, size)
    assert part is None or not part or (part.start >= 0 and part.stop <= size)


@given(st.text(alphabet="./%2e0aAimagesx\\", max_size=60))
def test_no_request_target_leaves_the_repository(target):
    key = served("/images/" + target)
    assert key is None or ".." not in key.split("/")


def _published(**changes):
    templates = (client_setup.Template(name="debian-12"),)
    values = {"name": "my images", "templates": templates, "bases": ("http://h/",)}
    return client_setup.ClientView(**{**values, **changes})


def _used(**changes):
    return [each.text for each in client_setup.use(_published(**changes), "http://h", "x86_64")]


def test_the_commands_for_an_unsigned_repository_skip_signature_checks():
    virt_builder, lago = _used()
    assert "--source http://h/index --no-check-signature debian-12" in virt_builder
    assert "--template-repo-path http://h/repo.metadata" in lago


def test_the_commands_for_a_signed_repository_import_its_key():
    text, _ = _used(key=PublicKey(fingerprint="AB" * 20, armour=b""))
    assert f"http://h/key-{'AB' * 20}.asc | gpg --import" in text
    assert f"--source http://h/index-{'AB' * 20}.asc --fingerprint {'AB' * 20} debian-12" in text
    assert "--no-check-signature" not in text


def test_the_commands_take_an_image_for_this_machine_and_name_its_architecture():
    arm = client_setup.Template(name="arm", arch="aarch64", version="v7-aarch64")
    plain = client_setup.Template(name="plain", arch="x86_64", version="v1")
    virt_builder, _ = _used(templates=(arm, plain))
    assert "--no-check-signature plain --arch x86_64 --format qcow2" in virt_builder
    virt_builder, _ = _used(templates=(arm,))
    assert "--no-check-signature arm --arch aarch64 --format qcow2" in virt_builder
    _, lago = client_setup.use(_published(templates=(arm,)), "http://h", "aarch64")
    assert lago.about.endswith("here arm; template_version is v7-aarch64")


def test_what_lago_can_ask_for_has_the_newest_version_of_each_architecture():
    versions = {
        "v1": {"source": "r", "handle": "images/a/x86_64/b1/a.qcow2", "timestamp": 1},
        "v2": {"source": "r", "handle": "images/a/x86_64/b2/a.qcow2", "timestamp": 2},
        "v1-aarch64": {"source": "r", "handle": "images/a/aarch64/b3/a.qcow2", "timestamp": 3},
    }
    sources = {"r": {"type": "http", "args": {"baseurl": "http://h"}}}
    templates = {"a": {"versions": versions}, "b": {"versions": {}}}
    plain = {"name": "r", "sources": sources, "templates": templates}
    described = client_setup.describe(json.dumps(plain).encode())
    assert [(each.name, each.arch, each.version) for each in described.templates] == [
        ("a", "aarch64", "v1-aarch64"),
        ("a", "x86_64", "v2"),
        ("b", "", ""),
    ]


def test_a_base_url_that_leads_elsewhere_is_reported():
    assert client_setup.elsewhere(_published(), "http://h") == []
    assert client_setup.elsewhere(_published(), "http://other") == ["http://h/"]
