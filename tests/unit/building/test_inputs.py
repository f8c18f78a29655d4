"""What of the host a build's appliance can see: copies of the files that the spec names."""

import os

import pytest

from lago_images.building.customise import copy_inputs
from lago_images.errors import SpecError
from tests.support.images import a_spec


def spec(*lines):
    return a_spec("\n".join(["#name=i\n#base=layer:b\n#arch=x86_64\n#distro=d", *lines]) + "\n")


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


def test_what_the_spec_names_is_copied_and_nothing_else(root, to):
    copy_inputs(
        spec("upload files/one:/etc/one", "copy-in ./files//folder:/srv", "run files/one"),
        root,
        to,
    )
    assert seen(to) == {"files/one", "files/folder/deep/two"}
    assert (to / "files/one").stat().st_mode & 0o777 == 0o750


def test_a_selector_s_file_comes_along(root, to):
    copy_inputs(spec("root-password locked:file:files/one"), root, to)
    assert seen(to) == {"files/one"}


def test_links_inside_a_folder_stay_links(root, to, tmp_path):
    (root / "files/folder/link").symlink_to(tmp_path / "secret")
    copy_inputs(spec("copy-in files/folder:/srv"), root, to)
    assert (to / "files/folder/link").is_symlink()


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
def test_what_is_no_file_of_the_repository_is_refused_with_its_line(root, to, tmp_path, make):
    make(root / "bad", tmp_path / "secret")
    with pytest.raises(SpecError, match="image-specs/image:6: host path 'bad' cannot be used"):
        copy_inputs(spec("upload files/one:/etc/one", "upload bad:/etc/bad"), root, to)
    assert "bad" not in seen(to)


def test_a_folder_that_is_a_link_out_is_refused(root, to, tmp_path):
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(SpecError, match="leads out of the repository"):
        copy_inputs(spec("upload out/secret:/etc/bad"), root, to)


def test_a_pipe_in_a_folder_does_not_hang_the_build(root, to):
    os.mkfifo(root / "files/folder/pipe")
    with pytest.raises(SpecError, match="not a regular file"):
        copy_inputs(spec("copy-in files/folder:/srv"), root, to)
