"""Problems between specs, and with the files they read: each with its message."""

import os
import socket
from pathlib import Path

import pytest

from lago_images.errors import Problem, SpecError
from lago_images.specs.host_files import host_files
from lago_images.specs.parse import parse
from lago_images.specs.read import inspect, read

ROOT = Path(__file__).parents[3]
KINDS = "a base that is no spec is written bootstrap:RELEASE, libguestfs:TEMPLATE or simple:DISK"
MOVE = "and every file here is read as a spec: move what is none to a sub-folder, such as files/"


@pytest.fixture
def folder(tmp_path):
    """A specs repository whose specs are given as lines after a header of two lines."""

    def make(specs, arch="x86_64"):
        (tmp_path / "image-specs").mkdir(exist_ok=True)
        for name, lines in specs.items():
            text = "\n".join([f"#arch={arch}", "#distro=el9", *lines, ""])
            (tmp_path / "image-specs" / name).write_text(text)
        return tmp_path

    return make


def problems(root):
    found = inspect(root, "image-specs").problems
    return [(Path(p.path).name, p.line, p.what) for p in found]


def test_valid_specs_are_read(folder):
    root = folder({"b": ["#base=libguestfs:x"], "a": ["#base=b"]})
    assert list(read(root, "image-specs")) == ["a", "b"]


def test_read_raises_every_problem(folder):
    root = folder({"a": ["#base=b"], "c": ["#base=libguestfs:x", "foo", "update 1"]})
    with pytest.raises(SpecError) as caught:
        read(root, "image-specs")
    assert caught.value.exit_code == 2
    assert caught.value.problems == (
        Problem("image-specs/a", 3, f"there is no spec 'b'; {KINDS}"),
        Problem("image-specs/c", 4, "unknown command 'foo'"),
        Problem("image-specs/c", 5, "update takes no argument, but has '1'"),
    )


def test_a_layer_on_a_missing_base_is_a_problem(folder):
    root = folder({"a": ["#base=el7-bsae"], "el7-base": ["#base=libguestfs:x"]})
    assert problems(root) == [("a", 3, "there is no spec 'el7-bsae'; did you mean 'el7-base'?")]


def test_a_layer_on_an_invalid_spec_is_no_further_problem(folder):
    root = folder({"a": ["#base=b"], "b": ["update"]})
    assert [(name, line) for name, line, _ in problems(root)] == [("b", None)]


def test_a_layer_of_another_architecture_than_its_base_is_a_problem(folder):
    folder({"b": ["#base=libguestfs:x"]}, arch="aarch64")
    root = folder({"a": ["#base=b"]})
    assert problems(root) == [("a", 1, "arch is x86_64, but the base 'b' has aarch64")]


@pytest.mark.parametrize(("firmware", "number"), [("bios", 1), ("bios uefi", 3), ("uefi", 3)])
def test_a_layer_names_the_partition_of_the_disk_below(folder, firmware, number):
    named = [f"#expand=/dev/vda{number}", f"#root-partition=/dev/vda{number}"]
    below = ["#base=bootstrap:debian-12", f"#firmware={firmware}"]
    good = {"a": ["#base=b", *named], "b": ["#base=c", *named], "c": [*below, *named]}
    assert problems(folder(good, arch="x86_64")) == []
    wrong = {**good, "a": ["#base=b", "#expand=/dev/sda2"]}
    [(name, line, what)] = problems(folder(wrong, arch="x86_64"))
    assert (name, line) == ("a", 4)
    assert what.startswith(f"expand is /dev/sda{number} on this bootstrap: disk")


@pytest.mark.parametrize(
    ("disk", "layer", "refused"),
    [
        ("bios", "uefi", True),
        ("bios", "bios uefi", True),
        ("bios", "bios", False),
        ("bios uefi", "uefi", False),
        ("uefi", "bios", False),
    ],
)
def test_a_layer_asks_for_no_firmware_that_its_disk_has_nothing_for(folder, disk, layer, refused):
    below = ["#base=bootstrap:debian-12", f"#firmware={disk}"]
    specs = {"a": ["#base=b", f"#firmware={layer}"], "b": ["#base=c"], "c": below}
    message = "the disk below is for a BIOS alone: it has firmware=bios"
    assert problems(folder(specs, arch="x86_64")) == ([("a", 4, message)] if refused else [])


def test_cycles_of_layers_are_problems(folder):
    root = folder(
        {"a": ["#base=c"], "b": ["#base=a"], "c": ["#base=b"], "d": ["#base=d"], "e": ["#base=a"]}
    )
    assert problems(root) == [
        ("a", 3, "a cycle of layers: a -> c -> b -> a"),
        ("d", 3, "a cycle of layers: d -> d"),
    ]


def test_names_that_differ_only_in_case_are_problems(folder):
    root = folder({"base": ["#base=libguestfs:x"], "Base": ["#base=libguestfs:x"]})
    assert problems(root) == [
        ("Base", None, "the name differs from 'base' only in case"),
        ("base", None, "the name differs from 'Base' only in case"),
    ]


def test_aliases_claimed_twice_are_problems(folder):
    root = folder(
        {
            "a": ["#base=libguestfs:x", "#aliases=one two"],
            "b": ["#base=libguestfs:x", "#aliases=two a"],
        }
    )
    assert problems(root) == [
        ("b", 4, "the alias 'two' means 'a' already"),
        ("b", 4, "the alias 'a' means 'a' already"),
    ]


def test_an_alias_is_no_other_image_of_any_architecture(folder):
    """virt-builder resolves aliases first: on x86_64, `debian` would be the other image."""
    folder({"z": ["#base=libguestfs:x", "#aliases=debian two"]}, arch="aarch64")
    root = folder({"debian": ["#base=libguestfs:x", "#aliases=two"]})
    assert problems(root) == [
        ("z", 4, "the alias 'debian' means 'debian' already"),
        ("z", 4, "the alias 'two' means 'debian' already"),
    ]


def test_a_spec_locked_by_git_crypt_is_reported(folder):
    root = folder({"a": ["#base=libguestfs:x"]})
    (root / "image-specs/a").write_bytes(b"\0GITCRYPT\0" + bytes(12) + b"\xff")
    assert problems(root) == [("a", None, "is locked by git-crypt (git-crypt unlock)")]


HOST_PATHS = [
    ("upload /etc/x:/x", "host path '/etc/x' must be relative to the root of the repository"),
    ("run ~/x", "host path '~/x' must be relative to the root of the repository"),
    ("run a/../x", "host path 'a/../x' goes up with .., which could leave the repository"),
    ("run .git/x", "host path '.git/x' reads git's own files, which may hold credentials"),
    ("run a/-x", "host path 'a/-x' has a part that starts with a dash, like an option"),
    ("run a\\\nb", "host path 'a\\nb' is empty or has a newline or tab in it"),
    ("root-password file:", "host path '' is empty or has a newline or tab in it"),
    ("run nothing", "host path 'nothing' is missing (paths start at the root of the repository)"),
    ("run image-specs", "host path 'image-specs' is not a regular file"),
    ("upload image-specs:/x", "host path 'image-specs' is not a regular file"),
    ("copy-in .:/x", "host path '.' takes git's own files along, which may hold credentials"),
    ("copy-in pipe:/x", "host path 'pipe' is not a file or folder"),
    ("copy-in socket:/x", "host path 'socket' is not a file or folder"),
    ("run out", "host path 'out' leads out of the repository"),
    (
        "run into-git",
        "host path 'into-git' leads to git's own files, which may hold credentials",
    ),
    ("run loop", "host path 'loop' cannot be read: a loop of links"),
    ("run file/x", "host path 'file/x' cannot be read: Not a directory"),
]


@pytest.mark.parametrize(("line", "what"), HOST_PATHS)
def test_host_paths_out_of_the_repository_are_problems(folder, line, what, monkeypatch):
    root = folder({"a": ["#base=libguestfs:x", line]})
    (root / "file").touch()
    (root / ".git").mkdir()
    (root / ".git" / "config").touch()
    os.mkfifo(root / "pipe")
    (root / "out").symlink_to("/etc/passwd")
    (root / "into-git").symlink_to(".git/config")
    (root / "loop").symlink_to("loop")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert problems(root) == [("a", 4, what)]


def test_links_inside_the_repository_are_followed(folder):
    root = folder({"a": ["#base=libguestfs:x", "run link", "copy-in links:/x"]})
    (root / "link").symlink_to("real")
    (root / "real").touch()
    (root / "links").symlink_to("folder")
    (root / "folder").mkdir()
    assert problems(root) == []


def test_a_submodule_need_not_be_checked_out(folder):
    root = folder({"a": ["#base=libguestfs:x", "run sub/a", "run subs/a"]})
    (root / ".gitmodules").write_text('[submodule "sub"]\n\tpath = sub\n\turl = x\n')
    what = "host path 'subs/a' is missing (paths start at the root of the repository)"
    assert problems(root) == [("a", 5, what)]


def test_all_host_files_of_a_spec_are_listed():
    lines = [
        "upload ./b//c:/x",
        "copy-in folder/:/x",
        "run script",
        "firstboot first",
        "root-password file:pw",
        "password me:locked:file:pw2",
        "password you:password:file:x",
        "ssh-inject root:file:key.pub",
        "sm-credentials me:file:pw3",
        "sm-attach file:pool",
        "write /file:file:x",
        "copy /a:/b",
    ]
    text = "\n".join(["#base=simple:disks/a.img", "#arch=x86_64", "#distro=x", *lines])
    spec, wrong = parse(text, name="a", path="a")
    assert wrong == []
    assert host_files(spec) == (
        "b/c", "disks/a.img", "first", "folder", "key.pub", "pool", "pw", "pw2", "pw3", "script",
    )  # fmt: skip


def test_a_url_is_not_taken_for_a_host_file():
    text = f"#base=simple:https://x/y\n#arch=x86_64\n#distro=x\n#base-checksum=sha256:{'0' * 64}\n"
    spec, wrong = parse(text, name="a", path="a")
    assert wrong == []
    assert host_files(spec) == ()


def test_hidden_files_readmes_and_backups_are_not_specs(folder):
    root = folder({"a": ["#base=libguestfs:x"]})
    specs = root / "image-specs"
    for name in ("a~", ".a.swp", "a.bak", "a.orig", "a.rej", "#a#", ".hidden", "README.md"):
        (specs / name).write_text("nonsense\n")
    (specs / "files").mkdir()
    (specs / "files" / "a").write_text("nonsense\n")
    assert list(read(root, "image-specs")) == ["a"]


def test_links_to_specs_are_followed_inside_the_repository(folder):
    root = folder({"a": ["#base=libguestfs:x"]})
    specs = root / "image-specs"
    (specs / "b").symlink_to("a")
    (specs / "c").symlink_to("/etc/passwd")
    (specs / "d").symlink_to("gone")
    (specs / "e").symlink_to("files")
    (specs / "files").mkdir()
    os.mkfifo(specs / "f")
    found = inspect(root, "image-specs")
    assert sorted(found.specs) == ["a", "b"]
    assert problems(root) == [
        ("c", None, "the link leads out of the repository"),
        ("d", None, "cannot be read: No such file or directory"),
        ("e", None, "the link is not a regular file"),
        ("f", None, "is not a regular file"),
    ]


def test_a_spec_that_is_not_utf_8_is_a_problem(folder):
    root = folder({"a": ["#base=libguestfs:x"]})
    path = root / "image-specs" / "a"
    path.write_bytes(path.read_bytes() + b"#name=caf\xe9\n")
    assert problems(root) == [("a", 4, "not UTF-8: byte 0xe9")]


@pytest.mark.parametrize("first", ["Š", "Ł", "ž"])
def test_text_that_begins_with_the_byte_of_a_key_is_no_key(folder, first):
    root = folder({"a": ["#base=libguestfs:x"]})
    path = root / "image-specs" / "a"
    path.write_text(f"{first}\n{path.read_text()}", encoding="utf-8")
    [(name, line, what)] = problems(root)
    assert (name, line) == ("a", 1)
    assert what.startswith("unknown command")


def test_a_spec_over_the_size_limit_is_a_problem(folder):
    root = folder({"a": ["#base=libguestfs:x"]})
    (root / "image-specs" / "a").write_bytes(b"\n" * (2**20 + 1))
    assert problems(root) == [("a", None, f"has 1048577 bytes, more than 1048576, {MOVE}")]


def test_a_disk_among_the_specs_is_one_problem(folder):
    root = folder({"a": ["#base=libguestfs:x"]})
    (root / "image-specs" / "a").write_bytes(b"QFI\xfb" + b"\0" * 600)
    assert problems(root) == [("a", None, f"is no text, {MOVE}")]


def test_a_base_that_is_no_spec_may_be_of_another_kind(folder):
    root = folder({"a": ["#base=debian-12"]})
    what = "base=bootstrap:debian-12 makes that system from its packages"
    assert problems(root) == [("a", 3, f"there is no spec 'debian-12'; {what}")]


def test_long_continuations_and_long_chains_of_layers_are_read(folder):
    deep = "write /x:" + "\\\n" * 300_000
    names = {f"s{n}": [f"#base=s{n + 1}"] for n in range(1200)}
    root = folder({**names, "s1200": ["#base=libguestfs:x", deep]})
    found = inspect(root, "image-specs")
    assert [p.what for p in found.problems] == ["the argument of write has more than 131008 bytes"]
    assert len(found.specs) == 1201


def test_a_missing_folder_of_specs_is_a_problem(tmp_path):
    with pytest.raises(
        SpecError, match="image-specs: the folder of the specs cannot be read: No such"
    ):
        read(tmp_path, "image-specs")


def test_the_repositorys_own_specs_have_no_problems():
    found = inspect(ROOT, "image-specs")
    assert found.problems == []
    assert found.files >= 9
