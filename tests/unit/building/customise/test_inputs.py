"""What of the host a build's appliance can see: copies of the files that the spec names."""

import itertools
import os
from pathlib import Path

import pytest

from lago_images.building.customise.inputs import copy_inputs
from lago_images.errors import SpecError
from lago_images.planning.digests import hash_file
from tests.support.builders import lines as spec


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "files" / "folder" / "deep").mkdir(parents=True)
    (root / "files" / "one").write_text("one")
    (root / "files" / "unnamed").write_text("unnamed")
    (root / "files" / "one").chmod(0o750)
    (root / "files" / "folder" / "deep" / "two").write_text("two")
    (tmp_path / "secret").write_text("secret")
    return root


@pytest.fixture
def to(tmp_path):
    return tmp_path / "inputs"


def seen(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}


def test_only_host_files_of_the_spec_are_copied(root, to):
    copy_inputs(
        spec("upload files/one:/etc/one", "copy-in ./files//folder:/srv", "run files/one"),
        root,
        to,
    )
    assert seen(to) == {"files/one", "files/folder/deep/two"}


def test_the_file_of_a_selector_is_copied(root, to):
    copy_inputs(spec("root-password locked:file:files/one"), root, to)
    assert seen(to) == {"files/one"}


@pytest.mark.parametrize(
    "lines",
    list(
        itertools.permutations(
            (
                "run files/folder/deep/two",
                "copy-in files/folder/deep:/opt",
                "copy-in files/folder:/srv",
            )
        )
    ),
)
def test_a_folder_is_copied_whole_beside_single_files_in_it(root, to, lines):
    (root / "files/folder/deep/more").write_text("more")
    (root / "files/folder/three").write_text("three")
    copy_inputs(spec(*lines), root, to)
    found = {f"files/folder/{name}" for name in ("deep/two", "deep/more", "three")}
    assert seen(to) == found
    assert (to / "files/folder/deep/two").read_text() == "two"


@pytest.mark.parametrize("umask", [0o077, 0o002])
def test_modes_are_those_that_git_records(root, to, umask):
    old = os.umask(umask)
    try:
        for name in ("folder/plain", "folder/program", "plain"):
            (root / "files" / name).write_text("")
        (root / "files/folder/program").chmod(0o700)
        (root / "files/folder/deep").chmod(0o700)
        lines = ["copy-in files/folder:/srv", "upload files/one:/x", "upload files/plain:/y"]
        copy_inputs(spec(*lines), root, to)
    finally:
        os.umask(old)
    modes = {str(p.relative_to(to)): p.stat().st_mode & 0o7777 for p in to.rglob("*")}
    for name, mode in modes.items():
        here = root / name
        git = "100755" if here.is_dir() else hash_file(here)[0]
        assert (name, f"100{mode:o}") == (name, git)


def test_gits_own_files_are_not_copied(root, to):
    (root / "files/folder/.git").mkdir()
    (root / "files/folder/.git/config").write_text("token")
    (root / "files/folder/deep/.git").write_text("gitdir: elsewhere")
    (root / "files/folder/.gitignore").write_text("")
    copy_inputs(spec("copy-in files/folder:/srv"), root, to)
    assert seen(to) == {"files/folder/deep/two", "files/folder/.gitignore"}


def test_links_inside_a_folder_are_copied_as_links(root, to, tmp_path):
    (root / "files/folder/link").symlink_to(tmp_path / "secret")
    copy_inputs(spec("copy-in files/folder:/srv"), root, to)
    assert (to / "files/folder/link").is_symlink()


@pytest.mark.parametrize(
    ("link", "leads_to"),
    [("files/folder/link", "deep/two"), ("files/folder/link", "../../other/file")],
)
def test_a_file_behind_a_link_in_a_copied_folder_is_read(root, to, link, leads_to):
    (root / "other").mkdir()
    (root / "other/file").write_text("two")
    (root / link).symlink_to(leads_to)
    copy_inputs(spec(f"upload {link}:/etc/x", "copy-in files/folder:/srv"), root, to)
    assert (to / link).readlink() == Path(leads_to)
    assert (to / link).read_text() == "two"


def test_a_file_in_a_folder_that_is_a_link_itself_is_read(root, to):
    (root / "linked").symlink_to("files/folder")
    copy_inputs(spec("run linked/deep/two", "copy-in linked:/srv"), root, to)
    assert seen(to) == {"linked/deep/two"}
    assert not (to / "linked").is_symlink()


@pytest.mark.parametrize("absolute", [False, True])
def test_a_path_that_is_both_a_link_and_its_target_is_refused(root, to, absolute):
    leads_to = root / "files/folder/deep" if absolute else "deep"
    (root / "files/folder/link").symlink_to(leads_to)
    with pytest.raises(SpecError, match=r"another line copies; write files/folder/deep$"):
        copy_inputs(spec("copy-in files/folder/link:/a", "copy-in files/folder:/b"), root, to)


@pytest.mark.parametrize(
    "make",
    [
        lambda path, outside: path.symlink_to(outside),
        lambda path, _outside: os.mkfifo(path),
        lambda path, _outside: path.mkdir(),
        lambda _path, _outside: None,
    ],
    ids=["link", "pipe", "folder", "missing"],
)
def test_files_outside_the_repository_are_refused_with_their_line(root, to, tmp_path, make):
    make(root / "bad", tmp_path / "secret")
    with pytest.raises(SpecError, match="image-specs/image:5: host path 'bad' cannot be used"):
        copy_inputs(spec("upload files/one:/etc/one", "upload bad:/etc/bad"), root, to)
    assert "bad" not in seen(to)


def test_a_folder_linked_out_of_the_repository_is_refused(root, to, tmp_path):
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(SpecError, match="leads out of the repository"):
        copy_inputs(spec("upload out/secret:/etc/bad"), root, to)


def test_a_pipe_in_a_folder_does_not_hang_the_build(root, to):
    os.mkfifo(root / "files/folder/pipe")
    with pytest.raises(SpecError, match="not a regular file"):
        copy_inputs(spec("copy-in files/folder:/srv"), root, to)
