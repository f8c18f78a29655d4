"""Wrong use of the real command line: one clear line, the designed exit code, no traceback."""

import errno
import os
import subprocess
import sys

import pytest

from lago_images.cli import main
from tests.support.specs import SpecsRepo, git
from tests.support.terminal import terminal
from tests.tools import need

need("git")


@pytest.fixture
def repo(tmp_path):
    return SpecsRepo.with_one(tmp_path / "specs")


@pytest.mark.parametrize(
    ("code", "said", "args"),
    [
        (2, "there is no spec 'onne'", ["build", "onne"]),
        (2, "there is no spec 'onne'", ["ci", "rebuild", "onne"]),
        (2, "did you mean 'one'?", ["ci", "plan", "onne"]),
        (2, "name what to rebuild: --changed, --all", ["ci", "rebuild"]),
        (2, "there is no commit 'nosuch'", ["ci", "plan", "--base", "nosuch"]),
        (2, "name one that git log --all shows", ["ci", "plan", "--base", "nosuch"]),
        (2, "cannot read the plan", ["ci", "build", "--plan", "nosuch.json", "one"]),
        (2, "make one: lago-images ci plan --output p.json", ["ci", "report", "--plan", "p.json"]),
        (2, "No such command 'lst'; did you mean 'list'?", ["repo", "lst"]),
        (2, "No such command 'biuld'; did you mean 'build'?", ["biuld"]),
        (2, "No such command 'rebuild'; did you mean 'ci rebuild'?", ["rebuild"]),
        (2, "No such command 'yank'; did you mean 'repo yank'?", ["yank"]),
        (2, "No such command 'qqq'\n", ["qqq"]),
        (2, "one.img is not a plan", ["ci", "publish", "--plan", "one.img"]),
        (2, "not a place for a repository", ["repo", "list", "--repository", "ftp://h/x"]),
        (
            2,
            "s3:bucket/x: an address of S3 has two",
            ["repo", "list", "--repository", "s3:bucket/x"],
        ),
        (2, "'' is not a bucket's name", ["repo", "list", "--repository", "s3:/bucket/x"]),
        (2, "neither be read whole nor written", ["ci", "plan", "--repository", "https://h/x"]),
        (2, "https://h/x/images.json", ["repo", "list", "--repository", "https://h/x/"]),
        (2, "repo list --repository https://h/x\n", ["repo", "list", "https://h/x"]),
        (2, "repo log --repository ./image-repo\n", ["repo", "log", "./image-repo"]),
        (2, "s3://b/p is not the name of an image", ["repo", "show", "s3://b/p"]),
        (1, "Not a directory", ["repo", "list", "--repository", "one.img"]),
        (2, "there is no folder ", ["serve", "nosuch"]),
        (1, "nothing was published there", ["serve", "image-specs"]),
        (2, "one was never published", ["repo", "yank", "one", "--reason", "x"]),
        (2, "one was never published", ["repo", "rollback", "one"]),
        (2, "one.img: Not a directory", ["ci", "plan", "--output", "one.img/plan.json"]),
    ],
)
def test_errors_of_use_are_reported_without_a_traceback(repo, code, said, args):
    ran = repo.run(*args)
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_an_error_of_use_fits_a_terminal_of_forty_columns(repo):
    with terminal(40) as screen:
        argv = [sys.executable, "-m", "lago_images", "ci", "plan", "--nosuch-option-at-all"]
        # The workers of pytest-xdist have one.
        env = {name: text for name, text in repo.env().items() if name != "COLUMNS"}
        ran = subprocess.run(argv, cwd=repo.root, env=env, stderr=screen.stream, check=False)
        seen = [line.rstrip() for line in screen.lines()]
    assert ran.returncode == 2
    assert "  'lago-images ci plan --help' for help." in seen
    assert seen[-3:-1] == ["Error: No such option", "  '--nosuch-option-at-all'."]


def test_invalid_settings_exit_2_with_file_and_line(repo):
    repo.write("lago-images.toml", "job = 1\n")
    for args in (["ci", "plan"], ["build"], ["repo", "list"], ["repo", "verify"]):
        ran = repo.run(*args)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == "lago-images.toml:1: unknown setting 'job'; did you mean 'jobs'?\n"


def test_a_folder_without_specs_suggests_init(tmp_path):
    repo = SpecsRepo(root=tmp_path)
    ran = repo.run("ci", "plan")
    assert (ran.code, ran.out) == (2, "")
    assert "lago-images init" in ran.err


def test_an_unwritable_repository_is_reported_before_the_build(repo):
    ran = repo.run("build", "--repo-dir", "one.img/repo")
    assert ran.code == 1
    assert "== build" not in ran.err
    assert ran.err.splitlines()[-2:] == [
        f"error: writing probe in {repo.root}/one.img/repo: Not a directory",
        "hint: a file is in the way of a folder: remove it",
    ]
    assert "Traceback" not in ran.err


def test_a_missing_signing_key_is_reported_before_the_build(repo):
    ran = repo.run("build", environ={"LAGO_IMAGES_SIGNING_KEY": "file:nosuch.asc"})
    assert ran.code != 0
    assert "nosuch.asc" in ran.err
    assert "== build" not in ran.err
    assert not (repo.root / "image-repo/builds").exists()


def test_the_repository_is_set_by_option_environment_or_settings(repo):
    """Each wins over the next."""
    repo.write("lago-images.toml", 'repository = "from-file"\n')
    environ = {"LAGO_IMAGES_REPOSITORY": "from-environment"}
    for args, variables, folder in (
        ([], {}, "from-file"),
        ([], environ, "from-environment"),
        (["--repository", "from-option"], environ, "from-option"),
    ):
        (repo.root / folder).mkdir()
        ran = repo.run("repo", "refresh", *args, environ=variables)
        assert ran.code == 0, ran.err
        assert {path.parent.name for path in repo.root.glob("from-*/index")} == {folder}
        (repo.root / folder / "index").unlink()


def test_shared_options_may_stand_before_the_command(repo):
    before = repo.run("--repository", "elsewhere", "repo", "list", "--format", "json")
    after = repo.run("repo", "list", "--format", "json", "--repository", "elsewhere")
    assert (before.code, before.out) == (after.code, after.out)
    assert before.code == 0, before.err


@pytest.mark.parametrize("first", [["-C", "specs"], []])
def test_a_path_on_the_command_line_is_relative_to_the_current_folder(repo, first):
    """With -C too; in the settings and the environment it starts at the specs repository."""
    published = repo.root.parent / "published"
    published.mkdir()
    assert repo.run("repo", "refresh", "--repository", str(published)).code == 0
    here = repo.root.parent if first else repo.root / "image-specs"
    path = "published" if first else "../../published"
    for args in (["repo", "refresh", "--repository", path], ["repo", "verify", path]):
        ran = repo.run(*first, *args, folder=here)
        assert ran.code == 0, ran.err
    ran = repo.run("serve", path, "--bind", "256.0.0.1", folder=here)
    assert "nothing was published there" not in ran.err
    environ = {"LAGO_IMAGES_REPOSITORY": path}
    ran = repo.run(*first, "repo", "list", folder=here, environ=environ)
    assert f"there is no folder {repo.root / path}" in ran.err


def test_a_missing_repository_is_reported(repo):
    ran = repo.run("repo", "list", "--repository", "nosuch")
    assert (ran.code, len(ran.out.splitlines())) == (0, 1)
    assert f"there is no folder {repo.root}/nosuch" in ran.err


def test_a_limit_without_git_is_a_usage_error(tmp_path):
    (tmp_path / "plain/image-specs").mkdir(parents=True)
    plain = SpecsRepo(root=tmp_path / "plain")
    plain.spec("one", "libguestfs:x")
    ran = plain.run("ci", "plan", "--base", "main")
    assert (ran.code, ran.out) == (2, "")
    assert f"{plain.root} is not in a git repository" in ran.err
    git(plain.root, "init", "-q")
    ran = plain.run("ci", "plan", "--base", "main")
    assert (ran.code, ran.out) == (2, "")
    assert "nothing is committed yet" in ran.err


@pytest.mark.parametrize(
    ("said", "args", "environ"),
    [
        ("--base-url", ["build", "--base-url", "ftp://x"], {}),
        ("LAGO_IMAGES_BASE_URL", ["build"], {"LAGO_IMAGES_BASE_URL": "ftp://x"}),
        ("LAGO_IMAGES_BASE_URL", ["ci", "rebuild", "one"], {"LAGO_IMAGES_BASE_URL": "ftp://x"}),
        ("lago-images.toml:1", ["build"], {}),
    ],
)
def test_an_invalid_url_is_reported_with_its_origin_before_the_plan(repo, said, args, environ):
    if ":" in said:
        repo.write("lago-images.toml", 'base-url = "ftp://x"\n')
    ran = repo.run(*args, environ=environ)
    assert (ran.code, ran.out) == (2, "")
    wrong = ran.err.splitlines()[0]
    assert wrong.startswith(f"{said}: ")
    assert wrong.endswith("must be an http, https or file URL, not 'ftp://x'")


_IMPORTED = """
import sys
from lago_images.cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    assert not done.code, done.code
print(*sys.modules)
"""


_HEAVY = {"boto3", "git", "github", "jinja2", "msgspec", "urllib3", "lago_images.building"}


@pytest.mark.parametrize(
    ("slow", "args"),
    [
        ({*_HEAVY, "lago_images.settings", "lago_images.storage"}, ["--version"]),
        ({*_HEAVY, "lago_images.settings", "lago_images.storage", "lago_images.cli.lint"}, ["-h"]),
        ({*_HEAVY, "lago_images.cli.ci"}, ["ci", "--help"]),
        ({*_HEAVY, "lago_images.cli.repo"}, ["repo", "--help"]),
        ({"git", "github", "lago_images.building"}, ["repo", "list", "--help"]),
    ],
)
def test_a_command_imports_no_slow_module_that_it_does_not_use(slow, args):
    argv = [sys.executable, "-c", _IMPORTED, *args]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    imported = set(ran.stdout.splitlines()[-1].split())
    assert "lago_images.cli" in imported
    assert not slow & imported


def test_completion_imports_no_command():
    """It runs the program once a key press."""
    code = _IMPORTED.replace("main(sys.argv[1:])", "main()")
    environ = {
        **os.environ,
        "_LAGO_IMAGES_COMPLETE": "bash_complete",
        "COMP_WORDS": "lago-images re",
        "COMP_CWORD": "1",
    }
    for words, position, completed in (
        ("lago-images re", "1", "plain,repo"),
        ("lago-images ci re", "2", "plain,rebuild"),
    ):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={**environ, "COMP_WORDS": words, "COMP_CWORD": position},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert completed in ran.stdout.splitlines()
        assert not (_HEAVY | {"lago_images.settings"}) & set(ran.stdout.splitlines()[-1].split())


S3 = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
BUCKET = 'repository = "s3://bucket/prefix"\nbase-url = "https://images.example.org"\n'


def test_build_makes_a_directory_where_the_settings_name_a_bucket(repo):
    repo.write("lago-images.toml", BUCKET + 'signing-key = "env:NOT_HERE"\n')
    ran = repo.run("build", environ=S3)
    assert ran.code == 0, ran.err
    assert "not into s3://bucket/prefix" in ran.err
    assert "lago-images ci rebuild --changed" in ran.err
    published = (repo.root / "image-repo/repo.metadata").read_text()
    assert "images.example.org" not in published
    assert repo.run("build", "--repo-dir", "other", environ=S3).code == 0
    assert "images.example.org" not in (repo.root / "other/repo.metadata").read_text()


def test_build_refuses_a_bucket_that_is_asked_for(repo):
    ran = repo.run("build", "--repository", "s3://bucket/prefix", environ=S3)
    assert (ran.code, ran.out) == (2, "")
    assert "build makes a directory, and s3://bucket/prefix is a bucket" in ran.err
    assert "ci rebuild" in ran.err


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("ci plan --stale 3d", "'3d' is not a number of days"),
        ("ci rebuild --stale 3d", "'3d' is not a number of days"),
        ("build --jobs all", "'all' is not a number of chains"),
        ("repo rollback one --to v1", "'v1' is not the number of a revision"),
        ("serve --port http", "'http' is not the number of a port"),
        ("serve --port 70000", "70000 is not in the range 0<=x<=65535"),
    ],
)
def test_what_is_no_number_is_told_with_what_is_wanted(repo, words, what):
    ran = repo.run(*words.split())
    assert (ran.code, ran.out) == (2, "")
    assert what in ran.err


def test_clearing_up_a_missing_folder_says_so(repo):
    ran = repo.run("--repository", "mistyped", "repo", "gc")
    assert f"there is no folder {repo.root / 'mistyped'}" in ran.err
    assert "is empty" not in ran.err


@pytest.mark.parametrize("url", ["s3://bucket/x", "s3:bucket", "s3:/bucket"])
def test_build_refuses_a_bucket_as_its_directory(repo, url):
    for option in (["--repo-dir", url], [f"--repo-dir={url}"]):
        ran = repo.run("build", *option)
        assert (ran.code, ran.out) == (2, "")
        assert f"build makes a directory, and {url} is a bucket" in ran.err
        assert "hint: to publish to a bucket: lago-images ci rebuild --changed" in ran.err
    assert not list(repo.root.glob("s3:*"))


def test_build_takes_the_url_of_its_directory(repo, tmp_path):
    ran = repo.run("build", "--repo-dir", f"file://{tmp_path}/by%20url")
    assert ran.code == 0, ran.err
    assert (tmp_path / "by url/repo.metadata").exists()
    assert not (repo.root / "file:").exists()


@pytest.mark.parametrize("url", ["s3://bucket/x", "https://host/x", "file://host/x"])
@pytest.mark.parametrize(
    "words",
    [
        *("build --logs", "build --timings", "try one --output", "ci plan --output"),
        *("ci report --junit", "init", "man"),
    ],
)
def test_no_file_or_folder_is_named_after_a_url(repo, words, url):
    before = sorted(repo.root.iterdir())
    ran = repo.run(*words.split(), url)
    assert (ran.code, ran.out) == (2, "")
    assert f"{url} is no path of this machine" in ran.err
    assert sorted(repo.root.iterdir()) == before


def test_the_hint_names_the_settings_missing_for_a_bucket(repo):
    ran = repo.run("ci", "rebuild", "--changed", "--repository", "s3://bucket/prefix", environ=S3)
    assert (ran.code, ran.out) == (2, "")
    assert "base-url is not set" in ran.err
    hint = ran.err.splitlines()[-1]
    assert "--base-url" in hint
    assert "LAGO_IMAGES_BASE_URL" in hint
    assert "NAME" not in hint
    base_url = ["--base-url", "https://images.example.org"]
    ran = repo.run(
        *("ci", "rebuild", "--changed", "--repository", "s3://bucket/prefix", *base_url),
        environ=S3,
    )
    assert ran.code == 1
    assert "base-url" not in ran.err


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "permissions"),
        (errno.EROFS, "read-only"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_an_operating_system_error_comes_with_a_hint(monkeypatch, capsys, code, hint):
    def refuse(*_):
        raise OSError(code, os.strerror(code), "/srv/images/x")

    monkeypatch.setattr("lago_images.cli.lint.inspect", refuse)
    with pytest.raises(SystemExit) as ended:
        main(["lint"])
    assert ended.value.code == 1
    err = capsys.readouterr().err
    assert f"/srv/images/x: {os.strerror(code)}" in err
    assert hint in err
