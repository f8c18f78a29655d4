"""What the command line says to do next: each command it names works as it is written."""

import re
import shlex
import socket
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.specs import SpecsRepo, git
from tests.tools import need

need("git", "qemu-img")


@pytest.fixture
def repo(tmp_path):
    return SpecsRepo.with_one(tmp_path / "specs")


def test_after_a_build_serve_and_list_are_suggested(repo):
    ran = repo.run("build")
    assert ran.code == 0, ran.err
    assert f"next: lago-images serve {repo.root}/image-repo" in ran.err
    assert "lago-images repo list" in ran.err
    [catalogue] = re.findall(r"^catalogue: file://(.*)$", ran.err, re.MULTILINE)
    assert "one" in Path(unquote(catalogue)).read_text()
    again = repo.run("build", "--base-url", "https://images.example.org/x/")
    assert "catalogue: https://images.example.org/x/index.html" in again.err


def test_after_a_failed_build_serve_is_not_suggested(repo):
    repo.spec("one", "simple:missing.img")
    repo.write("missing.img", "")
    ran = repo.run("build")
    assert ran.code == 1
    assert "next:" not in ran.err
    assert "catalogue:" not in ran.err


@pytest.mark.parametrize("publishes_apart", [False, True])
def test_beside_a_failure_the_catalogue_of_what_was_released_is_named(repo, publishes_apart):
    repo.write("missing.img", "")
    repo.spec("other", "simple:missing.img")
    repo.commit()
    if publishes_apart:
        assert repo.run("ci", "build", "one", "other").code == 1
    ran = repo.run(*(("ci", "publish") if publishes_apart else ("build",)))
    assert (ran.code, "one: released revision 1" in ran.out) == (1, True), ran.err
    [catalogue] = re.findall(r"^catalogue: file://(.*)$", ran.err, re.MULTILINE)
    assert "one" in Path(unquote(catalogue)).read_text()
    assert "first failure: other: " in ran.err.partition("catalogue:")[2]
    assert "next:" not in ran.err


def test_ci_build_ends_with_a_row_an_image_and_with_its_first_failure(repo):
    repo.write("missing.img", "")
    repo.spec("other", "simple:missing.img")
    repo.spec("layer", "layer:other")
    repo.commit()
    ran = repo.run("ci", "build", "one", "layer", "other")
    assert ran.code == 1, ran.err
    shown = ran.err[ran.err.rindex("image  ") :].splitlines()
    assert shown[0].split() == ["image", "verdict", "size", "time"]
    verdicts = {line.split()[0]: line for line in shown[1:4]}
    assert verdicts.keys() == {"layer", "one", "other"}
    assert "built" in verdicts["one"]
    assert "not built: other failed" in verdicts["layer"]
    assert "failed" in verdicts["other"]
    assert shown[4].startswith("first failure: other: failed while ")
    assert shown[5].startswith("other: log: ")
    assert len(shown) == 6


def test_ci_build_suggests_ci_publish_which_names_the_catalogue(repo):
    ran = repo.run("ci", "build", "one")
    assert (ran.code, "next: lago-images ci publish" in ran.err) == (0, True), ran.err
    ran = repo.run("ci", "publish")
    assert (ran.code, "next: lago-images serve" in ran.err) == (0, True), ran.err


def test_what_is_built_again_unchanged_is_published_by_the_command_that_is_suggested(repo):
    repo.spec("layer", "layer:one")
    repo.commit()
    assert repo.run("build").code == 0
    ran = repo.run("ci", "build", "one", "layer")
    [command] = re.findall(r"^next: (lago-images ci rebuild[^,]*),", ran.err, re.MULTILINE)
    assert "ci publish alone leaves layer, one, unchanged" in ran.err or "leaves one" in ran.err
    ran = repo.run(*shlex.split(command)[1:])
    assert ran.code == 0, ran.err
    assert "one: released revision 2" in ran.out
    assert "layer: released revision 2" in ran.out


def test_a_plan_of_another_checkout_is_made_anew(repo):
    assert repo.run("ci", "plan", "--output", "plan.json").code == 0
    repo.disk("one.img", seed=3)
    repo.commit()
    for command in (["ci", "publish"], ["ci", "build", "one"]):
        ran = repo.run(*command, "--plan", "plan.json")
        assert ran.code != 0
        assert "make one anew: lago-images ci plan --output plan.json" in ran.err


def test_publishing_names_a_build_that_waits_and_was_not_asked_for(repo):
    repo.spec("other", "simple:one.img")
    repo.commit()
    assert "not released" not in repo.run("ci", "build", "one", "other").err
    assert "not released" not in repo.run("ci", "publish").err
    assert repo.run("ci", "build", "one").code == 0
    for _ in range(2):
        ran = repo.run("ci", "publish")
        assert (ran.code, ran.out) == (0, ""), ran.err
        [note] = re.findall(r"^note: one: its build .*", ran.err, re.MULTILINE)
        assert "is not released: it was asked for by name" in note
    [command] = re.findall(r"(lago-images ci rebuild one) builds", note)
    # Builds have the second that they were made in: the next one is newer from the next on.
    made = time.time()
    while int(time.time()) == int(made):
        time.sleep(0.01)
    assert repo.run(*shlex.split(command)[1:]).code == 0
    ran = repo.run("ci", "publish")
    assert (ran.code, "not released" in ran.err) == (0, False), ran.err


def test_a_build_of_a_saved_plan_is_published_by_the_command_that_is_suggested(repo):
    assert repo.run("build").code == 0
    saved, results = repo.root.parent / "plan.json", repo.root.parent / "results"
    assert repo.run("ci", "plan", "one", "--output", str(saved)).code == 0
    ran = repo.run("ci", "build", "--plan", str(saved), "one", "--results", str(results))
    [command] = re.findall(r"^next: (lago-images ci publish[^,]*),", ran.err, re.MULTILINE)
    ran = repo.run(*shlex.split(command)[1:])
    assert (ran.code, "one: released revision 2" in ran.out) == (0, True), ran.err


def test_a_layer_on_a_build_that_nobody_released_is_told_with_what_to_do(repo):
    assert repo.run("build").code == 0
    repo.spec("layer", "layer:one")
    repo.commit()
    assert repo.run("ci", "build", "one", "layer").code == 0
    ran = repo.run("ci", "publish")
    assert ran.code == 1
    assert "which is not offered; build it again: lago-images ci rebuild layer" in ran.err
    assert repo.run("ci", "rebuild", "layer").code == 0


def test_a_hint_names_the_command_that_shows_an_image_without_offered_revisions(repo):
    assert repo.run("build").code == 0
    assert repo.run("repo", "yank", "one", "--reason", "bad").code == 0
    for args in (
        ("yank", "one", "--reason", "x"),
        ("rollback", "one"),
        ("rollback", "one", "--to", "7"),
        ("provenance", "one"),
        ("provenance", "one", "--revision", "9"),
    ):
        ran = repo.run("repo", *args)
        assert ran.code != 0
        [hint] = re.findall(r"lago-images (repo show one)\b", ran.err)
        assert "1         " in repo.run(*hint.split()).out
    ran = repo.run("repo", "yank", "nosuch", "--reason", "x")
    assert "lago-images repo list --state any" in ran.err


def test_a_list_of_nothing_says_why(repo):
    assert repo.run("build").code == 0
    ran = repo.run("repo", "list", "--arch", "foo")
    assert (ran.code, ran.err) == (0, "warning: nothing here is for foo, only for x86_64\n")
    assert repo.run("repo", "yank", "one", "--reason", "bad").code == 0
    ran = repo.run("repo", "list", "one")
    assert "warning: no revision has the state that was asked for; " in ran.err
    assert "lago-images repo list --state any shows every image" in ran.err
    (repo.root / "disks").mkdir()
    folder = repo.root / "disks"
    nothing = f"warning: there is nothing of lago-images in {folder}: check --repository\n"
    for command in (("repo", "list"), ("repo", "log")):
        assert repo.run(*command, "--repository", "disks").err == nothing
    repo.disk("disks/x.img")
    repo.write("disks/index", "[el7]\nname=x\nfile=x.img\n")
    for command in (("repo", "list"), ("repo", "log")):
        ran = repo.run(*command, "--repository", "disks")
        assert (ran.code, ran.err) == (0, nothing)


def test_gc_reports_what_waits_for_the_grace_period_and_until_when(repo):
    assert repo.run("ci", "build", "one").code == 0
    ran = repo.run("repo", "gc")
    assert ran.code == 0, ran.err
    assert "to delete: 0 builds, 0 B" in ran.out
    day = r"\d{4}-\d\d-\d\d"
    assert re.search(
        rf"^waiting: 1 build, .*: the first on {day}, the last on {day}$", ran.out, re.MULTILINE
    )
    assert len(repo.run("repo", "gc", "--format", "json").json()["waiting"]) == 1


@pytest.mark.parametrize("lost", ["*.qcow2.xz", "manifest.json"])
def test_the_yank_command_that_verify_suggests_works(repo, lost):
    assert repo.run("build").code == 0
    [path] = repo.root.glob(f"image-repo/images/one/x86_64/*/{lost}")
    path.unlink()
    ran = repo.run("repo", "verify")
    assert ran.code == 1
    commands = re.findall(r"(lago-images repo yank .*?'[^']*')", ran.out)
    assert commands, ran.out
    for command in set(commands):
        words = shlex.split(command)[1:]
        assert words[words.index("--arch") + 1] == "x86_64"
        assert words[words.index("--revision") + 1] == "1"
        yanked = repo.run(*words)
        assert yanked.code == 0, yanked.err


def suggested(ran, command):
    """Return the words of the one line that suggests a command, as a shell takes them."""
    [line] = [line for line in ran.err.splitlines() if f" {command}" in line]
    return shlex.split(line[line.index("lago-images") :].partition(", which")[0])[1:]


def test_what_is_suggested_works_from_where_the_command_was_called(repo, tmp_path):
    ran = repo.run("-C", "specs", "build", folder=tmp_path)
    assert ran.code == 0, ran.err
    assert "lago-images -C specs repo list\n" in ran.err
    assert "one" in repo.run(*suggested(ran, "repo list"), folder=tmp_path).out
    ran = repo.run("build", "--repo-dir", "other disks")
    assert f"lago-images --repository '{repo.root}/other disks' repo list\n" in ran.err
    assert "one" in repo.run(*suggested(ran, "repo list")).out
    third = ("--repository", "third")
    ran = repo.run("-C", "specs", "ci", "build", *third, "one", folder=tmp_path)
    published = repo.run(*suggested(ran, "ci publish"), folder=tmp_path)
    assert (published.code, "one: released revision 1" in published.out) == (0, True), published.err


def test_what_hints_warnings_and_repairs_name_acts_where_the_call_did(repo, tmp_path):
    """Pasted in a folder that is no specs repository, of a repository that no settings name."""
    there = ("-C", "specs", "--repository", "the disks")

    def pasted(text):
        line = next(line for line in text.splitlines() if "lago-images -C specs " in line)
        words = shlex.split(line[line.index("lago-images") :].replace("; ", " ; "))[1:]
        return words[: words.index(";")] if ";" in words else words

    assert repo.run(*there, "build", folder=tmp_path).code == 0
    hint = pasted(repo.run(*there, "repo", "show", "nosuch", folder=tmp_path).err)
    assert hint[4:8] == ["repo", "list", "--state", "any"]
    assert "one" in repo.run(*hint[:8], folder=tmp_path).out
    warned = repo.run(*there, "repo", "list", "nosuch", folder=tmp_path).err
    assert pasted(warned)[:8] == hint[:8]
    [disk] = tmp_path.glob("the disks/images/one/x86_64/*/*.xz")
    disk.unlink()
    verified = repo.run(*there, "repo", "verify", folder=tmp_path)
    repairs = [
        each["repair"]
        for each in repo.run(*there, "repo", "verify", "--format", "json", folder=tmp_path).json()[
            "findings"
        ]
    ]
    for text in (verified.out, "\n".join(repairs)):
        assert pasted(text)[:6] == [*hint[:4], "repo", "yank"]
    yanked = repo.run(*pasted(verified.out), folder=tmp_path)
    assert (yanked.code, "offered no more" in yanked.out) == (0, True), yanked.err


def test_init_elsewhere_suggests_to_go_there(tmp_path):
    ran = SpecsRepo(root=tmp_path).run("init", "my specs")
    assert "hint: the folder is not in git yet: git init 'my specs'\n" in ran.err
    assert "next: cd 'my specs'; lago-images lint; lago-images build; " in ran.err
    assert "next: lago-images lint" in SpecsRepo(root=tmp_path).run("init").err


def test_a_bucket_that_doctor_probed_is_as_empty_as_before(repo, moto):
    bucket = moto.new_bucket()
    environ = {
        **moto.environ,
        "LAGO_IMAGES_REPOSITORY": f"s3://{bucket}/images",
        "LAGO_IMAGES_BASE_URL": "https://images.example.org",
    }
    commands = (("repo", "verify"), ("repo", "list"), ("repo", "gc"), ("repo", "gc", "--apply"))
    before = [repo.run(*command, environ=environ) for command in commands]
    assert [each.code for each in before] == [2, 0, 0, 0]
    assert "conditional writes" in repo.run("doctor", environ=environ).out
    left = moto.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert [each["Key"] for each in left] == ["images/state/store.json"]
    assert [repo.run(*command, environ=environ) for command in commands] == before


PUBLISHING = "lago-images ci rebuild --changed, or push and let CI publish"


@pytest.mark.parametrize("below_the_top", [False, True])
def test_init_for_a_bucket_suggests_what_publishes_to_it(tmp_path, below_the_top):
    """``build`` would make an unsigned directory."""
    if below_the_top:
        git(tmp_path, "init", "-q")
    ran = SpecsRepo(root=tmp_path).run("init", "specs", "--repository", "s3://example-images")
    [line] = [line for line in ran.err.splitlines() if line.startswith("next: ")]
    assert line.removesuffix("; " + line.rpartition("; ")[2] if "ci.md" in line else "") == (
        "next: cd specs; lago-images lint; set base-url in lago-images.toml; commit; "
        f"lago-images doctor; {PUBLISHING}"
    )
    assert "for CI: set repository" not in ran.err


def test_init_beside_settings_of_a_bucket_suggests_what_publishes_to_it(tmp_path):
    repo = SpecsRepo(root=tmp_path)
    settings = 'repository = "s3://example-images"\nbase-url = "https://images.example.org"\n'
    repo.write("lago-images.toml", settings)
    ran = repo.run("init")
    expected = f"next: lago-images lint; commit; lago-images doctor; {PUBLISHING}; https://"
    assert expected in ran.err
    assert "for CI: set repository" not in ran.err
    repo.write("lago-images.toml", "nonsense = 1\n")
    (tmp_path / "Jenkinsfile").unlink()
    assert "next: lago-images lint; lago-images build; https://" in repo.run("init").err


def test_verify_of_an_empty_bucket_suggests_what_publishes_to_it(repo, moto):
    bucket = f"s3://{moto.new_bucket()}/typo"
    there = repo.run("repo", "verify", bucket, environ=moto.environ)
    assert (there.code, f"error: nothing was ever published in {bucket}\n" in there.err) == (
        2,
        True,
    )
    named = f"lago-images --repository {bucket} "
    assert there.err.splitlines()[-1] == (
        "hint: check the path or URL; for the first: set base-url in lago-images.toml, commit, "
        f"{named}doctor, then {named}ci rebuild --changed, or push and let CI publish"
    )
    environ = {
        **moto.environ,
        "LAGO_IMAGES_REPOSITORY": bucket,
        "LAGO_IMAGES_BASE_URL": "https://images.example.org",
    }
    own = repo.run("repo", "verify", environ=environ)
    assert own.err.splitlines()[-1] == (
        f"hint: for the first: commit, lago-images doctor, then {PUBLISHING}"
    )


def test_after_a_build_that_failed_nobody_is_told_to_build_again(repo):
    repo.disk("cut.raw")
    repo.spec("one", "simple:cut.raw", f"#base-checksum=sha256:{'0' * 64}")
    repo.spec("layer", "layer:one")
    ran = repo.run("build")
    assert ran.code == 1, ran.err
    assert "not published:" not in ran.err
    assert "layer: not built, because its base one failed\n" in ran.err
    # When it fails, and at the end: between them are the last lines of its log alone.
    assert ran.err.count("\none: failed while") == 1
    assert ran.err.count("\nfirst failure: one: failed while") == 1
    assert "ci rebuild one" not in ran.err


def test_a_publication_without_a_build_says_what_makes_one(repo):
    ran = repo.run("ci", "publish")
    build = "lago-images ci rebuild one makes one and publishes it"
    assert f"one: not published: it has no build: {build}\n" in ran.err


def test_an_endpoint_without_its_scheme_is_told_how_it_is_written(repo):
    environ = {"AWS_ENDPOINT_URL_S3": "s3.lab", "LAGO_IMAGES_REPOSITORY": "s3://lab"}
    ran = repo.run("ci", "plan", environ=environ)
    assert (ran.code, "the S3 endpoint s3.lab is no URL" in ran.err) == (2, True), ran.err
    assert "hint: AWS_ENDPOINT_URL_S3=https://s3.lab\n" in ran.err


def test_a_disk_that_is_missing_is_built_only_where_there_is_its_spec(repo):
    ran = repo.run("run", "nosuch.qcow2")
    assert ("lago-images try" in ran.err, "lago-images repo list" in ran.err) == (False, True)
    assert "lago-images try one, then" in repo.run("run", "one.qcow2").err


def test_a_reason_of_two_lines_keeps_a_blank(repo):
    assert repo.run("build").code == 0
    assert repo.run("repo", "yank", "one", "--reason", "a\nb").code == 0
    assert ": a b\n" in repo.run("repo", "log").out


def test_doctor_suggests_what_is_to_be_called_from_here(repo, tmp_path):
    ran = repo.run("-C", "specs", "doctor", folder=tmp_path)
    # Which of both depends on what the host lacks.
    assert re.search(r"^(next|then): lago-images -C specs (lint|doctor)\b", ran.err, re.MULTILINE)
    repo.write("lago-images.toml", "job = 1\n")
    ran = repo.run("doctor")
    assert "/blob/main/docs/reference/settings.md" in re.sub(r"\s+", "", ran.out)


def test_pages_that_cannot_be_written_are_told_with_what_to_do(repo):
    ran = repo.run("man", "/proc/nosuch")
    assert ran.code == 1
    assert "hint: check that path: it, or a folder above it, is missing" in ran.err


def test_a_port_that_is_taken_is_told_without_numbers_of_errors(repo):
    assert repo.run("build").code == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = repo.run("serve", "image-repo", "--port", str(taken.getsockname()[1]))
    assert (ran.code, "Address already in use\n" in ran.err) == (1, True), ran.err
    assert "Errno" not in ran.err
