"""Settings: what a file and the environment may say, and how every slip is told."""

import os

import pytest

from lago_images.errors import SettingsError, UsageError
from lago_images.settings import (
    FILE,
    Settings,
    TemplateSource,
    load,
    misplaced,
    missing_specs,
    unknown_variables,
)


def problems(folder, environ=None):
    with pytest.raises(SettingsError) as wrong:
        load(folder, environ or {})
    return [str(problem) for problem in wrong.value.problems]


def test_the_defaults_apply_without_a_file(tmp_path):
    assert load(tmp_path, {"PATH": "/bin"}) == Settings(folder=tmp_path)


def test_every_setting_is_read_from_the_file(tmp_path):
    (tmp_path / FILE).write_text(
        """
repository = "s3://bucket/p"
name = "n"
base-url = "https://example.com/"
signing-key = "env:KEY"
single-writer = true
promote = "never"
specs = "specs"
jobs = 2
boot-timeout = 60
require-kvm = true
network = false
compression-level = 6
publish-also = ["qcow2"]
keep-revisions = 3
keep-days = 0
grace-days = 1
[[template-sources]]
url = "https://example.com/index.asc"
fingerprint = "F"
key = "key.asc"
"""
    )
    source = TemplateSource(url="https://example.com/index.asc", fingerprint="F", key="key.asc")
    assert load(tmp_path, {}) == Settings(
        repository="s3://bucket/p",
        name="n",
        base_url="https://example.com/",
        signing_key="env:KEY",
        single_writer=True,
        promote="never",
        specs="specs",
        jobs=2,
        boot_timeout=60,
        require_kvm=True,
        network=False,
        compression_level=6,
        publish_also=("qcow2",),
        keep_revisions=3,
        keep_days=0,
        grace_days=1,
        template_sources=(source,),
        folder=tmp_path,
    )


def test_the_environment_overrides_the_file(tmp_path):
    (tmp_path / FILE).write_text('name = "file"\njobs = 2\n')
    environ = {"LAGO_IMAGES_NAME": "env", "LAGO_IMAGES_SINGLE_WRITER": "true"}
    settings = load(tmp_path, environ)
    assert (settings.name, settings.jobs, settings.single_writer) == ("env", 2, True)


def test_the_environment_has_lists_with_commas(tmp_path):
    assert load(tmp_path, {"LAGO_IMAGES_PUBLISH_ALSO": "qcow2"}).publish_also == ("qcow2",)
    (tmp_path / FILE).write_text('publish-also = ["qcow2"]\n')
    assert load(tmp_path, {"LAGO_IMAGES_PUBLISH_ALSO": "none"}).publish_also == ()
    twice = {"LAGO_IMAGES_PUBLISH_ALSO": "qcow2,qcow2"}
    assert load(tmp_path, twice).publish_also == ("qcow2",)
    variables = {"LAGO_IMAGES_PUBLISH_ALSO": "qcow2, vmdk"}
    assert problems(tmp_path, variables) == ["LAGO_IMAGES_PUBLISH_ALSO: may list qcow2, not 'vmdk'"]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ('"qcow2"', "must be a list, not 'qcow2'"),
        ("true", "must be a list, not True"),
        ('["qcow2", "raw"]', "may list qcow2, not 'raw'"),
        ('[["qcow2"]]', "may list qcow2, not ['qcow2']"),
        ("[{}]", "may list qcow2, not {}"),
    ],
)
def test_other_forms_than_those_there_are_cannot_be_asked_for(tmp_path, value, what):
    (tmp_path / FILE).write_text(f"publish-also = {value}\n")
    assert problems(tmp_path) == [f"lago-images.toml:1: publish-also {what}"]


@pytest.mark.parametrize(
    ("said", "kept"), [("./specs", "specs"), ("a//b/./c/", "a/b/c"), ("./", "."), (".", ".")]
)
def test_the_folder_of_specs_is_normalised_as_git_names_it(tmp_path, said, kept):
    assert load(tmp_path, {"LAGO_IMAGES_SPECS": said}).specs == kept
    (tmp_path / FILE).write_text(f'specs = "{said}"\n')
    assert load(tmp_path, {}).specs == kept


def test_all_problems_are_reported_with_lines_and_suggestions(tmp_path):
    (tmp_path / FILE).write_text(
        'nam = "x"\njobs = "3"\nbase_url = "x"\ncompression-level = 10\n'
        '[[template-sources]]\nurll = "x"\n'
    )
    assert problems(tmp_path, {"LAGO_IMAGES_KEEP_DAYS": "soon"}) == [
        "LAGO_IMAGES_KEEP_DAYS: must be a whole number, not 'soon'",
        "lago-images.toml:1: unknown setting 'nam'; did you mean 'name'?",
        "lago-images.toml:2: jobs must be a whole number, not '3'",
        "lago-images.toml:3: unknown setting 'base_url'; did you mean 'base-url'?",
        "lago-images.toml:4: compression-level must be at most 9, not 10",
        "lago-images.toml:5: a table of template-sources has no url",
        "lago-images.toml:6: unknown setting 'urll'; did you mean 'url'?",
    ]


def test_invalid_toml_is_reported_with_its_line(tmp_path):
    (tmp_path / FILE).write_text('name = "x"\njobs = \n')
    [problem] = problems(tmp_path)
    assert problem.startswith("lago-images.toml:2: not TOML: ")


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("jobs = 1\njobs = 2\n", 2, "jobs is set already, in line 1; remove one of the two"),
        ("jobs = 1\njobs = 2", 2, "jobs is set already, in line 1; remove one of the two"),
        (
            'publish-also = []\nname = "x"\npublish-also = [\n  "qcow2"\n]\n',
            3,
            "publish-also is set already, in line 1; remove one of the two",
        ),
        (
            '[[template-sources]]\nurl = "x"\n[[template-sources]]\nurl = "y"\nurl = "z"\n',
            5,
            (
                "url is set already, in line 4; remove one of the two, or begin another "
                "[[template-sources]] above it"
            ),
        ),
        (
            '[[template-sources]]\nurl = "x"\n[template-sources]\nurl = "y"\n',
            3,
            (
                "[template-sources] cannot stand beside [[template-sources]] of line 1; "
                "write [[template-sources]] here, too"
            ),
        ),
        (
            "[a]\n[b]\n[a]\n",
            3,
            "[a] is there already, in line 1; put the keys of both into one",
        ),
        ("a = 1\n[a]\n", 2, "a is set already, in line 1; remove one of the two"),
        (
            "a = {b = 1, b = 2}\n",
            1,
            "'a' is set twice, or holds a key twice; remove one of the two",
        ),
    ],
)
def test_what_is_set_twice_is_reported_with_both_lines(tmp_path, text, line, what):
    (tmp_path / FILE).write_text(text)
    assert problems(tmp_path) == [f"lago-images.toml:{line}: {what}"]


@pytest.mark.parametrize(
    ("text", "line", "advice"),
    [
        ("name = text\n", 1, '"text" in quotes'),
        ("\njobs 3\n", 2, "there is no = after the name"),
        ("jobs = 3 4\n", 1, "something follows the value"),
        ('name = "x\njobs = 1\n', 1, "add the quote that closes it"),
        ("jobs = 1\n\nname = '''x\n\n", 3, "add the quotes that close it"),
        ("jobs = 1\npublish-also = [\n", 2, "add the ] or the ,"),
        ("publish-also = [\n  'qcow2'\njobs = 2\n", 1, "add the ] or the ,"),
        ("publish-also = [\njobs = 2\n", 1, "add the ] or the ,"),
        ("publish-also = ['qcow2' 'qcow2']\n", 1, "add the ] or the ,"),
        ("publish-also = []\n\u00e9 = 2\n", 2, "a line is NAME = VALUE"),
        ("[template-sources\n", 1, "write [NAME] or [[NAME]]"),
        ("a = { b = 1", 1, "add the }"),
        ("= 1\n", 1, "a line is NAME = VALUE"),
        ('"a', 1, "add the quote that closes it"),
        ('name = "C:\\x"\n', 1, "a backslash is written"),
        ("name = \x01\n", 1, "a value is"),
        ('name = "\x01"\n', 1, "a line is NAME = VALUE"),
    ],
)
def test_what_is_not_toml_is_reported_with_what_to_do(tmp_path, text, line, advice):
    (tmp_path / FILE).write_text(text)
    [problem] = problems(tmp_path)
    assert problem.startswith(f"lago-images.toml:{line}: not TOML: ")
    assert advice in problem
    assert "(at " not in problem


def test_a_setting_that_was_added_below_a_table_is_reported_with_the_table(tmp_path):
    """As by ``echo 'jobs = 2' >>lago-images.toml``."""
    (tmp_path / FILE).write_text(
        'jobs = 1\n[[template-sources]]\nurl = "https://h/1"\n'
        '[[ "template-sources" ]] # two\nurl = "https://h/2"\nurll = ""\n'
        "text = '''\njobs = 7\n'''\njobs = 2\n[lago-images]\nbase-url = 'https://h'\n"
    )
    assert problems(tmp_path) == [
        "lago-images.toml:6: unknown setting 'urll'; did you mean 'url'?",
        "lago-images.toml:7: unknown setting 'text'",
        (
            "lago-images.toml:10: jobs stands in the table [[template-sources]] of line 4; "
            "move it above that line"
        ),
        "lago-images.toml:11: unknown setting 'lago-images'",
        (
            "lago-images.toml:12: base-url stands in the table [lago-images] of line 11; "
            "move it above that line"
        ),
    ]


def test_sources_without_headers_are_reported_where_they_begin(tmp_path):
    (tmp_path / FILE).write_text("jobs = 1\ntemplate-sources = [{ url = 1 }, { jobs = 2 }]\n")
    assert problems(tmp_path) == [
        "lago-images.toml:2: a table of template-sources has no url",
        "lago-images.toml:2: unknown setting 'jobs'",
        "lago-images.toml:2: url must be a string, not 1",
    ]


def test_a_file_that_is_not_utf_8_is_reported(tmp_path):
    (tmp_path / FILE).write_bytes(b'name = "\xff"\n')
    assert problems(tmp_path) == ["lago-images.toml: not UTF-8, as TOML must be"]


@pytest.mark.parametrize("value", ['"x"', "[1]", "[[1]]"])
def test_invalid_template_sources_are_problems(tmp_path, value):
    (tmp_path / FILE).write_text(f"template-sources = {value}\n")
    assert problems(tmp_path) == [
        "lago-images.toml:1: template-sources must be an array of tables: [[template-sources]]"
    ]


def test_a_committed_file_may_not_name_files_of_the_host(tmp_path):
    (tmp_path / FILE).write_text(
        'specs = "../x"\n[[template-sources]]\nurl = "file:///etc/passwd"\nkey = "/root/key"\n'
    )
    assert problems(tmp_path) == [
        "lago-images.toml:1: specs must be a folder inside the repository, not '../x'",
        "lago-images.toml:3: url must be an http or https URL, not 'file:///etc/passwd'",
        "lago-images.toml:4: key must be a file inside the repository, not '/root/key'",
    ]


def test_the_file_may_be_a_link_inside_the_repository(tmp_path):
    (tmp_path / "shared.toml").write_text("jobs = 2\n")
    (tmp_path / FILE).symlink_to("shared.toml")
    assert load(tmp_path, {}).jobs == 2


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda path, _: path.symlink_to(".git/config"),
            "the link leads to git's own files, which may hold credentials",
        ),
        (lambda path, out: path.symlink_to(out), "the link leads out of the repository"),
        (lambda path, _: path.symlink_to("gone"), "the link leads to nothing"),
        (lambda path, _: path.symlink_to(path.name), "cannot be read: a loop of links"),
        (lambda path, _: os.mkfifo(path), "is not a regular file"),
        (lambda path, _: path.mkdir(), "is not a regular file"),
        (
            lambda path, _: path.write_bytes(b"#" * (2**20 + 1)),
            "has 1048577 bytes, more than 1048576",
        ),
    ],
    ids=["git", "out", "gone", "loop", "pipe", "folder", "large"],
)
def test_a_settings_file_outside_the_repository_or_not_plain_is_refused(tmp_path, make, problem):
    root = tmp_path / "root"
    (root / ".git").mkdir(parents=True)
    (root / ".git/config").write_text('name = "token"\n')
    (tmp_path / "out.toml").write_text('name = "secret"\n')
    make(root / FILE, tmp_path / "out.toml")
    assert problems(root) == [f"lago-images.toml: {problem}"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("jobs = " + "[" * 1000 + "]" * 1000, "not TOML: nested too deeply"),
        ("a = " + "{a = " * 2000 + "1" + "}" * 2000, "not TOML: nested too deeply"),
        ("jobs = " + "1" * 5000, "not TOML: a number has too many digits"),
        ("jobs = 0x" + "f" * 5000, "jobs must be at most 2147483647"),
        ("jobs = -0x" + "f" * 3, "not TOML: "),
        ("jobs = inf", "jobs must be a whole number, not inf"),
        ('jobs = "' + "x" * 5000 + '"', "jobs must be a whole number, not 'xxx"),
    ],
    ids=["arrays", "tables", "digits", "hex", "sign", "inf", "long"],
)
def test_an_invalid_file_gives_one_short_error_line(tmp_path, text, what):
    (tmp_path / FILE).write_text(text + "\n")
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, {})
    assert what in raised.value.message
    assert len(raised.value.message) < 200


def test_a_number_of_thousands_of_digits_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="must be a whole number") as raised:
        load(tmp_path, {"LAGO_IMAGES_JOBS": "1" * 5000})
    assert len(raised.value.message) < 200


def test_a_home_folder_that_is_not_there_is_told(tmp_path):
    settings = Settings(signing_key="~no-such-user/x.asc", repository="~no-such-user/r")
    with pytest.raises(UsageError, match="no home folder for the ~ of ~no-such-user"):
        _ = settings.key_files
    problem = misplaced(settings, tmp_path)
    assert problem is not None
    assert "no home folder for the ~ of ~no-such-user/r" in problem.what


def test_only_keys_in_files_have_files(tmp_path):
    keys = "env:KEY, agent:ABC, file:a.asc, /keys/b.asc, "
    named = Settings(signing_key=keys, folder=tmp_path).key_files
    assert [str(path) for path in named] == [str(tmp_path / "a.asc"), "/keys/b.asc"]


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("image-specs", "lies in the folder of the specs"),
        ("image-specs/below", "lies in the folder of the specs"),
        (".", "is the folder of the checkout"),
        ("..", "is the folder of the checkout"),
    ],
)
def test_a_repository_among_the_specs_is_refused_at_its_line(tmp_path, place, what):
    (tmp_path / FILE).write_text(f'name = "n"\nrepository = "{place}"\n')
    problem = misplaced(load(tmp_path, {}), tmp_path)
    assert (problem.path, problem.line) == (FILE, 2)
    assert what in problem.what


@pytest.mark.parametrize(
    "place", ["image-repo", "/srv/images", "file:///srv/images", "s3://bucket"]
)
def test_a_repository_elsewhere_is_not_refused(tmp_path, place):
    assert misplaced(load(tmp_path, {"LAGO_IMAGES_REPOSITORY": place}), tmp_path) is None


def test_a_folder_of_specs_that_was_set_and_is_not_there_is_told(tmp_path):
    assert missing_specs(load(tmp_path, {}), tmp_path) is None
    problem = missing_specs(load(tmp_path, {"LAGO_IMAGES_SPECS": "specs"}), tmp_path)
    assert problem.path == "LAGO_IMAGES_SPECS"
    (tmp_path / "specs").mkdir()
    assert missing_specs(load(tmp_path, {"LAGO_IMAGES_SPECS": "specs"}), tmp_path) is None


def test_variables_that_are_no_settings_are_told(tmp_path):
    environ = {
        "LAGO_IMAGES_NMAE": "x",
        "LAGO_IMAGES_NAME": "x",
        "LAGO_IMAGES_TEST_BOOTS": "all",
        "LAGO_IMAGES_RUNNER": "here",
        "LAGO_IMAGES_MINE": "key",
        "PATH": "/bin",
    }
    settings = Settings(folder=tmp_path, signing_key="env:LAGO_IMAGES_MINE")
    (told,) = unknown_variables(settings, environ)
    assert "LAGO_IMAGES_NMAE is no setting" in told
    assert told.endswith("did you mean LAGO_IMAGES_NAME?")


LONG = (
    "/srv/VirtualMachines/ImageRepositories/Production2026",
    "s3://lab/TeamInfrastructure2026/VirtualMachines/ImageRepository",
)


@pytest.mark.parametrize("place", LONG)
def test_a_long_path_is_no_key(tmp_path, place):
    assert load(tmp_path, {"LAGO_IMAGES_REPOSITORY": place}).repository == place
    key = f"file:/home/builder/VirtualMachines/SigningKeys/Production2026,{LONG[0]}"
    (tmp_path / FILE).write_text(f'repository = "{place}"\nsigning-key = "{key}"\n')
    assert load(tmp_path, {}) == Settings(folder=tmp_path, repository=place, signing_key=key)


@pytest.mark.parametrize("form", ["{}", "env:{}", "file:x, agent:{}", "{}\n{}\n"])
def test_a_key_in_place_of_its_name_is_not_quoted(tmp_path, form):
    text = form.replace("{}", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    [problem] = problems(tmp_path, {"LAGO_IMAGES_SIGNING_KEY": text})
    assert problem.startswith("LAGO_IMAGES_SIGNING_KEY: this looks like a key, not the name of")
    assert "wJalr" not in problem


def test_a_value_is_not_shortened_before_its_secrets_are_hidden(tmp_path):
    key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    for secret in (f"https://me:hunter2{'x' * 80}@host", f"{'x' * 60}: {key}"):
        (tmp_path / FILE).write_text(f'jobs = "{secret}"\n')
        [problem] = problems(tmp_path)
        assert "hunter2" not in problem
        assert "wJalr" not in problem


@pytest.mark.parametrize("url", ["", "file://srv/images"])
def test_what_names_no_place_is_not_misplaced(tmp_path, url):
    assert misplaced(Settings(repository=url, folder=tmp_path), tmp_path) is None
