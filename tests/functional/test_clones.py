"""One commit in many clones: the same fingerprints, or a refusal that says what to set."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from lago_images.errors import GitError, SpecError
from lago_images.planning.git import Git
from lago_images.planning.tree import read_tree
from lago_images.settings import Settings
from tests.support.specs import IDENTITY, SpecsRepo, git

SHOUT = {
    "filter.shout.smudge": "tr a-z A-Z",
    "filter.shout.clean": "tr A-Z a-z",
    "filter.shout.required": "true",
}


@pytest.fixture
def origin(tmp_path, monkeypatch) -> SpecsRepo:
    # No settings but those that a test makes.
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    repo = SpecsRepo.create(tmp_path / "origin")
    repo.spec("image", "simple:disk.img", "upload files/text:/etc/text", "copy-in files/tree:/srv")
    repo.disk("disk.img")
    repo.write("files/text", "one\ntwo\n")
    repo.write("files/tree/program", "#!/bin/sh\n").chmod(0o755)
    repo.write("files/tree/two words", "x\n")
    (repo.root / "files/tree/link").symlink_to("program")
    repo.commit()
    return repo


def clone(origin: SpecsRepo, into: Path, *options: str, **settings: str) -> Path:
    every = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    git(origin.root, "clone", "-q", *every, *options, origin.root.as_uri(), str(into))
    return into


def tree(root: Path):
    with Git(root) as found:
        return read_tree(root, Settings(folder=root), found)


def fingerprint(root: Path) -> str:
    read = tree(root)
    assert read.dirty == frozenset()
    return read.fingerprints["image"]


def refused(root: Path) -> SpecError:
    with pytest.raises(SpecError) as caught:
        tree(root)
    return caught.value


def mend(error: SpecError, root: Path) -> None:
    """Do what the hint says, of one file."""
    assert error.hint
    subprocess.run(["sh", "-ec", error.hint.partition("; and")[0]], cwd=root, check=True)


def attributes(origin: SpecsRepo, text: str) -> None:
    origin.write(".gitattributes", text)
    origin.commit("Attributes")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"core.autocrlf": "true"}, "core.autocrlf is true, so that git changes its line ends"),
        ({"core.eol": "crlf"}, "core.eol is crlf, so that git changes its line ends"),
    ],
)
def test_line_end_settings_that_change_a_file_are_refused(origin, tmp_path, settings, why):
    attributes(origin, "* -text\nfiles/text text=auto\n")
    wanted = fingerprint(clone(origin, tmp_path / "plain"))
    here = clone(origin, tmp_path / "here", **settings)
    assert (here / "files/text").read_bytes() == b"one\r\ntwo\r\n"
    error = refused(here)
    head = origin.head[:7]
    assert error.message == f"files/text: is not what a new clone of commit {head} has: {why}"
    mend(error, here)
    assert fingerprint(here) == wanted


def test_committed_attributes_override_the_clones_settings(origin, tmp_path):
    attributes(origin, "* text eol=lf\ndisk.img -text\nfiles/text text eol=crlf\n")
    plain = clone(origin, tmp_path / "plain")
    assert (plain / "files/text").read_bytes() == b"one\r\ntwo\r\n"
    for name, settings in {
        "autocrlf": {"core.autocrlf": "true"},
        "input": {"core.autocrlf": "input"},
        "eol": {"core.eol": "crlf"},
        "safe": {"core.safecrlf": "warn"},
        "case": {"core.ignoreCase": "true"},
    }.items():
        assert fingerprint(clone(origin, tmp_path / name, **settings)) == fingerprint(plain)


def test_a_spec_changed_by_local_attributes_is_refused(origin, tmp_path):
    """A command's words are the spec's bytes."""
    origin.spec("image", "simple:disk.img", "write /etc/id:$Id$")
    attributes(origin, "image-specs/* ident\n")
    plain = clone(origin, tmp_path / "plain")
    wanted = fingerprint(plain)
    (plain / ".git/info/attributes").write_text("image-specs/* -ident\n")
    (plain / "image-specs/image").unlink()
    git(plain, "checkout", "--", "image-specs/image")
    assert "image-specs/image: is not what a new clone" in refused(plain).message
    assert fingerprint(clone(origin, tmp_path / "other", "--depth=1")) == wanted


@pytest.mark.parametrize("place", ["info", "named", "usual"])
def test_uncommitted_attributes_are_refused_with_their_file(origin, tmp_path, place):
    wanted = fingerprint(clone(origin, tmp_path / "plain"))
    here = clone(origin, tmp_path / "here", "--no-checkout")
    file = {
        "info": here / ".git/info/attributes",
        "named": tmp_path / "attributes",
        "usual": tmp_path / "config/git/attributes",
    }[place]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("files/text text eol=crlf\n")
    if place == "named":
        git(here, "config", "core.attributesFile", str(file))
    git(here, "checkout", "-q", "main")
    assert (here / "files/text").read_bytes() == b"one\r\ntwo\r\n"
    error = refused(here)
    name = ".git/info/attributes" if place == "info" else str(file)
    assert f"{name}, which is not the commit's, gives it the attribute eol (crlf)" in error.message
    assert error.hint == f"take that out of {name}; rm files/text && git checkout -- files/text"
    file.unlink()
    again = error.hint.partition("; ")[2]
    subprocess.run(["sh", "-ec", again], cwd=here, check=True)
    assert fingerprint(here) == wanted


def test_an_uncommitted_gitattributes_that_changes_a_file_is_refused(origin, tmp_path):
    here = clone(origin, tmp_path / "here")
    (here / ".gitattributes").write_text("files/text text eol=crlf\n")
    assert fingerprint(here) == fingerprint(origin.root)
    for stage in (False, True):
        if stage:
            git(here, "add", ".gitattributes")
        (here / "files/text").unlink()
        git(here, "checkout", "--", "files/text")
        assert "the attribute eol (crlf)" in refused(here).message


def test_a_filter_missing_from_the_clone_is_refused(origin, tmp_path):
    attributes(origin, "files/text filter=shout\n")
    one, other = (clone(origin, tmp_path / name, **SHOUT) for name in ("one", "other"))
    assert (one / "files/text").read_bytes() == b"ONE\nTWO\n"
    assert fingerprint(one) == fingerprint(other)
    plain = clone(origin, tmp_path / "plain")
    error = refused(plain)
    assert "filtered by 'shout', which this clone does not know" in error.message
    assert error.hint.startswith("git config filter.shout.smudge COMMAND && rm files/text && ")
    for name, value in SHOUT.items():
        git(plain, "config", name, value)
    # Git does not look at the file again, and has it for unchanged.
    error = refused(plain)
    assert "written under other settings" in error.message
    mend(error, plain)
    assert fingerprint(plain) == fingerprint(one)


def test_a_filter_applied_by_one_clone_only_is_refused(origin, tmp_path):
    here = clone(origin, tmp_path / "here", "--no-checkout", **SHOUT)
    (here / ".git/info/attributes").write_text("files/text filter=shout\n")
    git(here, "checkout", "-q", "main")
    assert (here / "files/text").read_bytes() == b"ONE\nTWO\n"
    assert "gives it the attribute filter (shout)" in refused(here).message


def test_a_filter_program_in_the_repository_may_call_git(origin, tmp_path):
    """It runs where git would run it, and sees this clone and not ours."""
    origin.write("tools/stamp", "#!/bin/sh\ncat\ngit config stamp.word\n").chmod(0o755)
    attributes(origin, "files/text filter=stamp\n")
    settings = {"filter.stamp.smudge": "tools/stamp", "filter.stamp.clean": "head -n2"}
    here = clone(origin, tmp_path / "here", **settings, **{"stamp.word": "hello"})
    assert (here / "files/text").read_text() in {"one\ntwo\n", "one\ntwo\nhello\n"}
    (here / "files/text").unlink()
    git(here, "checkout", "--", "files/text")
    assert (here / "files/text").read_text() == "one\ntwo\nhello\n"
    fingerprint(here)


def test_a_failing_filter_stops_the_plan(origin, tmp_path):
    attributes(origin, "files/text filter=shout\n")
    here = clone(origin, tmp_path / "here", **SHOUT)
    git(here, "config", "filter.shout.smudge", "false")
    with pytest.raises(
        GitError,
        match=r"^git cannot say what a new clone would have: .*smudge filter shout failed$",
    ):
        tree(here)


def test_lfs_pointers_and_their_files_have_the_same_fingerprint(origin, tmp_path):
    content = b"large\n"
    attributes(origin, "files/text filter=lfs -text\n")
    digest = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 6\n"
    origin.write("files/text", pointer)
    origin.commit("A pointer")
    store = tmp_path / "lfs"
    store.write_bytes(content)
    (tmp_path / "pointer").write_text(pointer)
    lfs = {
        "filter.lfs.smudge": f"cat >/dev/null; cat {store}",
        "filter.lfs.clean": f"cat >/dev/null; cat {tmp_path}/pointer",
        "filter.lfs.required": "true",
    }
    pointers, files = clone(origin, tmp_path / "p"), clone(origin, tmp_path / "f", **lfs)
    assert (files / "files/text").read_bytes() == content
    assert fingerprint(pointers) == fingerprint(files)


@pytest.mark.parametrize(
    ("setting", "why", "path"),
    [
        ("core.symlinks", "it is a symbolic link in the commit or here", "files/tree/link"),
        ("core.fileMode", "it may be executed in the commit or here", "files/tree/program"),
    ],
)
def test_missing_links_and_modes_are_refused(origin, tmp_path, setting, why, path):
    here = clone(origin, tmp_path / "here", **{setting: "false"})
    if setting == "core.fileMode":
        (here / path).chmod(0o644)
    else:
        assert not (here / path).is_symlink()
    assert git(here, "status", "--porcelain") == ""
    error = refused(here)
    assert error.message.startswith(f"{path}: is not what a new clone of commit ")
    assert why in error.message
    mend(error, here)
    assert fingerprint(here) == fingerprint(origin.root)


def test_a_file_with_other_line_ends_than_its_checkout_is_refused(origin, tmp_path):
    """Git stores it with other line ends than it has here, and takes it for unchanged."""
    attributes(origin, "* text=auto\n")
    origin.write("files/text", "one\r\ntwo\r\n")
    git(origin.root, "add", "-A")
    git(origin.root, "commit", "-q", "--allow-empty", "-m", "Text")
    assert git(origin.root, "status", "--porcelain") == ""
    error = refused(origin.root)
    assert "or never checked out" in error.message
    mend(error, origin.root)
    assert fingerprint(origin.root) == fingerprint(clone(origin, tmp_path / "other"))


def test_files_of_a_submodule_are_compared_too(origin, tmp_path):
    vendor = SpecsRepo.create(tmp_path / "vendor")
    vendor.write("a file", "one\n")
    vendor.commit()
    git(origin.root, "submodule", "-q", "add", vendor.root.as_uri(), "vendor")
    origin.spec("image", "simple:disk.img", "upload vendor/a file:/etc/a", "copy-in vendor:/srv")
    origin.commit("A submodule")
    recursive = "--recurse-submodules"
    wanted = fingerprint(clone(origin, tmp_path / "plain", recursive))
    here = clone(origin, tmp_path / "here", recursive)
    git(here / "vendor", "config", "core.autocrlf", "true")
    (here / "vendor/a file").unlink()
    git(here / "vendor", "checkout", "--", "a file")
    error = refused(here)
    assert error.message.startswith("vendor/a file: is not what a new clone of commit ")
    mend(error, here)
    assert fingerprint(here) == wanted
    # Git tells of no file in a submodule that it ignores there, and it would be copied.
    (here / ".git/modules/vendor/info/exclude").write_text("new\n")
    (here / "vendor/new").write_text("x")
    assert tree(here).dirty == {"vendor/new"}


def test_a_trusted_clone_of_another_owner_has_trusted_submodules(origin, tmp_path, monkeypatch):
    """As a container job has it: the workspace is the runner's, and root plans."""
    vendor = SpecsRepo.create(tmp_path / "vendor")
    vendor.write("a file", "one\n")
    vendor.commit()
    git(origin.root, "submodule", "-q", "add", vendor.root.as_uri(), "vendor")
    origin.spec("image", "simple:disk.img", "upload vendor/a file:/etc/a")
    origin.commit("A submodule")
    here = clone(origin, tmp_path / "here", "--recurse-submodules")
    wanted = fingerprint(here)
    settings = tmp_path / "gitconfig"
    settings.write_text(f"[safe]\n\tdirectory = {here}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    # Git's own tests have this variable.
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert fingerprint(here) == wanted


def of_sha256(origin, tmp_path):
    here = SpecsRepo(root=tmp_path / "here")
    here.root.mkdir()
    git(here.root, "init", "-q", "--object-format=sha256")
    git(origin.root, "checkout-index", "-a", f"--prefix={here.root}/")
    here.commit()
    (here.root / "files/text").unlink()
    git(here.root, "checkout", "--", "files/text")
    return here.root


def of_a_work_tree(origin, tmp_path):
    git(clone(origin, tmp_path / "main"), "worktree", "add", "-q", "--detach", tmp_path / "here")
    return tmp_path / "here"


def below_the_top(origin, tmp_path):
    outer = SpecsRepo.create(tmp_path / "outer")
    git(origin.root, "checkout-index", "-a", f"--prefix={outer.root}/vm/")
    outer.commit()
    return clone(outer, tmp_path / "here") / "vm"


def partial(origin, tmp_path):
    git(origin.root, "config", "uploadpack.allowFilter", "true")
    return clone(origin, tmp_path / "here", "--filter=blob:none", "--depth=1")


def sparse(origin, tmp_path):
    here = clone(origin, tmp_path / "here", "--sparse")
    git(here, "sparse-checkout", "set", "--sparse-index", "image-specs", "files")
    return here


@pytest.mark.parametrize("make", [of_sha256, of_a_work_tree, below_the_top, partial, sparse])
def test_every_form_of_a_clone_has_the_same_fingerprint(origin, tmp_path, make):
    attributes(origin, "files/text text eol=crlf\n")
    origin.write("elsewhere/file", "x\n")
    origin.commit()
    here = make(origin, tmp_path)
    before = sorted((here / ".git").glob("*"))
    assert fingerprint(here) == fingerprint(clone(origin, tmp_path / "plain"))
    assert sorted((here / ".git").glob("*")) == before


def test_git_variables_of_the_environment_change_nothing(origin, tmp_path, monkeypatch):
    attributes(origin, "files/text text eol=crlf\n")
    here = clone(origin, tmp_path / "here")
    wanted = fingerprint(here)
    settings = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.eol", "GIT_CONFIG_VALUE_0": "lf"}
    places = {"GIT_DIR": str(origin.root / ".git"), "GIT_INDEX_FILE": str(tmp_path / "none")}
    for name, value in {**settings, **places}.items():
        monkeypatch.setenv(name, value)
    assert fingerprint(here) == wanted


def test_the_command_line_names_the_file_the_setting_and_the_commands(origin, tmp_path):
    attributes(origin, "image-specs/* -text\ndisk.img -text\n")
    here = clone(origin, tmp_path / "here", **{"core.autocrlf": "true"})
    ran = SpecsRepo(root=here, environ=dict(IDENTITY)).run("ci", "plan")
    assert (ran.code, ran.out) == (2, "")
    head = f"is not what a new clone of commit {origin.head[:7]} has: core.autocrlf is true"
    assert f"files/text: {head}, so that git changes its line ends\n" in ran.err
    assert "git config --replace-all core.autocrlf false && rm " in ran.err
