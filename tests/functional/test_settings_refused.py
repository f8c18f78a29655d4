"""Settings that cannot work, and keys in the wrong place: told by lint, where they are written."""

import json

import pytest

from tests.support.emulators import failing_qemu
from tests.support.keys import make_key
from tests.support.specs import SpecsRepo, git
from tests.tools import need

need("git", "gpg")
COMMANDS = (("lint",), ("ci", "plan"), ("build",), ("repo", "list"), ("repo", "refresh"))


WRITING = tuple(command for command in COMMANDS if command != ("repo", "list"))
READING = (("repo", "list"), ("repo", "verify"), ("repo", "gc"))


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return make_key(tmp_path_factory.mktemp("keys"), "signing")


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs", failing_qemu(tmp_path / "qemu"))
    repo.spec("a", "libguestfs:x")
    return repo


@pytest.mark.parametrize(
    "place", ["image-specs", "image-specs/out", ".", "..", "/", "./image-repo/.."]
)
def test_a_repository_among_the_specs_or_over_the_checkout_is_refused(repo, place):
    repo.write("lago-images.toml", f'name = "x"\nrepository = "{place}"\n')
    before = sorted(repo.root.rglob("*"))
    for command in WRITING:
        ran = repo.run(*command)
        assert ran.code == 2
        assert "lago-images.toml:2: the repository /" in ran.out + ran.err
    (repo.root / "x").mkdir()
    assert repo.run("repo", "refresh", environ={"LAGO_IMAGES_REPOSITORY": "x"}).code == 0
    ran = repo.run("repo", "refresh", "--repository", place)
    assert (ran.code, ran.err.partition(":")[0]) == (2, "--repository")
    assert sorted(path for path in repo.root.rglob("*") if "x" not in path.parts) == before


@pytest.mark.parametrize(
    "name", ["my images", "ab", "x" * 256, "-images", "tenant:images", "images\u00e9"]
)
def test_what_no_store_has_as_a_buckets_name_is_refused_where_it_is_written(repo, name):
    url, what = f"s3://{name}/prefix", f"{name!r} is not a bucket's name"
    repo.write("lago-images.toml", f'name = "x"\nrepository = "{url}"\n')
    linted = repo.run("lint")
    assert (linted.code, f"lago-images.toml:2: {url}: {what}" in linted.out + linted.err) == (
        2,
        True,
    )
    (repo.root / "lago-images.toml").unlink()
    ran = repo.run("repo", "list", environ={"LAGO_IMAGES_REPOSITORY": url})
    assert (ran.code, f"LAGO_IMAGES_REPOSITORY: {url}: {what}" in ran.err) == (2, True), ran.err
    for words in (("repo", "list"), ("init", "new")):
        ran = repo.run(*words, "--repository", url)
        assert (ran.code, f"{url}: {what}" in ran.err) == (2, True), ran.err
    assert "3 to 63 lower case letters, digits, dots and hyphens" in ran.err
    assert not (repo.root / "new").exists()


@pytest.mark.parametrize(
    ("name", "is_usual"), [("Bucket_Name", False), ("a..b", False), ("my-images.1", True)]
)
def test_a_name_that_few_stores_take_is_told_where_none_answers(repo, name, is_usual):
    environ = {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    ran = repo.run("repo", "list", "--repository", f"s3://{name}/x y", environ=environ)
    assert ran.code == 1
    assert "check AWS_ENDPOINT_URL_S3" in ran.err
    assert (f"check the bucket's name, {name}: most stores take" in ran.err) is not is_usual


def test_a_repository_is_read_from_its_own_folder(repo):
    folder = repo.root.parent / "pub"
    folder.mkdir()
    assert repo.run("repo", "list", "--repository", ".", folder=folder).code == 0


def test_a_repository_around_the_checkout_is_read_and_not_written(repo):
    above = repo.root.parent
    environ = {"LAGO_IMAGES_REPOSITORY": str(above / "made")}
    (above / "made").mkdir()
    assert repo.run("repo", "refresh", environ=environ).code == 0
    (above / "made").rename(above / "around")
    repo.root.rename(above / "around/specs")
    inner = SpecsRepo(root=above / "around/specs")
    for read in READING:
        ran = inner.run(*read, "--repository", "..")
        assert (ran.code, "the folder of the checkout" in ran.err) == (0, False), ran.err
    for command in (("repo", "refresh"), ("repo", "gc", "--apply"), ("build",)):
        ran = inner.run(*command, "--repository", "..")
        assert (ran.code, "is the folder of the checkout" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize(
    ("url", "why"),
    [("file://srv/images", "a file URL has three slashes"), ("", "the repository's URL is empty")],
)
def test_an_option_that_names_no_place_has_its_own_reason(repo, url, why):
    for command in (("repo", "list"), ("repo", "refresh"), ("build",)):
        ran = repo.run(*command, "--repository", url)
        assert (ran.code, why in ran.err, "checkout" in ran.err) == (2, True, False), ran.err


def test_a_long_path_is_no_key(repo):
    place = repo.root.parent / "VirtualMachines/ImageRepositories/Production2026"
    place.mkdir(parents=True)
    repo.write("lago-images.toml", f'repository = "{place}"\nsigning-key = "file:{place}/Key"\n')
    for command in (("lint",), ("repo", "list"), ("repo", "refresh")):
        ran = repo.run(*command)
        assert "secret key" not in ran.out + ran.err
        assert "this looks like a key" not in ran.out + ran.err
        assert ran.code == (1 if command[-1] == "refresh" else 0)
    assert f"cannot read the signing key {place}/Key: No such file" in ran.err


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
    assert "git add takes it along; move it out of there, or say env:VARIABLE in " in ran.err
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


@pytest.mark.parametrize("place", [".git", ".git/keys", "other", "other/below"])
def test_a_key_that_git_does_not_see_is_not_told(repo, place):
    (repo.root / "other").mkdir()
    git(repo.root / "other", "init", "--quiet")
    path = repo.write(f"{place}/signing-key.asc", "secret")
    path.chmod(0o600)
    repo.write("lago-images.toml", f'signing-key = "{place}/signing-key.asc"\n')
    ran = repo.run("lint")
    assert (ran.code, ran.err.count("warning")) == (0, 0), ran.err
    assert findings(repo) == []


@pytest.mark.parametrize("name", ["signing-key", "repository"])
def test_a_home_folder_that_is_not_there_is_told_where_it_is_set(repo, name):
    repo.write("lago-images.toml", f'name = "x"\n{name} = "~no-such-user/x"\n')
    repo.spec("b", "libguestfs:x", "foo")
    ran = repo.run("lint")
    assert ran.code == 2
    assert "lago-images.toml:2: there is no home folder for the ~ of ~no-such-user/x" in ran.out
    assert "unknown command 'foo'" in ran.out
    for command in (("doctor",), ("repo", "refresh")):
        assert repo.run(*command).code in {1, 2}
    ran = repo.run("repo", "list", "--repository", "~no-such-user/x")
    assert (ran.code, "no home folder" in ran.err) == (2, True)


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


@pytest.fixture
def disk(repo):
    need("qemu-img")
    (repo.root / "image-specs/a").unlink()
    repo.disk("disk.raw", size=1 << 16)
    repo.spec("one", "simple:disk.raw")
    repo.commit()
    return repo


def site(repo, folder="image-repo"):
    plain = json.loads((repo.root / folder / "repo.metadata").read_text())
    return plain["name"], *(each["args"]["baseurl"] for each in plain["sources"].values())


def test_a_name_and_url_that_a_run_would_change_are_told(disk):
    options = ("--repo-name", "my-images", "--base-url", "https://images.example.org")
    assert "becomes" not in disk.run("build", *options).err
    text = 'name = "my-images"\nbase-url = "https://images.example.org"\n'
    disk.write("lago-images.toml", text)
    disk.run("build")
    assert "becomes" not in disk.run("build").err
    environ = {"LAGO_IMAGES_BASE_URL": "https://other.example.org"}
    assert (
        "the published base-url 'https://images.example.org' becomes 'https://other.example.org', "
        "as LAGO_IMAGES_BASE_URL says" in disk.run("build", environ=environ).err
    )
    ran = disk.run("repo", "refresh", "--base-url", "https://third.example.org")
    assert "becomes 'https://third.example.org', as --base-url says" in ran.err
    assert site(disk) == ("my-images", "https://third.example.org")


@pytest.mark.parametrize(
    "command", [("build",), ("build", "one"), ("ci", "rebuild", "one"), ("repo", "refresh")]
)
def test_a_default_replaces_no_published_name_and_no_url(disk, command):
    """Clients of lago would be sent to their own machine, which nobody asked for."""
    options = ("--repo-name", "my-images", "--base-url", "https://images.example.org")
    assert disk.run("build", *options).code == 0
    ran = disk.run(*command)
    assert (ran.code, "becomes" in ran.err) == (0, False), ran.err
    for kept in ("name 'my-images'", "base-url 'https://images.example.org'"):
        said = f"the published {kept} is kept: no file, variable or option says another\n"
        assert ran.err.count(said) == 1
    assert site(disk) == ("my-images", "https://images.example.org")
    checks = disk.run("doctor", "--format", "json").json()["checks"]
    assert "https://images.example.org" in [each["found"] for each in checks]
    # Who does mean the default says so.
    default = {"LAGO_IMAGES_BASE_URL": "http://127.0.0.1:8181", "LAGO_IMAGES_NAME": "test"}
    assert "becomes 'test', as LAGO_IMAGES_NAME says" in disk.run(*command, environ=default).err
    assert site(disk) == ("test", "http://127.0.0.1:8181")
    assert "is kept" not in disk.run(*command).err


def test_a_changed_url_is_told_once_in_a_run_that_builds(disk):
    assert disk.run("build").code == 0
    ran = disk.run("ci", "rebuild", "one", "--base-url", "https://images.example.org")
    assert ran.err.count("becomes 'https://images.example.org', as --base-url says") == 1


def test_a_published_url_that_can_be_none_gives_way_to_the_default(disk):
    assert disk.run("build").code == 0
    metadata = disk.root / "image-repo/repo.metadata"
    metadata.write_text(metadata.read_text().replace("http://127.0.0.1:8181", "nowhere"))
    ran = disk.run("repo", "refresh")
    assert "published base-url 'nowhere' becomes the default 'http://127.0.0.1:8181'" in ran.err
    assert site(disk) == ("test", "http://127.0.0.1:8181")


def test_who_withdraws_or_clears_up_changes_no_name_and_no_url(disk):
    """Nor do the settings judge another repository than theirs."""
    options = ("--repo-name", "staging", "--base-url", "https://staging.example.org")
    named = ("--repository", str(disk.root / "staging"))
    disk.run("build", *options, *named)
    disk.run("build", *options, *named, "one")
    disk.write("lago-images.toml", 'name = "production"\nbase-url = "https://images.example.org"\n')
    for command in (
        ("rollback", "one", "--to", "1", "--reason", "old"),
        ("yank", "one", "--reason", "old"),
        ("gc", "--apply"),
    ):
        ran = disk.run("repo", *command, *named)
        assert ran.code == 0, ran.err
        assert "becomes" not in ran.err
        assert site(disk, "staging") == ("staging", "https://staging.example.org")
    for judged in (("verify", *named), ("verify", named[1])):
        assert "renders to" not in disk.run("repo", *judged).out
    assert (
        "published name 'staging' becomes 'production'" in disk.run("repo", "refresh", *named).err
    )


def test_build_beside_a_bucket_says_that_its_directory_is_signed(disk, key):
    signing = {"LAGO_IMAGES_SIGNING_KEY": str(key.secret)}
    assert disk.run("build", environ=signing).code == 0
    bucket = {**signing, "LAGO_IMAGES_REPOSITORY": "s3://lab-images"}
    for options in ((), ("--repo-dir", "image-repo")):
        ran = disk.run("build", *options, environ=bucket)
        assert ran.code == 2
        assert f"{disk.root}/image-repo is signed, and build signs nothing" in ran.err
        assert "hint: name another with --repo-dir" in ran.err
        assert "put it back" not in ran.err
    ran = disk.run("--repository", "image-repo", "build", environ=bucket)
    assert ran.code == 0, ran.err
    assert disk.run("build", "--repo-dir", "other", environ=bucket).code == 0


def test_keys_in_the_wrong_order_and_a_key_that_is_none_have_their_own_reasons(repo, key, tmp_path):
    new = make_key(tmp_path, "new")
    signed = {"LAGO_IMAGES_SIGNING_KEY": str(key.secret)}
    (repo.root / "image-specs/a").unlink()
    repo.disk("disk.raw", size=1 << 16)
    repo.spec("one", "simple:disk.raw")
    assert repo.run("build", environ=signed).code == 0
    swapped = {"LAGO_IMAGES_SIGNING_KEY": f"{new.secret},{key.secret}"}
    ran = repo.run("repo", "refresh", environ=swapped)
    assert ran.code == 1
    assert f"index.asc is signed by {key.fingerprint}, which is in signing-key, but not" in ran.err
    other = {"LAGO_IMAGES_SIGNING_KEY": str(new.secret)}
    ran = repo.run("repo", "refresh", "--retire-key", "ABC", environ=other)
    assert ran.code == 1
    assert "--retire-key ABC: no key of this repository, which is signed by " in ran.err
    assert f"hint: lago-images repo refresh --retire-key {key.fingerprint}" in ran.err
    both = {"LAGO_IMAGES_SIGNING_KEY": f"{key.secret},{new.secret}"}
    assert repo.run("repo", "refresh", environ=both).code == 0
    third = {"LAGO_IMAGES_SIGNING_KEY": str(make_key(tmp_path, "third").secret)}
    ran = repo.run("repo", "refresh", "--retire-key", "ABC", environ=third)
    which = " or ".join(
        f"--retire-key {each}" for each in sorted((key.fingerprint, new.fingerprint))
    )
    assert f"hint: lago-images repo refresh {which}" in ran.err


@pytest.mark.parametrize("command", [("lint",), ("ci", "plan"), ("build",), ("try", "x")])
def test_where_there_is_no_spec_it_is_said_what_to_do_and_nothing_else(tmp_path, command):
    empty = SpecsRepo(root=tmp_path)
    ran = empty.run(*command)
    said = ran.out + ran.err
    assert ran.code == 2
    assert "(there are no specs here: lago-images init makes an example; -C names another" in said
    for idle in ("hint:", "nothing was done", "0 specs"):
        assert idle not in said


def test_at_the_top_of_several_folders_of_specs_these_are_named(tmp_path):
    top = SpecsRepo(root=tmp_path)
    for folder in ("two words", "servers", "no-settings/below"):
        top.write(f"{folder}/lago-images.toml", "")
    named = "here, but lago-images.toml below: say -C servers or -C 'two words'"
    for command in (("lint",), ("build",), ("serve",), ("repo", "verify"), ("doctor",)):
        ran = top.run(*command)
        assert named in " ".join((ran.out + ran.err).split()), command
    assert "next, in a folder for specs" not in top.run("doctor").err
    (tmp_path / "elsewhere").mkdir()
    ran = top.run("-C", str(tmp_path), "lint", folder=tmp_path / "elsewhere")
    assert "say -C ../servers or -C '../two words'" in ran.out
    for number in range(9):
        top.write(f"{number}/lago-images.toml", "")
    assert "-C 3 or -C 4, or another" in top.run("lint").out


def test_a_folder_of_specs_that_is_missing_is_told_where_it_is_set(repo):
    repo.write("lago-images.toml", 'name = "x"\nspecs = "images"\n')
    for command in (("lint",), ("ci", "plan"), ("build",)):
        ran = repo.run(*command)
        assert ran.code == 2
        assert f"lago-images.toml:2: there is no folder {repo.root}/images" in ran.out + ran.err
    ran = repo.run("lint", environ={"LAGO_IMAGES_SPECS": "other"})
    assert ran.out.startswith("LAGO_IMAGES_SPECS: there is no folder ")
