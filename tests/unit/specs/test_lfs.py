"""What stands for a file that a spec reads is refused: pointers of Git LFS, and locked files."""

import os
from pathlib import Path

import pytest

from lago_images.errors import SpecError
from lago_images.specs.host_files import refuse_pointers
from tests.support.builders import lines as spec

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1048576\n"
BASE = "layer:b"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "files/deep/er").mkdir(parents=True)
    (root / "files/pointer").write_text(POINTER)
    (root / "files/deep/plain").write_text("plain")
    (root / "link").symlink_to("files/pointer")
    (root / "folder").symlink_to("files")
    return root


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("upload files/pointer:/etc/x", "files/pointer"),
        ("upload folder/pointer:/etc/x", "folder/pointer"),
        ("run link", "link"),
        ("firstboot files//pointer", "files//pointer"),
        ("copy-in files/pointer:/etc", "files/pointer"),
        ("root-password locked:file:files/pointer", "files/pointer"),
        ("ssh-inject root:file:files/pointer", "files/pointer"),
    ],
)
def test_a_git_lfs_pointer_is_refused_with_its_line(root, line, path):
    with pytest.raises(SpecError) as caught:
        refuse_pointers(spec("update", line), root)
    what = f"host path '{path}' is only a Git LFS pointer here, not the file"
    assert caught.value.message == f"image-specs/image:5: {what}"
    assert "git lfs pull" in caught.value.hint


def test_a_git_lfs_pointer_as_base_is_refused(root):
    with pytest.raises(SpecError, match="image-specs/image:1: host path 'link' is only"):
        refuse_pointers(spec(base="simple:link"), root)


def test_all_pointers_of_a_folder_are_counted(root):
    (root / "files/deep/er/one").write_text(POINTER)
    (root / "files/deep/two").write_text(POINTER)
    lines = ("copy-in ./folder/deep:/srv", "run files/pointer", "upload files/deep/plain:/x")
    with pytest.raises(SpecError) as caught:
        refuse_pointers(spec(*lines), root)
    many, one = caught.value.problems
    told = "has only a Git LFS pointer for 'folder/deep/er/one' and 1 more, not the file"
    assert (many.line, many.what) == (4, f"host path './folder/deep' {told}")
    assert one.line == 5


def test_a_file_locked_by_git_crypt_is_refused(root):
    locked = b"\0GITCRYPT\0" + bytes(12) + b"x" * 5000
    (root / "files/secret").write_bytes(locked)
    (root / "files/deep/secret").write_bytes(locked)
    with pytest.raises(SpecError) as caught:
        refuse_pointers(spec("upload files/secret:/x", "copy-in files:/srv"), root)
    one, pointers, many = (problem.what for problem in caught.value.problems)
    assert one == "host path 'files/secret' is only a file locked by git-crypt here, not the file"
    assert (
        pointers == "host path 'files' has only a Git LFS pointer for 'files/pointer', not the file"
    )
    assert many.endswith(
        "a file locked by git-crypt for 'files/deep/secret' and 1 more, not the file"
    )
    assert caught.value.hint == "git lfs pull; in CI, check out with lfs; git-crypt unlock"


def test_only_git_lfs_pointers_are_refused(root, tmp_path):
    (root / "files/pointer").unlink()
    (root / "files/deep/long").write_text(POINTER + "x" * 1024)
    (root / "files/deep/late").write_text(f"\n{POINTER}")
    (root / "files/deep/short").write_text("version https")
    (root / "files/deep/empty").touch()
    (root / "files/deep/link").symlink_to(tmp_path / "pointer")
    os.mkfifo(root / "files/deep/pipe")
    (tmp_path / "pointer").write_text(POINTER)
    (root / "out").symlink_to(tmp_path)
    lines = ("copy-in files/deep:/srv", "run out/pointer", "run gone", "run files/deep/pipe")
    refuse_pointers(spec(*lines), root)
    url = spec(f"#base-checksum=sha256:{'0' * 64}", base="simple:https://example.com/disk")
    refuse_pointers(url, root)
    # The same lines are refused once there is one.
    (root / "files/deep/short").write_text(POINTER)
    with pytest.raises(SpecError, match="Git LFS pointer for 'files/deep/short', not the file"):
        refuse_pointers(spec(*lines), root)
