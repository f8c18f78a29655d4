"""Settings that cannot work, and keys in the wrong place: told by lint, where they are written."""

import pytest

from tests.support.keys import make_key
from tests.support.specs import SpecsRepo, git
from tests.tools import need

need("git", "gpg")
COMMANDS = (("lint",), ("ci", "plan"), ("build",), ("repo", "list"), ("repo", "refresh"))


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return make_key(tmp_path_factory.mktemp("keys"), "signing")


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.spec("a", "libguestfs:x")
    return repo


@pytest.mark.parametrize(
    "place", ["image-specs", "image-specs/out", ".", "..", "/", "./image-repo/.."]
)
def test_a_repository_among_the_specs_or_over_the_checkout_is_refused(repo, place):
    repo.write("lago-images.toml", f'name = "x"\nrepository = "{place}"\n')
    before = sorted(repo.root.rglob("*"))
    for command in COMMANDS:
        ran = repo.run(*command)
        assert ran.code == 2
        assert "lago-images.toml:2: the repository /" in ran.out + ran.err
    assert repo.run("repo", "refresh", environ={"LAGO_IMAGES_REPOSITORY": "x"}).code == 0
    ran = repo.run("repo", "list", "--repository", place)
    assert (ran.code, ran.err.partition(":")[0]) == (2, "--repository")
    assert sorted(path for path in repo.root.rglob("*") if "x" not in path.parts) == before


def test_a_repository_is_read_from_its_own_folder(repo):
    assert repo.run("repo", "refresh").code == 0
    folder = repo.root.parent / "pub"
    folder.mkdir()
    assert repo.run("repo", "list", "--repository", ".", folder=folder).code == 0


@pytest.mark.parametrize(
    "line",
    [
        'base-url = "images.example.org"',
        'base-url = "s3://x"',
        'base-url = "http://[::1"',
        'repository = "s3:/x"',
        'repository = "s3://My Bucket/"',
        'repository = "s3://bucket/a/../b"',
        'repository = "https://images.example.org/b"',
        'repository = "file://host/b"',
        'repository = ""',
    ],
)
def test_lint_refuses_what_later_commands_refuse(repo, line):
    repo.write("lago-images.toml", f'name = "x"\n{line}\n')
    for command in COMMANDS:
        ran = repo.run(*command)
        assert ran.code == 2
        assert ran.err.startswith("lago-images.toml:2: ")


@pytest.mark.parametrize("url", ["s3:/x", "s3://My Bucket/", "https://h/b", "image-specs", "."])
def test_init_writes_no_repository_that_is_refused(tmp_path, url):
    repo = SpecsRepo(root=tmp_path)
    ran = repo.run("init", "--repository", url)
    assert (ran.code, list(tmp_path.iterdir())) == (2, [])


def test_a_variable_that_is_no_setting_is_told(repo):
    ours = {
        "LAGO_IMAGES_TEST_BOOTS": "1",
        "LAGO_IMAGES_PLAN_SHA256": "1",
        "LAGO_IMAGES_VENV": "/x",
        "LAGO_IMAGES_NAME": "x",
        "LAGO_IMAGES_MY_KEY": "secret",
        "LAGO_IMAGES_SIGNING_KEY": "env:LAGO_IMAGES_MY_KEY",
    }
    assert "warning" not in repo.run("lint", environ=ours).err
    for command in (("lint",), ("ci", "plan")):
        ran = repo.run(*command, environ={**ours, "LAGO_IMAGES_NMAE": "hunter2"})
        assert "warning: the variable LAGO_IMAGES_NMAE is no setting" in ran.err
        assert "did you mean LAGO_IMAGES_NAME?" in ran.err
        assert "hunter2" not in ran.err


def findings(repo):
    checks = repo.run("doctor", "--format", "json").json()["checks"]
    return [(each["state"], each["found"]) for each in checks if each["name"] == "signing key"]


def test_a_key_in_the_work_tree_is_told(repo, key):
    path = repo.write("signing-key.asc", key.secret.read_text())
    path.chmod(0o600)
    repo.write("lago-images.toml", 'name = "x"\nsigning-key = "signing-key.asc"\n')
    ran = repo.run("lint")
    assert ran.code == 0
    assert "warning: lago-images.toml:2: the signing key" in ran.err
    assert "git add takes it along" in ran.err
    [(state, found)] = findings(repo)
    assert state == "warning"
    assert "is in the specs repository" in found
    git(repo.root, "add", "signing-key.asc")
    ran = repo.run("lint")
    assert ran.code == 2
    assert ran.out.startswith("lago-images.toml:2: the signing key")
    assert "make a new key" in ran.out
    [(state, found)] = findings(repo)
    assert state == "missing"
    assert "is in git" in found


def test_a_key_that_others_can_read_is_told(repo, key):
    path = repo.write("signing-key.asc", key.secret.read_text())
    repo.write(".gitignore", "*.asc\n")
    repo.write("lago-images.toml", 'signing-key = "file:signing-key.asc"\n')
    path.chmod(0o640)
    assert "chmod 600" in repo.run("lint").err
    assert [state for state, _found in findings(repo)] == ["warning"]
    path.chmod(0o600)
    assert "warning" not in repo.run("lint").err
    assert findings(repo) == []
