import json

import pytest
from hypothesis import given, settings

from lago_images.repository.records.state import read
from lago_images.repository.rendering import catalogue, index, lago, sums
from lago_images.repository.rendering.render import render
from lago_images.repository.rendering.site import PublicKey
from lago_images.repository.rendering.views import Shown
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import (
    PROPERTIES,
    SITE,
    manifest,
    publish_by_hand,
    put_release,
    release,
    spec,
)
from tests.support.strategies import states

LIST = DirectoryStore.list
KEY = PublicKey(fingerprint="AB" * 20, armour=b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n")


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(path=tmp_path)


@pytest.fixture
def state(store):
    """Three images: one with two revisions, one of another architecture, one alias and hidden."""
    publish_by_hand(
        store,
        manifest(build_id="b1"),
        manifest(build_id="b2"),
        manifest(arch="aarch64", build_id="b3"),
        manifest("tools", properties={"hidden": "true", "aliases": "kit,box", "notes": "For us."}),
    )
    return read(store)


def test_the_index_is_rendered_to_the_byte(state):
    sha512 = {
        build: manifest(name, build).disk.sha512
        for name, build in [("debian-12", "b2"), ("debian-12", "b3"), ("tools", "b1")]
    }
    assert (
        index.render(state).decode()
        == f"""\
# releases {index.listing_mark(state)}

[debian-12]
name=Debian® 12 (bookworm)
arch=aarch64
osinfo=debian12
file=images/debian-12/aarch64/b3.0123abcd/debian-12.qcow2.xz
checksum[sha512]={sha512["b3"]}
format=qcow2
size=2147483648
compressed_size=24
revision=1
expand=/dev/sda1

[debian-12]
name=Debian® 12 (bookworm)
arch=x86_64
osinfo=debian12
file=images/debian-12/x86_64/b2.0123abcd/debian-12.qcow2.xz
checksum[sha512]={sha512["b2"]}
format=qcow2
size=2147483648
compressed_size=24
revision=2
expand=/dev/sda1

[tools]
name=tools
arch=x86_64
file=images/tools/x86_64/b1.0123abcd/tools.qcow2.xz
checksum[sha512]={sha512["b1"]}
format=qcow2
size=2147483648
compressed_size=20
revision=1
aliases=kit box
hidden=true
notes=For us.
"""
    )


def digests(name, build):
    disk = manifest(name, build).disk
    return {"sha256": disk.sha256, "sha512": disk.sha512}


def test_an_alias_never_replaces_another_image(store):
    """virt-builder resolves aliases first: the thief is offered under its name alone."""
    publish_by_hand(store, manifest("victim"))
    publish_by_hand(store, manifest("thief", arch="aarch64", properties={"aliases": "victim,mine"}))
    state = read(store)
    entries, problems = index.parse(index.render(state))
    assert problems == []
    assert {e.name: e.get("aliases") for e in entries} == {"victim": "", "thief": "mine"}
    assert index.conflicting_aliases(state) == {("thief", "aarch64"): {"victim": "victim"}}


@pytest.mark.parametrize("newer", ["one", "two"])
def test_the_last_published_of_two_equal_aliases_is_offered(store, newer):
    for name in ("one", "two"):
        of = manifest(name, properties={"aliases": "stable"})
        put_release(store, release(1, of, published=1_700_000_000 + (name == newer)))
    entries, _ = index.parse(index.render(read(store)))
    older = {"one": "two", "two": "one"}[newer]
    assert {e.name: e.get("aliases") for e in entries} == {newer: "stable", older: ""}


def test_one_image_keeps_its_alias_for_every_architecture(store):
    for arch in ("x86_64", "aarch64"):
        publish_by_hand(store, manifest(arch=arch, build_id=arch, properties={"aliases": "stable"}))
    entries, _ = index.parse(index.render(read(store)))
    assert [entry.get("aliases") for entry in entries] == ["stable", "stable"]


def disks_of(data):
    return [pair for pair in sums.parse(data, "SHA256SUMS") if pair[0].endswith(".xz")]


def test_sha256sums_list_every_disk_that_is_offered(store, state):
    listed = render(state, SITE).files["SHA256SUMS"].decode()
    mark, *lines = listed.splitlines()
    lines = [line for line in lines if line.endswith(".xz")]
    assert mark == f"# releases {index.listing_mark(state)}"
    assert lines == [
        f"{digests(name, build)['sha256']}  images/{name}/{arch}/{build}.0123abcd/{name}.qcow2.xz"
        for name, arch, build in [
            ("debian-12", "aarch64", "b3"),
            ("debian-12", "x86_64", "b1"),
            ("debian-12", "x86_64", "b2"),
            ("tools", "x86_64", "b1"),
        ]
    ]
    # A rollback offers a disk that is offered already; what is withdrawn is not listed.
    put_release(store, release(3, "b1", reason="back"))
    put_release(store, release(4, None, withdraws=2))
    again = disks_of(render(read(store), SITE).files["SHA256SUMS"])
    assert [path.split("/")[3] for path, _ in again[1:2]] == ["b1.0123abcd"]
    assert len(again) == 3


def test_rendering_reads_only_releases(store, monkeypatch):
    publish_by_hand(store, manifest())
    asked = []

    def listing(self, prefix="", **_more):
        asked.append(prefix)
        return iter(list(LIST(self, prefix)))

    monkeypatch.setattr(DirectoryStore, "list", listing)
    read(store)
    assert asked == ["releases/"]


def test_repo_metadata_is_rendered_to_the_byte(state):
    plain = json.loads(lago.render(state, name="r", base_url="http://h/r"))
    assert lago.render(state, name="r", base_url="http://h/r").endswith(b"}\n")
    assert plain == {
        "name": "r",
        "releases": index.listing_mark(state),
        "sources": {"r": {"type": "http", "args": {"baseurl": "http://h/r"}}},
        "templates": {
            "debian-12": {
                "versions": {
                    "1-1": {
                        "source": "r",
                        "handle": "images/debian-12/x86_64/b1.0123abcd/debian-12.qcow2",
                        "timestamp": 1_700_000_000,
                        **digests("debian-12", "b1"),
                    },
                    "1-2": {
                        "source": "r",
                        "handle": "images/debian-12/x86_64/b2.0123abcd/debian-12.qcow2",
                        "timestamp": 1_700_000_001,
                        **digests("debian-12", "b2"),
                    },
                    "1-1-aarch64": {
                        "source": "r",
                        "handle": "images/debian-12/aarch64/b3.0123abcd/debian-12.qcow2",
                        "timestamp": 1_700_000_002,
                        **digests("debian-12", "b3"),
                    },
                }
            },
            "tools": {
                "versions": {
                    "v1": {
                        "source": "r",
                        "handle": "images/tools/x86_64/b1.0123abcd/tools.qcow2",
                        "timestamp": 1_700_000_003,
                        **digests("tools", "b1"),
                    }
                }
            },
        },
    }


def test_an_empty_repository_has_an_empty_index(store):
    files = render(read(store), SITE).files
    assert index.parse(files["index"]) == ([], [])
    assert lago.parse(files["repo.metadata"]) == ([], [])
    assert b"Nothing is published yet" in files["index.html"]


def test_timestamps_increase_with_revisions_whatever_the_clocks(store):
    publish_by_hand(store, manifest(build_id="b1"))
    for revision, published in [(2, 5), (3, 1_700_000_000), (4, 1_800_000_000)]:
        put_release(store, release(revision, "b1", published=published))
    times = [v.timestamp for v in lago.versions(read(store)) if v.template == "debian-12"]
    assert times == [1_700_000_000, 1_700_000_001, 1_700_000_002, 1_800_000_000]


def test_withdrawn_revisions_are_not_versions_and_keep_the_other_timestamps(store):
    publish_by_hand(store, *(manifest(build_id=f"b{n}") for n in (1, 2, 3)))
    before = {v.version: v.timestamp for v in lago.versions(read(store))}
    put_release(store, release(4, None, withdraws=2))
    after = {v.version: v.timestamp for v in lago.versions(read(store))}
    assert after == {name: time for name, time in before.items() if name != "1-2"}


def test_a_version_can_be_part_of_a_file_name():
    named = lago.version_name(release(3), manifest(properties={"version": " ../1 2:3 "}))
    assert named == "..-1-2-3-3"


def everything(rendered):
    return {**rendered.files, **{key: page.render() for key, page in rendered.pages.items()}}


def test_different_releases_never_render_the_same_bytes(store):
    publish_by_hand(store, manifest())
    one = everything(render(read(store), SITE))
    put_release(store, release(2))
    put_release(store, release(3, None, withdraws=2))
    other = everything(render(read(store), SITE))
    assert [name for name in one if one[name] == other[name]] == []


def test_the_hash_and_metadata_files_of_a_build_are_rendered():
    made = manifest()
    assert lago.hash_file(made) == made.disk.sha1.encode() + b"\n"
    operations = [("install", "x"), ("root-password", "password:12:56"), ("update", "")]
    plain = json.loads(
        lago.metadata_file(made, spec("debian-12", "bootstrap:bookworm", *operations))
    )
    assert plain == {**PROPERTIES, "arch": "x86_64", "root-password": "12:56"}


@pytest.mark.parametrize("last", ["random", "locked", "file:/x"])
def test_the_last_root_password_is_in_the_metadata(last):
    operations = [("root-password", "password:old"), ("root-password", last)]
    plain = json.loads(lago.metadata_file(manifest(), spec("d", "bootstrap:bookworm", *operations)))
    assert "root-password" not in plain


@pytest.mark.parametrize("argument", ["random", "disabled", "file:/x", "locked:password:x"])
def test_only_a_plain_root_password_is_in_the_metadata(argument):
    plain = json.loads(
        lago.metadata_file(manifest(), spec("d", "bootstrap:bookworm", ("root-password", argument)))
    )
    assert "root-password" not in plain


BAD_INDEXES = {
    "[a]\r\narch=x\n": "carriage return",
    "arch=x86_64\n": "neither section nor comment",
    "[a]\nfile=x\narch=y\nsize=1\nname = a\n": "neither section, field nor comment",
    "[a b]\n": "neither section nor comment",
    "[a]\nfile=x\n\narch=y\nsize=1\n": "a blank line inside the section",
    "[a]\nfile=x\narch=y\nsize=1\n[b]\nfile=x\narch=y\nsize=1\n": "no blank line before",
    "[a]\nfile=x\nfile=y\narch=y\nsize=1\n": "the field file is there twice",
    "[a]\nfile=x\narch=y\nsize=1\n\n[a]\nfile=x\narch=y\nsize=1\n": "a for y is there twice",
    "[a]\narch=y\nsize=1\n": "a has no file",
    "[a]\nfile=x\nsize=1\n": "a has no arch",
    "[a]\nfile=x\narch=y\n": "a has no size",
    "[a]\nfile=x\narch=y\nsize=big\n": "size is 'big'",
    "[a]\nfile=x\narch=y\nsize=1\nrevision=1.5\n": "revision is '1.5'",
    "[a]\nfile=/x\narch=y\nsize=1\n": "not relative",
    "[a]\nfile=http://x\narch=y\nsize=1\n": "not relative",
    "[a]\nfile=../x\narch=y\nsize=1\n": "not relative",
    "[a]\nfile=x\narch=y\nsize=1\nhidden=yes\n": "hidden is 'yes'",
    "[a]\nfile=x\narch=y\nsize=1\nchecksum[sha512]=12\n": "no sha512 checksum",
    "[a]\nfile=x\narch=y\nsize=1": "the last line has no end",
}


@pytest.mark.parametrize(("text", "expected"), BAD_INDEXES.items())
def test_each_fault_of_an_index_is_found(text, expected):
    _entries, problems = index.parse(text.encode())
    assert any(expected in problem.what for problem in problems), problems


@pytest.mark.parametrize("revision", ["1.5", "0", "٣", "9" * 5000])
def test_an_entry_without_a_valid_revision_is_a_problem_and_skipped(revision):
    text = f"[a]\nfile=x\narch=y\nsize=1\nchecksum[sha512]={'0' * 128}\nrevision={revision}\n"
    entries, problems = index.parse(text.encode())
    assert entries == []
    assert len(problems) == 1
    assert len(problems[0].what) < 100


def test_continued_lines_and_comments_are_read():
    text = f"# c\n\n\n[a]\nfile=x\n# c\narch=y\nsize=1\nchecksum[sha512]={'0' * 128}\nnotes=1\n 2\n"
    entries, problems = index.parse(text.encode())
    assert problems == []
    assert entries[0].get("notes") == "1\n2"
    assert entries[0].line == 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"name": "r", "sources": {}, "templates": {"t": {"versions": {"v": {}}}}}',
        b'{"name": "r", "sources": {}, "templates": {"t": {"versions": {"v": 1}}}}',
        b'{"name": 1, "sources": {}, "templates": {}}',
    ],
)
def test_a_repo_metadata_that_lago_cannot_use_is_found(data):
    assert lago.parse(data)[1]


@given(states())
@settings(max_examples=60)
def test_files_rendered_from_any_properties_are_read_back(state):
    data = index.render(state)
    entries, problems = index.parse(data)
    assert problems == []
    assert index.to_bytes(entries, mark=index.listing_mark(state)) == data
    assert [(e.name, e.arch) for e in entries] == [
        image for image in state.images if state.current(*image)
    ]
    for entry in entries:
        current = state.current(entry.name, entry.arch)
        assert entry.revision == current.revision
        assert entry.file == current.public.disk

    versions, problems = lago.parse(lago.render(state, name="r", base_url="http://h"))
    assert problems == []
    assert {v.handle for v in versions} == {
        r.public.handle for image in state.images for r in state.live(*image)
    }
    assert len({(v.template, v.version) for v in versions}) == len(versions)
    for image in state.images:
        folder = f"images/{image[0]}/{image[1]}/"
        times = [v.timestamp for v in versions if v.handle.startswith(folder)]
        assert len(set(times)) == len(times)


@given(states())
@settings(max_examples=25)
def test_the_same_state_gives_the_same_bytes(state):
    assert everything(render(state, SITE, [KEY])) == everything(render(state, SITE, [KEY]))


@given(states())
@settings(max_examples=25)
def test_no_value_of_a_state_becomes_markup(state):
    page = catalogue.render(Shown.of(state), SITE, KEY).decode()
    assert page.count("<script") == page.count("</script") == 1
    assert "<img" not in page
    shown = [image for image in Shown.of(state).images if not image.is_hidden]
    assert page.count('<li class="item"') == len(shown)


def test_the_catalogue_has_images_and_client_commands(state):
    page = catalogue.render(Shown.of(state), SITE, KEY).decode()
    assert "ABAB ABAB" in page
    assert "virt-builder --source http://images.example.org/repo/index-ABAB" in page
    assert "lago init --template-repo-path http://images.example.org/repo/repo.metadata" in page
    assert 'href="images/debian-12/x86_64/b2.0123abcd/debian-12.qcow2.xz"' in page
    assert 'href="catalogue/debian-12.html"' in page
    assert "2.0 GiB" in page
    assert 'href="catalogue/tools.html"' not in page
    assert "Debian® 12 (bookworm)" in page


def test_a_name_with_markup_is_escaped(store):
    publish_by_hand(store, manifest(properties={"name": "<script>alert(1)</script>"}))
    page = catalogue.render(Shown.of(read(store)), SITE, None)
    assert b"<script>alert" not in page
    assert b"&lt;script&gt;alert" in page
