"""No command ever prints the text of a secret key, wherever it was put by mistake."""

import base64
import re

import pytest

from tests.support.emulators import failing_qemu
from tests.support.keys import home, make_key
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git", "gpg")
COMMANDS = (
    ("lint",),
    ("build",),
    ("repo", "refresh"),
    ("repo", "list"),
    ("repo", "verify"),
    ("ci", "plan"),
    ("doctor", "--format", "json"),
    ("doctor",),
)
FEW = (("lint",), ("repo", "list"), ("ci", "plan"))
ADVICE = "this looks like a key, not the name of one: put it into an environment variable"
REPOSITORIES = ("LAGO_IMAGES_REPOSITORY", "LAGO_IMAGES_BASE_URL", "LAGO_IMAGES_BRANCH")


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return make_key(tmp_path_factory.mktemp("keys"), "signing")


@pytest.fixture
def repo(tmp_path):
    return SpecsRepo.create(tmp_path / "specs", failing_qemu(tmp_path / "qemu"))


def forms(key):
    armour = key.secret.read_text()
    packed = base64.b64encode(key.secret.read_bytes()).decode()
    lines = armour.splitlines()
    body = "".join(lines[2:-2])
    for text in (armour, packed, body, lines[3]):
        yield from (text, f"env:{text}", f"file:{text}", f"agent:{text}")


def assert_hidden(ran, *texts):
    """Twelve characters in a row of a key tell that it was printed."""
    said = re.sub(r"\s", "", ran.out + ran.err)
    for text in texts:
        for line in text.splitlines():
            pieces = [line[at : at + 12] for at in range(max(len(line) - 11, 0))]
            shown = [piece for piece in pieces if piece in said and "PRIVATEKEY" not in piece]
            if "PRIVATE KEY" not in line:
                assert not shown, said


@pytest.mark.parametrize("github", [False, True])
def test_a_key_in_place_of_its_name_is_refused_and_not_shown(repo, key, github):
    environ = {"GITHUB_ACTIONS": "true"} if github else {}
    for text in forms(key):
        for command in (("repo", "refresh"), ("doctor",)):
            ran = repo.run(*command, environ={**environ, "LAGO_IMAGES_SIGNING_KEY": text})
            assert ran.code == (2 if command[0] == "repo" else 1)
            assert ADVICE in ran.err + re.sub(r"\s+", " ", ran.out)
            assert_hidden(ran, text.partition(":")[2] or text, text)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_shows_it(repo, key, command):
    text = key.secret.read_text()
    ran = repo.run(*command, environ={"LAGO_IMAGES_SIGNING_KEY": text})
    assert ran.code == (1 if command[0] == "doctor" else 2)
    assert_hidden(ran, text)


def test_the_file_of_the_settings_is_named_with_the_line(repo, key):
    text = key.secret.read_text()
    repo.write("lago-images.toml", f'name = "x"\nsigning-key = """{text}"""\n')
    ran = repo.run("repo", "refresh")
    assert (ran.code, ran.err) == (2, f"lago-images.toml:2: {ADVICE} and say env:VARIABLE\n")


@pytest.mark.parametrize("setting", ["jobs", "promote", "name", "repository", "specs", "unknown"])
def test_no_other_setting_is_quoted_with_it(repo, key, setting):
    text = "".join(key.secret.read_text().splitlines()[2:-2])
    repo.write("lago-images.toml", f'{setting} = "{text}"\n{text.strip("=/+")[:70]} = 1\n')
    for command in FEW:
        assert_hidden(repo.run(*command), text)


@pytest.mark.parametrize("variable", REPOSITORIES)
def test_no_other_variable_is_quoted_with_it(repo, key, variable):
    text = "".join(key.secret.read_text().splitlines()[2:-2])
    for command in FEW:
        ran = repo.run(*command, environ={variable: text})
        assert_hidden(ran, text)
    assert not list(repo.root.glob("lF*"))


def test_options_and_variables_of_the_store_are_not_quoted_with_it(repo):
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_PROFILE"):
        environ = {variable: secret, "AWS_MAX_ATTEMPTS": "1"}
        ran = repo.run("repo", "list", "--repository", "s3://bucket", environ=environ)
        assert ran.code != 0
        assert_hidden(ran, secret)
    environ = {"AWS_ENDPOINT_URL_S3": "http://me:hunter2hunter2@127.0.0.1:9/x y"}
    ran = repo.run("repo", "list", "--repository", "s3://bucket", environ=environ)
    assert_hidden(ran, "hunter2hunter2")
    assert_hidden(repo.run("repo", "list", "--repository", secret), secret)


@pytest.mark.parametrize("form", ["armour", "binary", "base64", "piece", "openssh"])
def test_a_key_among_the_specs_is_one_problem_without_its_text(repo, key, form):
    repo.spec("a", "libguestfs:x")
    with home() as gpg:
        gpg.import_keys(key.secret.read_bytes())
        binary = gpg.call("--export-secret-keys", key.fingerprint)
    armour = key.secret.read_text()
    text = {
        "armour": armour,
        "binary": binary,
        "base64": base64.encodebytes(binary).decode(),
        "piece": "\n".join(armour.splitlines()[3:]),
        "openssh": armour.replace("PGP PRIVATE KEY BLOCK", "OPENSSH PRIVATE KEY"),
    }[form]
    repo.write("image-specs/key", text)
    for arguments in ([], ["--format", "json"]):
        ran = repo.run("lint", *arguments, environ={"GITHUB_ACTIONS": "true"})
        assert ran.code == 2
        assert "this looks like a secret key, whose text is not shown" in ran.out
        assert "image-specs/key" in ran.out
        assert "1 problem" in ran.err
        assert_hidden(ran, armour, base64.encodebytes(binary).decode())
    assert_hidden(repo.run("ci", "plan"), armour)


def test_a_spec_with_a_piece_of_a_key_does_not_show_it(repo, key):
    lines = key.secret.read_text().splitlines()[2:-1]
    repo.spec("a", "libguestfs:x", *lines)
    ran = repo.run("lint")
    assert ran.code == 2
    assert "image-specs/a:8: this looks like a secret key" in ran.out
    assert_hidden(ran, *lines)
    repo.spec(
        "a", "libguestfs:x", f"#base-key={lines[1]}", f"install{lines[1]}", f"upload {lines[1]}"
    )
    assert_hidden(repo.run("lint"), *lines)


def test_a_spec_may_write_a_file_of_base64(repo, key):
    lines = key.public.read_text().splitlines()
    repo.spec("a", "libguestfs:x", "write /etc/key.asc:" + "\\\n".join(lines))
    assert repo.run("lint").code == 0
