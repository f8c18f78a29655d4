"""The trust boundary: a record that others wrote is read as a valid value, or refused whole."""

import json
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_images.errors import RepositoryError
from lago_images.repository.records.access import Access, Login
from lago_images.repository.records.fields import ARCH, BUILD_ID, is_line
from lago_images.repository.records.guest_tests import GuestTestRecord, QuarantinedFailure
from lago_images.repository.records.layout import NAME, BuildKey, ReleaseKey
from lago_images.repository.records.manifest import (
    BaseRecord,
    BootTest,
    Disk,
    DiskFile,
    EngineRecord,
    Manifest,
    canonical,
)
from lago_images.repository.records.parsing import LARGEST, DocumentError
from lago_images.repository.records.release import (
    OldRepositoryError,
    PackageDiff,
    Release,
    Released,
    ReleasedImage,
)
from tests.support.builders import bound, layer_on, manifest, release, with_qcow2

TEXT = st.text(max_size=20)
COUNT = st.integers(0, 2**62 - 1)
POSITIVE = st.integers(1, 2**62 - 1)


def hexadecimal(length: int):
    return st.text("0123456789abcdef", min_size=length, max_size=length)


HELD = QuarantinedFailure(what="a.test", problem="b", issue="https://x/", until="2026-12-31")
TESTS = st.builds(
    GuestTestRecord,
    name=TEXT,
    seconds=st.floats(0, 2**30),
    exit_code=st.none() | st.integers(0, 255),
    output=TEXT,
    problem=TEXT,
)
MANIFESTS = st.builds(
    Manifest,
    name=st.from_regex(NAME, fullmatch=True),
    arch=st.from_regex(ARCH, fullmatch=True),
    build_id=st.from_regex(BUILD_ID, fullmatch=True),
    fingerprint=TEXT,
    base=st.builds(BaseRecord, ref=TEXT, digest=TEXT, detail=TEXT),
    disk=st.builds(
        Disk,
        format=st.sampled_from(["qcow2", "raw"]),
        virtual_size=POSITIVE,
        size=POSITIVE,
        compressed_size=POSITIVE,
        sha1=hexadecimal(40),
        sha256=hexadecimal(64),
        sha512=hexadecimal(128),
        plain_sha256=st.none() | hexadecimal(64),
    ),
    commit=TEXT,
    dirty=st.booleans(),
    created=COUNT,
    seconds=COUNT,
    properties=st.dictionaries(st.sampled_from(["name", "notes", "distro"]), TEXT.filter(is_line)),
    boot=st.none()
    | st.builds(
        BootTest,
        seconds=st.floats(0, 2**30),
        accel=TEXT,
        firmware=st.dictionaries(TEXT, st.floats(0, 2**30)),
        again=st.none() | st.floats(0, 2**30),
        checks=st.lists(TEXT, max_size=3).map(tuple),
        tests=st.lists(TESTS, max_size=2).map(tuple),
        quarantined=st.lists(st.just(HELD), max_size=1).map(tuple),
    ),
    packages=st.none() | COUNT,
    tools=st.dictionaries(TEXT, TEXT, max_size=3),
    engine=st.none() | st.builds(EngineRecord, name=TEXT, why=TEXT),
    also=st.just({})
    | st.fixed_dictionaries({"qcow2": st.builds(DiskFile, size=POSITIVE, sha256=hexadecimal(64))}),
)
RELEASED = st.builds(Released, commit=TEXT, dirty=st.booleans(), actor=TEXT, run=TEXT)
RELEASES = st.builds(
    lambda made, number, **more: release(number, made, **more),
    MANIFESTS.filter(lambda made: made.base_key is None),
    POSITIVE,
    released=RELEASED,
    published=COUNT,
    nonce=TEXT,
    reason=TEXT,
) | st.builds(
    Release,
    name=st.from_regex(NAME, fullmatch=True),
    arch=st.from_regex(ARCH, fullmatch=True),
    revision=POSITIVE,
    image=st.none(),
    released=RELEASED,
    published=COUNT,
    nonce=TEXT,
    withdraws=COUNT,
)


@given(MANIFESTS)
def test_a_written_manifest_is_read_back(made):
    assert Manifest.parse(made.to_json(), made.key) == made


@given(RELEASES)
def test_a_written_release_is_read_back(made):
    assert Release.parse(made.to_json(), made.key) == made


def test_a_manifest_from_before_more_was_judged_keeps_its_bytes():
    plain = json.loads(manifest().to_json())
    plain["boot"] = {"seconds": 31.4, "accel": "kvm"}
    for newer in ("engine", "also"):
        assert newer not in plain
    assert "plain_sha256" not in plain["disk"]
    data = canonical(plain)
    assert Manifest.parse(data, manifest().key).to_json() == data


def written(record: Manifest | Release, path: str, value: object) -> bytes:
    """A record's JSON with one field, such as ``disk.size``, replaced."""
    plain = json.loads(record.to_json())
    at, names = plain, path.split(".")
    for name in names[:-1]:
        at = at[name]
    at[names[-1]] = value
    return json.dumps(plain).encode()


def without(record: Manifest | Release, path: str) -> bytes:
    plain = json.loads(record.to_json())
    at, names = plain, path.split(".")
    for name in names[:-1]:
        at = at[name]
    del at[names[-1]]
    return json.dumps(plain).encode()


def parsed(record: Manifest | Release, data: bytes):
    return type(record).parse(data, record.key)  # type: ignore[arg-type]


def where(record: Manifest | Release) -> str:
    return record.key.staging.manifest if isinstance(record, Manifest) else str(record.key)


TEST = GuestTestRecord(name="a.test", exit_code=0)
BOOT = BootTest(
    seconds=9.0,
    accel="kvm",
    firmware={"bios": 9.0},
    again=8.0,
    checks=("network",),
    tests=(TEST,),
    quarantined=(HELD,),
)
MADE = replace(
    with_qcow2(manifest()),
    boot=BOOT,
    engine=EngineRecord(name="appliance", why="a reason"),
)
MADE = replace(MADE, disk=replace(MADE.disk, plain_sha256="a" * 64))
BACK = release(2, None, withdraws=1)
OUT = release(package_changes=PackageDiff(since=1))
OUT = replace(OUT, image=replace(OUT.image, access=Access(logins=(Login(user="root"),))))
NO_TEXT = [None, 7, True, [], {}, "\ud800", "a\udcff"]
NO_COUNT = [None, "7", 1.0, 1.5, True, [], {}, -1, 2**62, 10**30, float("nan"), float("inf")]
NO_SIZE = [*NO_COUNT, 0]
NO_NAME = [*NO_TEXT, "", "../x", "a/b", "a b", "a\n", "-a"]
NO_LINES = [None, 7, "x", {}]
NO_OBJECT = [None, 7, "x", [], [{}]]
WRONG_IN_A_MANIFEST = {
    "name": NO_NAME,
    "arch": [*NO_NAME, "8086"],
    "build_id": NO_NAME,
    "fingerprint": NO_TEXT,
    "base": NO_OBJECT,
    "base.ref": NO_TEXT,
    "base.digest": NO_TEXT,
    "base.detail": NO_TEXT,
    "base.build": [wrong for wrong in NO_NAME if wrong != ""],
    "base.revision": [wrong for wrong in NO_SIZE if wrong is not None],
    "disk": NO_OBJECT,
    "disk.format": [*NO_TEXT, "", "vmdk", "qcow2\n"],
    "disk.virtual_size": NO_SIZE,
    "disk.size": NO_SIZE,
    "disk.compressed_size": NO_SIZE,
    "disk.sha1": [*NO_TEXT, "", "g" * 40, "a" * 39, "a" * 41, "A" * 40, "a" * 40 + "\n"],
    "disk.sha256": [*NO_TEXT, "a" * 40, "a" * 64 + "\n"],
    "disk.sha512": [*NO_TEXT, "a" * 64, "a" * 128 + "\n"],
    "disk.plain_sha256": [*NO_TEXT[1:], "a" * 40, "a" * 64 + "\n"],
    "commit": NO_TEXT,
    "dirty": [None, 0, 1, "true", []],
    "created": NO_COUNT,
    "seconds": NO_COUNT,
    "properties": [None, 7, [], {"name": 7}, {"name": None}, {"distro": ["x"]}],
    "boot": [7, "x", []],
    "boot.seconds": [None, "1", True, -0.1, 2**31, 10**400, float("nan"), float("inf")],
    "boot.accel": NO_TEXT,
    "boot.firmware": [None, 7, [], {"bios": "1"}, {"bios": -1}, {"bios": None}, {"\ud800": 1}],
    "boot.again": ["1", True, -0.1, 2**31, float("nan")],
    "boot.checks": NO_LINES,
    "boot.tests": [None, 7, {"name": "a"}],
    "boot.quarantined": [None, 7, "x"],
    "packages": [wrong for wrong in NO_COUNT if wrong is not None],
    "tools": [None, 7, [], {"qemu": 8}, {"qemu": "\ud800"}, {"\ud800": "8"}],
    "engine": [7, "x", []],
    "engine.name": NO_TEXT,
    "engine.why": NO_TEXT,
    "also": [
        *(None, 7, [], {"vmdk": {"size": 1, "sha256": "a" * 64}}, {"qcow2": 7}, {"qcow2": {}}),
        *({"qcow2": {"size": 0, "sha256": "a" * 64}}, {"qcow2": {"size": 1, "sha256": "A" * 64}}),
    ],
}
WRONG_IN_A_RELEASE = {
    "name": NO_NAME,
    "arch": NO_NAME,
    "revision": NO_SIZE,
    "image": [wrong for wrong in NO_OBJECT if wrong is not None],
    "image.build": NO_NAME,
    "image.folder": NO_NAME,
    "image.manifest": [wrong for wrong in NO_OBJECT if wrong != [{}]],
    "image.objects": [None, 7, [], {"a/b": {}}, {"a": 7}, {"a": {"sha256": "0", "size": 1}}],
    "image.base": [7, "x", []],
    "image.access": [7, "x", []],
    "image.access.logins": [None, 7, "x", {}],
    "image.access.cloud_init": [None, 0, 1, "true", []],
    "released": NO_OBJECT,
    "released.commit": NO_TEXT,
    "released.dirty": [None, 0, 1, "true", []],
    "released.actor": NO_TEXT,
    "released.run": NO_TEXT,
    "released.repository": NO_TEXT,
    "published": NO_COUNT,
    "nonce": NO_TEXT,
    "withdraws": [wrong for wrong in NO_COUNT if wrong is not None],
    "reason": NO_TEXT,
    "package_changes": [7, "x", []],
    "package_changes.since": NO_SIZE,
    "package_changes.added": NO_LINES,
    "package_changes.removed": NO_LINES,
    "package_changes.upgraded": NO_LINES,
    "package_changes.omitted": NO_COUNT,
}
WRONG = [
    *((MADE, path, value) for path, values in WRONG_IN_A_MANIFEST.items() for value in values),
    *((OUT, path, value) for path, values in WRONG_IN_A_RELEASE.items() for value in values),
]


def test_a_test_that_was_not_run_is_written_as_it_is_read():
    """Else the publisher takes the manifest for one that no builder wrote."""
    assert MADE.boot is not None
    made = replace(MADE, boot=replace(MADE.boot, tests=(GuestTestRecord(name="a.test"),)))
    assert Manifest.parse(made.to_json(), made.key).to_json() == made.to_json()


def test_every_field_is_tested_with_invalid_values():
    nested = {"disk": Disk, "base": BaseRecord, "boot": BootTest, "engine": EngineRecord}
    names = {each.name for each in fields(Manifest)}
    names |= {f"{name}.{each.name}" for name, kind in nested.items() for each in fields(kind)}
    assert names == WRONG_IN_A_MANIFEST.keys()
    nested = {
        "image": ReleasedImage,
        "image.access": Access,
        "released": Released,
        "package_changes": PackageDiff,
    }
    names = {each.name for each in fields(Release)}
    names |= {f"{name}.{each.name}" for name, kind in nested.items() for each in fields(kind)}
    assert names == WRONG_IN_A_RELEASE.keys()


@pytest.mark.parametrize(("record", "path", "value"), WRONG, ids=ascii)
def test_an_invalid_field_is_refused_with_its_key_and_path(record, path, value):
    with pytest.raises(DocumentError) as caught:
        parsed(record, written(record, path, value))
    assert caught.value.message.startswith(
        f"{where(record)} is not a {type(record).__name__.lower()}: "
    )
    [problem] = caught.value.problems
    assert problem.startswith(f"{path} is ")


OPTIONAL = {
    *("base.detail", "base.build", "base.revision", "properties", "packages", "tools"),
    *("boot", "boot.firmware", "boot.again", "boot.checks", "boot.tests", "boot.quarantined"),
    *("engine", "engine.why", "disk.plain_sha256", "also"),
    *("image.access", "image.access.logins", "image.access.cloud_init"),
    *("released.dirty", "released.actor", "released.run", "released.repository"),
    *("image.base", "withdraws", "reason"),
    *("package_changes", "package_changes.added", "package_changes.removed"),
    *("package_changes.upgraded", "package_changes.omitted"),
}


@pytest.mark.parametrize(
    ("record", "path"),
    [
        *((MADE, path) for path in WRONG_IN_A_MANIFEST),
        *((OUT, path) for path in WRONG_IN_A_RELEASE),
    ],
    ids=ascii,
)
def test_only_fields_with_a_default_may_be_missing(record, path):
    if path in OPTIONAL:
        assert parsed(record, without(record, path)).key == record.key
        return
    parent, _, name = path.rpartition(".")
    with pytest.raises(DocumentError, match=f"{parent or 'it'} has no {name}"):
        parsed(record, without(record, path))


def test_an_invalid_line_of_the_package_changes_is_reported():
    data = written(OUT, "package_changes.added", ["bash 5.2 amd64", "\ud800"])
    with pytest.raises(DocumentError) as caught:
        parsed(OUT, data)
    [problem] = caught.value.problems
    assert problem.startswith("package_changes.added[1] is ")


def test_all_invalid_fields_are_listed_at_once():
    plain = json.loads(MADE.to_json())
    plain["created"], plain["disk"]["sha1"] = "soon", "x"
    del plain["commit"], plain["disk"]["size"]
    plain["boot"]["more"] = plain["extra"] = 1
    with pytest.raises(DocumentError) as caught:
        Manifest.parse(json.dumps(plain).encode(), MADE.key)
    assert sorted(caught.value.problems) == [
        "boot has unknown keys: ['more']",
        "created is 'soon', not a whole number, 0 or more",
        "disk has no size",
        "disk.sha1 is 'x', not 40 hexadecimal digits",
        "it has no commit",
        "it has unknown keys: ['extra']",
    ]


@pytest.mark.parametrize("record", [MADE, OUT], ids=["manifest", "release"])
@pytest.mark.parametrize("schema", [3, 0, "1", True, 1.5, [], {"x": 1}], ids=ascii)
def test_an_unknown_schema_is_refused_with_a_hint(record, schema):
    knows = f"of schema .*; this lago-images knows {record.SCHEMA}"
    with pytest.raises(RepositoryError, match=knows) as caught:
        parsed(record, written(record, "schema", schema))
    assert caught.value.hint == "upgrade lago-images"


@pytest.mark.parametrize("record", [MADE, OUT], ids=["manifest", "release"])
def test_a_record_without_a_schema_is_refused(record):
    with pytest.raises(DocumentError, match="it has no schema"):
        parsed(record, without(record, "schema"))


@pytest.mark.parametrize("field", ["name", "arch", "build_id"])
def test_a_manifest_must_match_its_key(field):
    other = replace(MADE, **{field: "other"})  # type: ignore[arg-type]
    with pytest.raises(DocumentError, match=f"it is the manifest of {other.key.staging.folder}"):
        Manifest.parse(other.to_json(), MADE.key)


@pytest.mark.parametrize("change", [{"name": "other"}, {"arch": "other"}, {"revision": 7}])
def test_a_release_must_match_its_key(change):
    other = replace(OUT, **change)
    with pytest.raises(DocumentError, match=f"it is release {other.key}"):
        Release.parse(other.to_json(), OUT.key)


@pytest.mark.parametrize("key", [{"name": ".."}, {"name": "a b"}, {"arch": "8086"}])
def test_no_record_is_valid_under_an_invalid_key(key):
    place = {"name": MADE.name, "arch": MADE.arch} | key
    built, released = replace(MADE, **key).to_json(), replace(OUT, **key).to_json()
    with pytest.raises(DocumentError, match="not an "):
        Manifest.parse(built, BuildKey(**place, build_id=MADE.build_id))
    with pytest.raises(DocumentError, match="not an "):
        Release.parse(released, ReleaseKey(**place, revision=1))


def test_a_release_of_the_older_layout_is_refused_with_a_hint():
    with pytest.raises(OldRepositoryError, match="of an older lago-images, whose public") as caught:
        Release.parse(b'{"schema": 1, "build": "b1"}', OUT.key)
    assert "new, empty repository" in caught.value.hint


BASE = manifest("base", "b0")
LAYER = release(1, manifest("layer", base=layer_on(BASE)), base=bound(BASE, 1))


@pytest.mark.parametrize(
    ("record", "path", "value", "problem"),
    [
        (OUT, "image.manifest.packages", 7, "its manifest does not have the sha256 in objects"),
        (OUT, "image.manifest.commit", "c9", "its manifest does not have the sha256 in objects"),
        (OUT, "image.build", "b2", "it is the manifest of builds/debian-12/x86_64/b1/"),
        (OUT, "image.folder", "b2.0123abcd", "its folder b2.0123abcd is not one of the build b1"),
        (OUT, "image.objects", {}, "its objects lack debian-12.qcow2.xz"),
        (OUT, "image.base", asdict(bound(BASE, 1)), "only a layer's release names"),
        (LAYER, "image.base", None, "only a layer's release names"),
        (LAYER, "image.base.build", "b1", "its base is not the build that the manifest names"),
        (LAYER, "image.base.name", "other", "its base is not the build that the manifest names"),
        (LAYER, "image.base.sha256", "0" * 64, "its base does not have the digest"),
    ],
    ids=str,
)
def test_the_parts_of_a_release_must_agree(record, path, value, problem):
    assert Release.parse(record.to_json(), record.key) == record
    with pytest.raises(DocumentError, match=problem):
        Release.parse(written(record, path, value), record.key)


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"size": 1}])
@pytest.mark.parametrize("name", ["debian-12.qcow2.xz", "manifest.json"])
def test_a_release_binds_the_disk_and_the_manifest(name, change):
    plain = json.loads(OUT.to_json())
    plain["image"]["objects"][name] |= change
    if name == "manifest.json" and "size" in change:
        return
    with pytest.raises(DocumentError, match=r"objects\["):
        Release.parse(json.dumps(plain).encode(), OUT.key)


def test_a_release_of_another_image_is_refused():
    plain = json.loads(OUT.to_json())
    plain["image"]["manifest"]["name"] = "other"
    with pytest.raises(DocumentError, match="its manifest is of other"):
        Release.parse(json.dumps(plain).encode(), OUT.key)


@pytest.mark.parametrize("change", [{"image": None}, {"withdraws": 1}])
def test_a_release_either_names_a_build_or_withdraws_a_revision(change):
    with pytest.raises(DocumentError, match="either name a build or withdraw"):
        Release.parse(replace(OUT, **change).to_json(), OUT.key)
    assert Release.parse(BACK.to_json(), BACK.key) == BACK


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({"name": "a\n[evil]"}, "property name is not one printable line"),
        ({"notes[fr]": "a\u2028b"}, r"property notes\[fr\] is not one printable line"),
        ({"hidden": "maybe"}, "property hidden is 'maybe'"),
        ({"aliases": "ok ../x"}, "property aliases has '../x'"),
        ({"distro": "\ud800"}, "property 'distro' is not UTF-8"),
        ({"\ud800": "x"}, "is not UTF-8"),
    ],
)
def test_properties_cannot_forge_lines_of_rendered_files(properties, problem):
    with pytest.raises(DocumentError, match=problem):
        Manifest.parse(written(MADE, "properties", properties), MADE.key)


@pytest.mark.parametrize("record", [MADE, OUT], ids=["manifest", "release"])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON: line 1, column 1"),
        (b"{\n", "not JSON: line 2, column 1"),
        (b"\xff\xfe{}", "it is no text"),
        (b'{"name": "\xed\xa0\x80"}', "it is no text"),
        ("{}".encode("utf-16"), "it is no text"),
        ("\ufeff{}".encode(), "not JSON: line 1, column 1"),
        (b'{"schema": 1} {}', "not JSON: line 1, column 15"),
        (b'{"schema": 1, "schema": 1}', "it has 'schema' twice"),
        (b'{"a": {"x": 1, "y": 2, "x": 3}}', "it has 'x' twice"),
        (b"[" * 1000 + b"]" * 1000, "recursion"),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "recursion"),
        (b'{"schema": 1' + b"0" * 5000 + b"}", "4300 digits"),
        (b" " * (LARGEST + 1), f"more than the {LARGEST} that are read"),
        (b"[]", "it has no schema"),
        (b"7", "it has no schema"),
        (b"null", "it has no schema"),
        (b'"x"', "it has no schema"),
    ],
    ids=lambda value: ascii(value[:12]),
)
def test_bytes_that_are_no_document_are_refused_with_the_key(record, data, reason):
    with pytest.raises(RepositoryError) as caught:
        parsed(record, data)
    assert caught.value.message.startswith(f"{where(record)} is not a ")
    assert reason in caught.value.message


@pytest.mark.parametrize("record", [MADE, OUT], ids=["manifest", "release"])
def test_nesting_numbers_and_error_messages_are_bounded(record):
    deep = written(record, "arch", "@").replace(b'"@"', b"[" * 900 + b"]" * 900)
    with pytest.raises(RepositoryError) as caught:
        parsed(record, deep)
    assert len(caught.value.message) < 300
    for value in ("x" * 100_000, ["x" * 1000] * 1000):
        with pytest.raises(DocumentError, match="name is ") as caught:
            parsed(record, written(record, "name", [value]))
        assert len(caught.value.message) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from([MADE, OUT, BACK]), st.data())
def test_any_value_in_any_field_gives_a_valid_record_or_one_error(record, data):
    names = [each.name for each in fields(record)]
    path = data.draw(st.sampled_from([*names, "schema", "new"]))
    changed = written(record, path, data.draw(JSON))
    try:
        found = parsed(record, changed)
    except RepositoryError as error:
        message = error.message
    else:
        assert parsed(record, found.to_json()) == found
        return
    assert message.startswith(where(record))
