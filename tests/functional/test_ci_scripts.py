"""The scripts in ``ci/`` as both CIs and a person call them, on a directory."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lago_images.jobs import results
from lago_images.planning import formats
from tests.support.ci import failed
from tests.support.specs import Ran, SpecsRepo, git
from tests.tools import cannot
from tests.unit.ci.test_environment import parsed

PROJECT = Path(__file__).parents[2]
# GitHub keeps no more of a job's outputs (https://docs.github.com/actions/reference/limits).
OUTPUTS = 2**20
# A dpkg-query that answers so of every package it is asked for.
ALL_INSTALLED = "shift 3; printf 'installed %s\\n' \"$@\""
# Of each script, arguments that it does not know. Those of lock are uv's, which is not installed.
WRONG = {
    "build": [["--nosuch"]],
    "docs": [["--nosuch"], ["one", "two"]],
    "lago-images": [["--nosuch"], ["nosuch"]],
    "lint": [["--nosuch"]],
    "lock": [],
    "plan": [[], ["nosuch"], ["text", "--nosuch"]],
    "publish": [["--nosuch"]],
    "report": [["--nosuch"]],
    "setup-host": [[], ["biuld"], ["plan", "build"]],
    "setup-python": [["biuld"], ["dev", "docs"]],
    "test": [["--nosuch"]],
    "wheel": [[], ["--nosuch"], ["one", "two", "three"]],
}


@pytest.fixture
def repo(tmp_path) -> SpecsRepo:
    made = SpecsRepo.create(
        tmp_path / "specs",
        environ={"LAGO_IMAGES_VENV": sys.prefix, "LAGO_IMAGES_REPOSITORY": str(tmp_path / "pub")},
    )
    shutil.copytree(PROJECT / "ci", made.root / "ci")
    made.write(".gitignore", "plan.json\nresults*\nlogs\n")
    made.disk("disk.raw")
    return made


def call(repo: SpecsRepo, *argv: str, **environ: str) -> Ran:
    done = subprocess.run(
        [str(repo.root / argv[0]), *argv[1:]],
        cwd=repo.root,
        env=repo.env(environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


def run(repo: SpecsRepo, *argv: str, **environ: str) -> str:
    ran = call(repo, *argv, **environ)
    assert ran.code == 0, ran.out + ran.err
    return ran.out


def actions(repo: SpecsRepo) -> dict[str, str]:
    plan = json.loads((repo.root / "plan.json").read_text())
    return {image["name"]: image["action"] for image in plan["images"]}


def test_a_pull_requests_build_is_not_promoted_with_promote_never(repo, tmp_path):
    repo.write("lago-images.toml", 'promote = "never"\n')
    repo.spec("one", "simple:disk.raw")
    repo.spec("two", "simple:disk.raw")
    repo.commit()
    run(repo, "ci/plan", "text")
    run(repo, "ci/build", NAMES="one two")
    run(repo, "ci/publish")
    assert "2 images affected: 2 released" in run(repo, "ci/report")

    shutil.rmtree(repo.root / "results")
    git(repo.root, "checkout", "-q", "-b", "change")
    repo.spec("one", "simple:disk.raw", "#notes=changed")
    repo.commit()
    run(repo, "ci/plan", "text", BASE="main")
    assert actions(repo)["one"] == "build"
    run(repo, "ci/build", "--upload", NAMES="one")
    git(repo.root, "checkout", "-q", "main")
    git(repo.root, "merge", "-q", "--no-ff", "-m", "Merge", "change")

    run(repo, "ci/plan", "text", LAGO_IMAGES_PROMOTE="same-repository")
    assert actions(repo)["one"] == "promote"
    # Times in plans and manifests are whole seconds.
    time.sleep(1)
    entries = json.loads(run(repo, "ci/plan", "jenkins"))
    assert entries == [{"chain": "one", "batch": "1/1", "arch": "x86_64"}]
    assert actions(repo) == {"one": "build", "two": "keep"}

    # Not even when the job that was to build it ended without telling how.
    kept = shutil.move(repo.root / "results", tmp_path / "kept")
    ran = call(repo, "ci/publish")
    assert ran.code == 1
    assert "one: not published: it has no build" in ran.err
    # Nor when somebody wrote a result that names it.
    shutil.copytree(kept, repo.root / "results", dirs_exist_ok=True)
    assert "one: not published: it has no build" in call(repo, "ci/publish").err
    run(repo, "ci/build", NAMES="one")
    run(repo, "ci/publish")
    assert len(list((repo.root.parent / "pub/releases/one").rglob("*.json"))) == 2


def test_a_failed_attempt_does_not_hide_a_later_build(repo):
    """A job that is run again may be lost after its build: what it would have told is not there."""
    repo.spec("one", "simple:disk.raw")
    repo.commit()
    run(repo, "ci/plan", "text")
    run(repo, "ci/build", NAMES="one")
    first = [failed("one")]
    results.write_folder(repo.root / "results", first)
    # Who promotes nothing that others built takes no build that this run does not tell of.
    assert call(repo, "ci/publish", LAGO_IMAGES_PROMOTE="never").code == 1
    assert "one: released revision 1" in run(repo, "ci/publish")
    assert "1 image affected: 1 released." in run(repo, "ci/report", PUBLICATION="success")

    # Built again by name, it is not what was built before that, waiting or released.
    run(repo, "ci/plan", "text", NAMES="one")
    run(repo, "ci/build", NAMES="one")
    time.sleep(1.1)
    run(repo, "ci/plan", "text", NAMES="one")
    results.write_folder(repo.root / "results", first)
    ran = call(repo, "ci/publish")
    assert (ran.code, "one: not published: its build failed\n" in ran.err) == (1, True)
    run(repo, "ci/build", NAMES="one")
    results.write_folder(repo.root / "results", first)
    assert "one: released revision 2" in run(repo, "ci/publish")


def test_a_link_in_place_of_a_result_is_not_followed(repo, tmp_path):
    repo.spec("one", "simple:disk.raw")
    repo.commit()
    other = repo.write("other", "theirs\n")
    (tmp_path / "run").mkdir()
    for name in ("plan.json", "results.xml"):
        (tmp_path / "run" / name).symlink_to(other)
    here = {"RUN": str(tmp_path / "run")}
    run(repo, "ci/plan", "text", **here)
    run(repo, "ci/build", NAMES="one", **here)
    run(repo, "ci/report", **here)
    assert other.read_text() == "theirs\n"
    assert (tmp_path / "run/results.xml").read_text().startswith("<?xml")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("plan.json", "results", "results.xml", "logs"),
    }
    # Nothing is left in the checkout.
    assert git(repo.root, "status", "--porcelain", "--ignored") == "?? other"


def test_more_than_256_chains_are_distributed_over_the_jobs(repo, tmp_path):
    names = {f"image-{number}" for number in range(300)}
    for name in names:
        repo.spec(name, "simple:disk.raw")
    repo.spec("layer", "layer:image-7")
    repo.commit()
    output = tmp_path / "output"
    run(repo, "ci/plan", "github", GITHUB_OUTPUT=str(output))
    assert output.stat().st_size < OUTPUTS
    outputs = parsed(output.read_text())
    include = json.loads(outputs["matrix"])["include"]
    assert outputs["count"] == str(len(include)) == "256"
    assert [entry["batch"] for entry in include] == [f"{n}/256" for n in range(1, 257)]
    plan = formats.load(repo.root / "plan.json")
    jobs = [list(formats.batch(plan, number, 256)) for number in range(1, 257)]
    assert sorted(name for job in jobs for name in job) == sorted([*names, "layer"])
    assert [job[:2] for job in jobs if "layer" in job] == [["image-7", "layer"]]
    # An artifact's name has the chain's in it, and must be another for each job.
    assert len({entry["chain"] for entry in include}) == 256
    [number] = [number for number, job in enumerate(jobs, 1) if "layer" in job]
    told = run(repo, "ci/build", BATCH=f"{number}/256")
    built = re.findall(r"^(\S+): built", told, re.MULTILINE)
    assert sorted(built) == sorted(jobs[number - 1])
    wrong = call(repo, "ci/build", BATCH="257/256")
    assert wrong.code == 2
    assert "there is no batch 257/256 in the plan, which has 300 chains" in wrong.err
    assert call(repo, "ci/build", BATCH="3").code == 2
    assert call(repo, "ci/build").code == 2


@pytest.mark.parametrize("names", ["one tow", "one\ntow", "\ntow", "one,two"])
def test_a_missing_name_is_a_usage_error(repo, names):
    repo.spec("one", "simple:disk.raw")
    repo.commit()
    run(repo, "ci/plan", "text")
    for command in (("ci/plan", "text"), ("ci/build",)):
        ran = call(repo, *command, NAMES=names)
        assert (ran.code, ran.out) == (2, "")
        assert names.split()[-1] in ran.err


@pytest.mark.parametrize(
    "names", ["one two", "one\ntwo", "\none two\n", "\r\none\r\n\ttwo \r\n", " one\x0b\x0ctwo"]
)
def test_a_list_of_names_is_split_at_whitespace(repo, names):
    """Of a text field of several lines, and of one that begins with an empty line."""
    for name in ("one", "two"):
        repo.spec(name, "simple:disk.raw")
    repo.commit()
    run(repo, "ci/plan", "text")
    ended = run(repo, "ci/build", NAMES=names)
    assert sorted(re.findall(r"^(\S+): built", ended, re.MULTILINE)) == ["one", "two"]
    run(repo, "ci/publish")
    assert actions(repo) == {"one": "build", "two": "build"}
    run(repo, "ci/plan", "text", NAMES=names)
    assert actions(repo) == {"one": "build", "two": "build"}


@pytest.mark.parametrize("blank", ["", " ", "\n", "\r\n\t "])
def test_a_blank_list_means_no_names(repo, blank):
    repo.spec("one", "simple:disk.raw")
    repo.commit()
    run(repo, "ci/plan", "text", NAMES=blank, STALE=blank, OUTDATED=blank, BASE=blank)
    assert actions(repo) == {"one": "build"}
    ran = call(repo, "ci/build", NAMES=blank)
    assert (ran.code, "name what to build" in ran.err) == (2, True)


def test_who_publishes_asks_what_is_outdated_where_the_environment_says_so(repo):
    repo.spec("one", "simple:disk.raw")
    repo.commit()
    run(repo, "ci/plan", "text")
    run(repo, "ci/build", NAMES="one")
    asked = "asked outside what 1 images would be built of"
    assert asked not in call(repo, "ci/publish", "-v", OUTDATED=" \n").err
    assert asked in call(repo, "ci/publish", "-v", OUTDATED="true").err


def test_the_report_lists_images_that_were_not_released(repo):
    repo.spec("one", "simple:disk.raw")
    repo.commit()
    run(repo, "ci/plan", "text")
    run(repo, "ci/build", NAMES="one")
    assert "1 image affected: 1 built." in run(repo, "ci/report")
    assert "1 not released." in run(repo, "ci/report", PUBLICATION="failure")

    assert call(repo, "ci/publish", LAGO_IMAGES_SIGNING_KEY="env:NONE").code == 1
    told = run(repo, "ci/report", PUBLICATION="failure")
    assert "1 image affected: 1 not released." in told
    assert "the environment variable NONE" in html.unescape(told)

    # What an earlier plan's publication told is nothing about this one.
    time.sleep(1.1)
    run(repo, "ci/plan", "text")
    assert actions(repo) == {"one": "promote"}
    assert "1 built before, waits to be released." in run(repo, "ci/report")
    run(repo, "ci/publish")
    assert "1 image affected: 1 released." in run(repo, "ci/report", PUBLICATION="success")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_password_is_prompted_for_on_a_terminal_only(tmp_path, terminal):
    """As a user who is not root and lacks packages; sudo only writes down what it is asked."""
    fakes = {
        "id": "echo 1000",
        "dpkg-query": "exit 1",
        "sudo": f"printf '%s ' \"$@\" > {tmp_path}/asked; exit 1",
    }
    for name, text in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    ours, theirs = os.openpty()
    subprocess.run(
        [PROJECT / "ci/setup-host", "plan"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdin=theirs if terminal else subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    for end in (ours, theirs):
        os.close(end)
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("apt-get update" if terminal else "-n apt-get update")


def script(name: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Call a script of ours where there are no specs, with this very lago-images."""
    return subprocess.run(
        [PROJECT / "ci" / name, *args],
        cwd=cwd,
        env={**os.environ, "LAGO_IMAGES_VENV": sys.prefix},
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_all_scripts_have_their_usage_tested():
    scripts = (path for path in (PROJECT / "ci").iterdir() if os.access(path, os.X_OK))
    assert {path.name for path in scripts if path.is_file()} == WRONG.keys()


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", WRONG)
def test_every_script_prints_its_usage(tmp_path, name, option):
    done = script(name, option, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    program = "lago-images" if name == "lago-images" else f"ci/{name}"
    assert re.search(rf"^Usage: {program}\b", done.stdout, re.MULTILINE)
    assert "set -euo" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "args"), [(name, args) for name, several in WRONG.items() for args in several]
)
def test_every_script_refuses_unknown_arguments(tmp_path, name, args):
    if name == "test" and not (PROJECT / ".venv/bin/pytest").exists():
        cannot("ci/test has no pytest to ask (.venv)")
    done = script(name, *args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search("Usage: |unrecognized arguments|unexpected argument", done.stderr)


@pytest.mark.parametrize(
    ("machine", "what", "installed", "not_installed"),
    [
        (
            "x86_64",
            "build",
            "qemu-system-x86 ovmf grub-pc-bin",
            "qemu-efi-aarch64 qemu-user-static",
        ),
        ("x86_64", "test", "ovmf qemu-system-arm qemu-efi-aarch64 qemu-user-static", ""),
        (
            "aarch64",
            "build",
            "qemu-system-arm qemu-efi-aarch64",
            "ovmf qemu-system-x86 grub-pc-bin",
        ),
        ("aarch64", "test", "qemu-efi-aarch64", "grub-pc-bin qemu-user-static"),
    ],
)
def test_setup_installs_what_boots_guests_of_the_machines_architecture(
    tmp_path, machine, what, installed, not_installed
):
    """As a user who is not root and lacks all packages; sudo installs none, which ends it."""
    fakes = {
        "id": "echo 1000",
        "uname": f"echo {machine}",
        "dpkg-query": "exit 1",
        "sudo": f"printf '%s\n' \"$*\" >> {tmp_path}/asked; case $* in *install*) exit 1;; esac",
    }
    for name, text in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [PROJECT / "ci/setup-host", what],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    _, asked = (tmp_path / "asked").read_text().splitlines()
    assert set(installed.split()) <= set(asked.split())
    assert not set(not_installed.split()) & set(asked.split())


@pytest.mark.parametrize(
    ("user", "restricted", "lifted"),
    [
        ("1000", "echo 1", True),
        ("1000", "echo 0", False),
        ("1000", "exit 255", False),
        ("0", "echo 1", False),
    ],
)
@pytest.mark.parametrize("refused", [False, True])
def test_setup_lifts_ubuntus_restriction_of_user_namespaces(
    tmp_path, user, restricted, lifted, refused
):
    """On a machine that has the rest; sudo only writes down what it is asked."""
    setting = "kernel.apparmor_restrict_unprivileged_userns"
    kept = "/etc/sysctl.d/60-lago-images.conf"
    fakes = {
        "id": f"echo {user}",
        "dpkg-query": ALL_INSTALLED,
        "npm": "",
        "sysctl": f'[ "$*" = "-n {setting}" ] && {restricted}',
        "sudo": f"printf '%s\\n' \"$*\" >> {tmp_path}/asked; "
        f"case $* in *sysctl*) exit {int(refused)};; esac",
        **dict.fromkeys(("apt-get", "chmod", "tee", "udevadm", "ln", "apparmor_parser"), ""),
        **dict.fromkeys(("mount", "update-binfmts"), ""),
    }
    for name, text in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [PROJECT / "ci/setup-host", "test"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    log = tmp_path / "asked"
    asked = (
        [line for line in log.read_text().splitlines() if setting in line] if log.exists() else []
    )
    write = f"-n sysctl -q -w {setting}=0"
    keep = f'-n sh -c echo "$1 = 0" >"$2" sh {setting} {kept}'
    assert asked == ([] if not lifted else [write] if refused else [write, keep])
    told = f"{setting} is 0 from now on ({kept}), so that users can bootstrap images\n"
    assert done.stdout == (told if lifted and not refused else "")


def test_an_existing_virtual_environment_is_updated(repo, tmp_path):
    """It is an older commit's, or not what it seems."""
    found = repo.write("bin/dpkg-query", f"#!/bin/sh\n{ALL_INSTALLED}\n")
    installed = repo.write(".venv/bin/lago-images", "#!/bin/sh\n")
    setup = repo.write("ci/setup-python", f"#!/bin/sh\ntouch {tmp_path}/updated\n")
    for program in (found, installed, setup):
        program.chmod(0o755)
    path = f"{found.parent}:{os.environ['PATH']}"
    run(repo, "ci/setup-host", "plan", PATH=path)
    assert not (tmp_path / "updated").exists()
    run(repo, "ci/setup-host", "plan", PATH=path, LAGO_IMAGES_VENV="")
    assert (tmp_path / "updated").exists()


@pytest.mark.parametrize(
    ("form", "ci"),
    [
        ("github", {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": "{root}"}),
        ("jenkins", {"JENKINS_URL": "https://ci.example", "WORKSPACE": "{root}"}),
    ],
)
def test_a_repository_local_to_one_job_is_refused(repo, form, ci):
    repo.spec("one", "simple:disk.raw")
    repo.commit()
    ci = {name: value.format(root=repo.root) for name, value in ci.items()}
    ran = call(repo, "ci/plan", form, **ci, LAGO_IMAGES_REPOSITORY="./image-repo")
    assert ran.code == 2
    assert "./image-repo is inside this job's checkout" in ran.err
    assert "set repository in lago-images.toml" in ran.err
    assert not (repo.root / "plan.json").exists()
    run(repo, "ci/plan", form, LAGO_IMAGES_REPOSITORY="./image-repo")
    # A machine that runs all jobs may have a directory that they share.
    run(repo, "ci/plan", form, **ci)
