"""The reader of git, on real repositories: shallow, rewritten, renamed, with submodules."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from lago_images.errors import GitError, ToolMissingError, UsageError
from lago_images.planning.digests import Files
from lago_images.planning.git import Git
from lago_images.planning.git_output import Change
from tests.support.specs import SpecsRepo, git


@pytest.fixture
def repo(tmp_path: Path) -> SpecsRepo:
    repo = SpecsRepo.create(tmp_path / "origin")
    git(repo.root, "config", "uploadpack.allowAnySHA1InWant", "true")
    return repo


def save(repo: SpecsRepo, path: str, text: str, subject: str = "") -> str:
    repo.write(path, text)
    git(repo.root, "add", "-A")
    git(repo.root, "commit", "-qm", subject or f"Change {path}")
    return git(repo.root, "rev-parse", "HEAD")


def clone(repo: SpecsRepo, into: Path, *options: str) -> Path:
    git(repo.root, "clone", "-q", *options, repo.root.as_uri(), str(into))
    return into


def test_a_folder_outside_git_has_no_repository(tmp_path):
    assert Git.find(tmp_path) is None


def test_a_repository_without_commits_has_no_head(repo):
    repo.write("a", "1")
    with Git(repo.root) as found:
        assert found.head() is None
        assert found.snapshot(["."]).entries == {}


def test_a_repository_that_git_refuses_stops_the_run(tmp_path):
    (tmp_path / ".git").mkdir()
    with pytest.raises(GitError, match="git rev-parse failed: fatal: not a git repository"):
        Git.find(tmp_path)


def test_missing_git_is_reported_with_its_package(repo, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissingError) as caught:
        Git.find(repo.root)
    assert caught.value.hint == "apt-get install git"


RECORDER = """#!/bin/sh
env > "$0.log/$$"
exec {git} "$@"
"""


def test_git_gets_no_credentials(repo, tmp_path):
    """Neither when it is looked for nor when it is used, and it keeps what fetching needs."""
    repo.spec("a", "simple:disk.img")
    repo.disk("disk.img")
    repo.commit()
    wrapper = tmp_path / "bin/git"
    (tmp_path / "bin/git.log").mkdir(parents=True)
    wrapper.write_text(RECORDER.format(git=shutil.which("git")))
    wrapper.chmod(0o755)
    secret = {"AWS_SECRET_ACCESS_KEY", "SIGNING_KEY", "GITHUB_TOKEN"}
    needed = {"GIT_SSH_COMMAND", "SSH_AUTH_SOCK", "HTTPS_PROXY", "SUDO_UID"}
    given = dict.fromkeys((*secret, *needed), "told")
    given |= {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "LC_ALL": "de_DE.UTF-8"}
    ran = repo.run("ci", "plan", environ=given)
    assert ran.code == 0, ran.err
    seen = [
        dict(line.split("=", 1) for line in told.read_text().splitlines() if "=" in line)
        for told in (tmp_path / "bin/git.log").iterdir()
    ]
    assert len(seen) > 3
    for environ in seen:
        assert "told" not in {environ.get(name) for name in secret}
        assert {environ.get(name) for name in needed} == {"told"}
        assert environ["LC_ALL"] == "C"


def test_passwords_in_urls_are_redacted(repo):
    with Git(repo.root) as found, pytest.raises(GitError) as caught:
        found._run("log", "http://user:s3cret@127.0.0.1:1/x", "--")
    assert "s3cret" not in caught.value.message
    assert "//…@127.0.0.1" in caught.value.message


def test_snapshot_distinguishes_clean_changed_staged_and_hidden_files(repo):
    for name in ("clean", "changed", "staged", "gone", "hidden", "touched"):
        repo.write(name, name)
    head = save(repo, "clean", "clean")
    repo.write("changed", "other")
    repo.write("staged", "other")
    git(repo.root, "add", "staged")
    (repo.root / "gone").unlink()
    git(repo.root, "update-index", "--assume-unchanged", "hidden")
    repo.write("hidden", "other")
    os.utime(repo.root / "touched", (1, 1))
    with Git(repo.root) as found:
        seen = found.snapshot(["."])
        assert found.head() == head
    assert seen.changed == {"changed", "gone", "hidden"}
    assert seen.dirty == {"changed", "gone", "hidden", "staged"}
    assert seen.entries["clean"] == ("100644", git(repo.root, "hash-object", "clean"))
    assert seen.entries["staged"][1] == git(repo.root, "hash-object", "staged")


def test_a_stash_shown_by_git_status_is_not_a_file(repo):
    save(repo, "a", "1")
    repo.write("a", "2")
    git(repo.root, "stash", "-q")
    git(repo.root, "config", "status.showStash", "true")
    repo.write("a", "3")
    with Git(repo.root) as found:
        assert found.snapshot(["."]).dirty == {"a"}


def test_paths_are_relative_to_the_specs_root_below_the_git_root(repo):
    old = save(repo, "below/image-specs/a b", "1", 'Say "hello" äöü')
    save(repo, "elsewhere", "1")
    repo.write("below/image-specs/a b", "2")
    new = save(repo, "below/image-specs/ünï", "1", 'Say "hello" äöü')
    repo.write("below/image-specs/ünï", "2")
    repo.write("elsewhere", "2")
    with Git(repo.root / "below") as found:
        seen = found.snapshot(["image-specs"])
        assert set(seen.entries) == {"image-specs/a b", "image-specs/ünï"}
        assert seen.changed == {"image-specs/ünï"}
        assert {c.path for c in found.changes(old, new)} == set(seen.entries)
        commits = found.commits(old, new, ["image-specs"])
    assert set(commits) == set(seen.entries)
    assert str(commits["image-specs/ünï"][0]) == f'{new[:7]} "Say "hello" äöü"'


def test_names_that_look_like_patterns_or_options_are_taken_literally(repo):
    old = save(repo, "ab", "1")
    new = save(repo, "a*", "1")
    newer = save(repo, ":(top)x/-n", "1")
    with Git(repo.root) as found:
        assert [c.path for c in found.changes(old, newer, ["a*"])] == ["a*"]
        assert [c.path for c in found.changes(new, newer, [":(top)x"])] == [":(top)x/-n"]
        assert set(found.snapshot(["a*"]).entries) == {"a*"}


@pytest.mark.parametrize("depth", [(), ("--depth=1",)])
def test_a_commit_is_checked_out_elsewhere_and_nothing_changes_here(
    repo, tmp_path, monkeypatch, depth
):
    first = save(repo, "below/specs/a", "1")
    save(repo, "below/specs/a", "2")
    here = clone(repo, tmp_path / "clone", *depth)
    hook = tmp_path / "template/hooks/post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path / "template"))
    (here / "below/specs/a").write_text("3")
    before = {str(path.relative_to(here)) for path in here.rglob("*")}
    with Git(here / "below") as found:
        assert found.ensure(first)
        after_fetch = {str(path.relative_to(here)) for path in here.rglob("*")}
        with found.export(first, tmp_path / "new") as other:
            assert other.folder == tmp_path / "new/below"
            assert other.head() == first
            assert (other.folder / "specs/a").read_text() == "1"
            assert not other.snapshot(["specs"]).dirty
    assert (here / "below/specs/a").read_text() == "3"
    assert after_fetch == {str(path.relative_to(here)) for path in here.rglob("*")}
    assert depth or before == after_fetch
    assert not (tmp_path / "ran").exists()


def test_renames_are_detected(repo):
    old = save(repo, "image-specs/old", "many lines\n" * 9)
    git(repo.root, "mv", "image-specs/old", "image-specs/new")
    new = save(repo, "other", "1")
    with Git(repo.root) as found:
        assert found.changes(old, new) == (
            Change(status="R", path="image-specs/new", old="image-specs/old"),
            Change(status="A", path="other"),
        )


@pytest.fixture
def line(repo) -> list[str]:
    """A history of 120 commits, more than one step of deepening."""
    tree = git(repo.root, "mktree")
    commits = [git(repo.root, "commit-tree", tree, "-m", "0")]
    for number in range(1, 120):
        parent = commits[-1]
        commits.append(git(repo.root, "commit-tree", tree, "-p", parent, "-m", str(number)))
    git(repo.root, "update-ref", "refs/heads/main", commits[-1])
    return commits


def test_a_shallow_clone_is_deepened_only_as_far_as_needed(repo, line, tmp_path):
    with Git(clone(repo, tmp_path / "clone", "--depth=1")) as found:
        assert not found.has(line[-40])
        assert found.ensure(line[-40])
        assert found.shallow
        assert found.is_ancestor(line[-40], line[-1]) is True
        assert found.shallow
        assert not found.has(line[0])
        assert found.is_ancestor(line[-1], line[-40]) is False
        assert not found.shallow


def test_a_head_on_no_branch_is_deepened(repo, line, tmp_path):
    here = clone(repo, tmp_path / "clone", "--depth=1")
    git(repo.root, "checkout", "-q", "--orphan", "main2")
    save(repo, "new", "1")
    git(repo.root, "branch", "-q", "-D", "main")
    with Git(here) as found:
        assert found.is_ancestor(line[3], line[-1]) is True


def test_a_commit_removed_by_a_force_push_is_fetched(repo, line, tmp_path):
    git(repo.root, "checkout", "-q", "main")
    lost = save(repo, "lost", "1")
    git(repo.root, "reset", "-q", "--hard", line[-1])
    here = clone(repo, tmp_path / "clone")
    with Git(here) as found:
        head = found.head()
        assert not found.has(lost)
        assert found.is_ancestor(lost, head) is False
        assert found.is_ancestor(head, lost) is True
        assert [c.path for c in found.changes(lost, head)] == ["lost"]
        assert found.ensure_all([lost, line[0], "f" * 40, "unknown", "--all"]) == {
            *("f" * 40, "unknown", "--all")
        }


def test_branches_are_fetched_from_a_remote_that_refuses_single_commits(repo, line, tmp_path):
    here = clone(repo, tmp_path / "clone", "--depth=1")
    git(here, "config", "protocol.version", "0")
    git(repo.root, "config", "uploadpack.allowAnySHA1InWant", "false")
    with Git(here) as found:
        assert found.is_ancestor(line[5], line[-1]) is True
        assert found.is_ancestor("f" * 40, line[-1]) is None


def test_unknown_ancestry_is_not_guessed(repo, line, tmp_path):
    here = clone(repo, tmp_path / "clone", "--depth=2")
    git(here, "remote", "set-url", "origin", (tmp_path / "nowhere").as_uri())
    with Git(here) as found:
        assert found.is_ancestor(line[-2], line[-1]) is True
        assert found.is_ancestor(line[-1], line[-2]) is None
        assert found.is_ancestor(line[-3], line[-1]) is None
        assert found.merge_base(line[-3], line[-1]) is None


def test_files_older_than_a_shallow_clone_are_attributed_to_no_commit(repo, tmp_path):
    first = save(repo, "a", "1")
    save(repo, "b", "1")
    save(repo, "c", "1")
    here = clone(repo, tmp_path / "clone", "--depth=2")
    with Git(here) as found:
        assert found.ensure(first)
        assert [c.path for c in found.changes(first, found.head())] == ["b", "c"]
        assert set(found.commits(first, found.head())) == {"c"}


def test_merge_base_and_fork_work_in_a_shallow_clone(repo, line, tmp_path):
    git(repo.root, "checkout", "-q", "-b", "feature", line[10])
    head = save(repo, "feature", "1")
    here = clone(repo, tmp_path / "clone", "--depth=1", "--no-single-branch", "-b", "feature")
    with Git(here) as found:
        assert found.fork("origin/main", head) == line[10]
        assert found.merge_base(line[-1], head) == line[10]
        assert found.strangers([line[-1], line[3]], head) == {line[-1]}


@pytest.mark.parametrize("depth", [(), ("--depth=1",)], ids=["whole", "shallow"])
def test_a_remote_branch_missing_from_the_clone_is_fetched(repo, line, depth, tmp_path):
    """As in a CI's clone of one pull request."""
    git(repo.root, "checkout", "-q", "-b", "feature/x", line[10])
    head = save(repo, "feature", "1")
    options = ("--single-branch", *depth, "-b", "feature/x")
    with Git(clone(repo, tmp_path / "clone", *options)) as found:
        assert found.fork("origin/main", head) == line[10]
    with Git(clone(repo, tmp_path / "other", "--single-branch", *depth, "-b", "main")) as found:
        assert found.resolve("origin/feature/x") == head


@pytest.mark.parametrize("rev", ["origin/deleted", "--all", "", "f" * 40])
def test_an_unknown_revision_is_a_usage_error(repo, line, rev, tmp_path):
    with Git(clone(repo, tmp_path / "clone")) as found, pytest.raises(UsageError):
        found.fork(rev, line[-1])


def test_unrelated_histories_are_a_usage_error(repo, line):
    git(repo.root, "checkout", "-q", "--orphan", "other")
    head = save(repo, "other", "1")
    with Git(repo.root) as found, pytest.raises(UsageError, match="no history in common"):
        found.fork("main", head)


def digests(folder: Path, *paths: str, known: bool = True) -> list:
    with Git(folder) as found:
        files = Files(root=folder, git=found.snapshot(["."]) if known else None)
        return [files.digests(path) for path in paths]


def test_digests_are_the_same_in_git_outside_it_and_in_any_clone(repo, tmp_path):
    repo.write("files/run.sh", "#!/bin/sh\n").chmod(0o755)
    repo.write("files/deep/data", b"\0\r\n" * 1000)
    (repo.root / "files/link").symlink_to("run.sh")
    save(repo, "top", "1\n")
    paths = ("files", "files/run.sh", "files/link", "top", "files/deep/data")
    here = digests(repo.root, *paths)
    assert [(below, mode) for below, mode, _ in here[0]] == [
        *(("deep/data", "100644"), ("link", "120000"), ("run.sh", "100755")),
    ]
    assert here[1] == here[2], "a link is followed"
    assert digests(repo.root, *paths, known=False) == here
    assert digests(clone(repo, tmp_path / "shallow", "--depth=1"), *paths) == here


def test_changed_untracked_and_ignored_files_count_and_are_dirty(repo):
    repo.write(".gitignore", "*.pyc\n")
    save(repo, "files/a", "1")
    before = digests(repo.root, "files")
    repo.write("files/b.pyc", "1")
    repo.write("files/a", "2")
    with Git(repo.root) as found:
        files = Files(root=repo.root, git=found.snapshot(["files"]))
        after = files.digests("files")
    assert after != before[0]
    assert files.dirty == {"files/a", "files/b.pyc"}
    git(repo.root, "add", "-A", "-f")
    git(repo.root, "commit", "-qm", "x")
    assert digests(repo.root, "files") == [after]


@pytest.mark.parametrize("removed", [["rm", "-q"], ["rm", "-q", "--cached"]])
def test_a_file_deleted_from_a_folder_is_dirty(repo, removed):
    save(repo, "files/a", "1")
    save(repo, "files/deep/b", "1")
    git(repo.root, *removed, "files/deep/b")
    with Git(repo.root) as found:
        files = Files(root=repo.root, git=found.snapshot(["files"]))
        files.digests("files")
    assert files.dirty == {"files/deep/b"}


def test_a_link_out_of_the_repository_is_refused(repo):
    (repo.root / "out").symlink_to("/etc/passwd")
    save(repo, "a", "1")
    with pytest.raises(ValueError, match="out leads out of the repository"):
        digests(repo.root, "out")
    with pytest.raises(FileNotFoundError):
        digests(repo.root, "nowhere")


def test_a_fifo_in_a_folder_does_not_block(repo):
    save(repo, "files/a", "1")
    os.mkfifo(repo.root / "files/pipe")
    assert ("pipe", "special", "") in digests(repo.root, "files")[0]


@pytest.fixture
def submodule(repo, tmp_path) -> SpecsRepo:
    other = SpecsRepo.create(tmp_path / "other")
    save(other, "conf/a", "1")
    git(repo.root, "submodule", "add", "-q", other.root.as_uri(), "vendor")
    save(repo, "x", "1")
    return other


def test_a_submodules_files_count_by_their_checked_out_bytes(repo, submodule, tmp_path):
    content = ("100644", hashlib.sha256(b"1").hexdigest())
    expected = [(("", *content),), (("conf/a", *content),)]
    assert digests(repo.root, "vendor/conf/a", "vendor") == expected
    whole = clone(repo, tmp_path / "whole", "--recurse-submodules")
    assert digests(whole, "vendor/conf/a", "vendor") == expected


@pytest.mark.parametrize("path", ["vendor/conf/a", "vendor", "."])
def test_a_submodule_that_is_not_checked_out_is_refused(repo, submodule, tmp_path, path):
    bare = clone(repo, tmp_path / "bare")
    with pytest.raises(ValueError, match="the submodule vendor is not checked out"):
        digests(bare, path)


def test_a_changed_submodule_is_dirty(repo, submodule):
    with Git(repo.root) as found:
        old = found.head()
    clean = digests(repo.root, "vendor/conf/a")
    repo.write("vendor/conf/a", "2")
    with Git(repo.root) as found:
        files = Files(root=repo.root, git=found.snapshot(["vendor"]))
        dirty = files.digests("vendor/conf/a")
    assert dirty != clean[0]
    assert files.dirty == {"vendor"}
    git(repo.root / "vendor", "commit", "-qam", "Two")
    new = save(repo, "y", "1")
    assert digests(repo.root, "vendor/conf/a") == [dirty]
    with Git(repo.root) as found:
        assert {c.path for c in found.changes(old, new)} == {"vendor", "y"}


def test_the_git_index_is_not_written(repo):
    save(repo, "a", "1")
    os.utime(repo.root / "a", (1, 1))
    before = (repo.root / ".git/index").read_bytes()
    with Git(repo.root) as found:
        found.snapshot(["."])
    assert (repo.root / ".git/index").read_bytes() == before


def test_a_sha256_repository_is_read(tmp_path):
    git(tmp_path, "init", "-q", "--object-format=sha256")
    repo = SpecsRepo(root=tmp_path)
    first = save(repo, "a", "1")
    second = save(repo, "b", "1")
    repo.write("a", "2")
    with Git(tmp_path) as found:
        seen = found.snapshot(["."])
        assert found.is_ancestor(first, second) is True
    assert seen.entries["b"][1] == git(tmp_path, "hash-object", "b")
    expected = hashlib.sha256(b"2").hexdigest()
    assert Files(root=tmp_path, git=seen).digests("a") == (("", "100644", expected),)


DELIVERED = {
    "eol": ("file text eol=crlf\n", b"1\n2\n"),
    "ident": ("file ident\n", b"$Id$\n"),
    "encoding": ("file text working-tree-encoding=UTF-16LE\n", b"1\n"),
    "filter": ("file filter=shout\n", b"a\n"),
}


@pytest.mark.parametrize("kind", DELIVERED)
def test_digests_are_of_the_bytes_that_attributes_and_filters_check_out(repo, tmp_path, kind):
    """Git's blob is one and the same; what a build reads is not."""
    attributes, blob = DELIVERED[kind]
    repo.write("file", blob)
    plain = save(repo, "plain", "1")
    as_it_is = digests(repo.root, "file")
    repo.write(".gitattributes", attributes)
    git(repo.root, "add", ".gitattributes")
    git(repo.root, "commit", "-qm", "Attributes")
    shout = ("-c", "filter.shout.smudge=tr a-z A-Z", "-c", "filter.shout.clean=tr A-Z a-z")
    one = clone(repo, tmp_path / "one", *shout)
    other = clone(repo, tmp_path / "other", "--depth=1", *shout)
    assert git(one, "rev-parse", "HEAD:file") == git(one, "rev-parse", f"{plain}:file")
    delivered = digests(one, "file")
    assert (one / "file").read_bytes() != blob
    assert delivered != as_it_is
    assert delivered == digests(other, "file") == digests(one, "file", known=False)
    assert delivered[0][0][2] == hashlib.sha256((one / "file").read_bytes()).hexdigest()
    with Git(one) as found:
        assert found.snapshot(["."]).dirty == set()


def test_files_that_git_assumes_unchanged_count_by_their_bytes(repo, tmp_path):
    """Attributes that were taken back leave what they delivered before, and git looks away."""
    save(repo, "file", "1\n")
    save(repo, ".gitattributes", "* text eol=crlf\n")
    here = clone(repo, tmp_path / "clone")
    (repo.root / ".gitattributes").unlink()
    repo.commit()
    git(here, "pull", "-q")
    assert (here / "file").read_bytes() == b"1\r\n"
    fresh = clone(repo, tmp_path / "fresh")
    assert (fresh / "file").read_bytes() == b"1\n"
    assert digests(here, "file") != digests(fresh, "file")


def test_a_git_lfs_pointer_counts_as_the_content_that_it_names(repo):
    content = b"large\n" * 1000
    named = hashlib.sha256(content).hexdigest()
    pointer = "version https://git-lfs.github.com/spec/v1\n"
    pointer += f"oid sha256:{named}\nsize {len(content)}\n"
    repo.write("file", content)
    repo.write("pointer", pointer)
    repo.write("extended", pointer.replace("oid", f"ext-0-x sha256:{named}\noid"))
    repo.write("longer", f"{pointer}\n")
    there, only, *others = digests(repo.root, "file", "pointer", "extended", "longer", known=False)
    assert there == only == (("", "100644", named),)
    assert named not in {other[0][2] for other in others}


@pytest.mark.parametrize("path", ["files/secret", "files"])
def test_a_file_locked_by_git_crypt_is_refused(repo, path):
    repo.write("files/plain", b"GITCRYPT\0")
    repo.write("files/secret", b"\0GITCRYPT\0" + bytes(12) + b"encrypted")
    with pytest.raises(ValueError, match=r"files/secret is locked by git-crypt \(git-crypt unlock"):
        digests(repo.root, path, known=False)


def test_an_empty_folder_is_copied_and_counts(repo):
    save(repo, "files/a", "1")
    before = digests(repo.root, "files")
    (repo.root / "files/deep/er").mkdir(parents=True)
    assert set(digests(repo.root, "files")[0]) - set(before[0]) == {("deep/er", "040000", "")}


def test_the_answer_of_an_fsmonitor_is_not_trusted(repo, tmp_path):
    monitor = repo.write("monitor", "#!/bin/sh\nprintf 'now\\0'\n")
    monitor.chmod(0o755)
    save(repo, "a", "1")
    git(repo.root, "config", "core.fsmonitor", str(monitor))
    git(repo.root, "config", "core.fsmonitorHookVersion", "2")
    git(repo.root, "update-index", "--fsmonitor")
    git(repo.root, "status")
    repo.write("a", "2")
    assert git(repo.root, "status", "--porcelain") == ""
    with Git(repo.root) as found:
        assert found.snapshot(["."]).dirty == {"a"}


def test_variables_of_a_git_hook_are_ignored(repo, tmp_path):
    """Git sets them for hooks: of the repository that the hook is run for."""
    other = SpecsRepo.create(tmp_path / "other")
    other.write("x", "x")
    other.commit()
    repo.spec("a", "simple:disk.img")
    repo.disk("disk.img")
    head = repo.commit()
    given = {
        "GIT_DIR": str(other.root / ".git"),
        "GIT_WORK_TREE": str(other.root),
        "GIT_INDEX_FILE": str(other.root / ".git/index"),
        "GIT_OBJECT_DIRECTORY": str(other.root / ".git/objects"),
        "GIT_COMMON_DIR": str(other.root / ".git"),
        "GIT_NAMESPACE": "x",
        "GIT_PREFIX": "image-specs/",
    }
    ran = repo.run("ci", "plan", "--format", "json", environ=given)
    assert ran.code == 0, ran.err
    assert (ran.json()["head"], ran.json()["dirty"]) == (head, False)


def test_a_revision_beyond_a_shallow_clone_is_refused_with_a_hint(repo, tmp_path):
    """What is called HEAD~1 cannot be fetched by that name."""
    for content in "12":
        repo.write("x", content)
        repo.commit()
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repo.root}", "shallow")
    with Git(tmp_path / "shallow") as shallow, pytest.raises(UsageError) as raised:
        shallow.resolve("HEAD~1")
    assert "git fetch --unshallow origin" in raised.value.hint
    git(tmp_path / "shallow", "fetch", "--unshallow", "origin")
    with Git(tmp_path / "shallow") as whole:
        assert whole.resolve("HEAD~1")
        with pytest.raises(UsageError) as raised:
            whole.resolve("HEAD~9")
    assert "git fetch" not in raised.value.hint
