"""``promote = "attested"``, with a stand-in for ``gh`` that holds it to its flags.

What Sigstore and GitHub sign cannot be had here: the stand-in looks the digest up in a folder, and
compares the certificate's fields as ``gh attestation verify`` documents its flags.
"""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from tests.support.specs import SpecsRepo, git

WORKFLOW = "lago-project/lago-images/.github/workflows/publish-images.yml"
PIN, OTHER_PIN = "a" * 40, "b" * 40
GH = """#!{python}
import argparse, hashlib, json, os, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("command", nargs=2)
parser.add_argument("file")
for flag in ("--repo", "--signer-workflow", "--signer-digest", "--predicate-type"):
    parser.add_argument(flag, required=True)
parser.add_argument("--deny-self-hosted-runners", action="store_true")
asked = parser.parse_args()
assert asked.command == ["attestation", "verify"]
if os.environ.get("GH_TOKEN") != "token" or "AWS_SECRET_ACCESS_KEY" in os.environ:
    sys.exit("gh: HTTP 401")
digest = hashlib.sha256(pathlib.Path(asked.file).read_bytes()).hexdigest()
file = pathlib.Path({folder!r}) / digest
if not file.exists():
    sys.exit("Error: no attestations found for subject sha256:" + digest)
made = json.loads(file.read_text())
for field, wanted in (("repo", asked.repo), ("workflow", asked.signer_workflow),
                      ("digest", asked.signer_digest), ("type", asked.predicate_type)):
    if made[field] != wanted:
        sys.exit(f"Error: verifying with issuer: expected {{field}} {{wanted}}")
if asked.deny_self_hosted_runners and made["runner"] != "github-hosted":
    sys.exit("Error: expected RunnerEnvironment to be github-hosted")
"""


@pytest.fixture
def repo(tmp_path) -> SpecsRepo:
    attested = tmp_path / "attested"
    attested.mkdir()
    gh = tmp_path / "bin/gh"
    gh.parent.mkdir()
    gh.write_text(GH.format(python=sys.executable, folder=str(attested)))
    gh.chmod(0o755)
    made = SpecsRepo.create(tmp_path / "specs", environ=github(tmp_path))
    made.write("lago-images.toml", 'promote = "attested"\n')
    made.disk("disk.raw")
    made.spec("one", "simple:disk.raw")
    made.commit("Start")
    return made


def github(tmp_path, signer: str = f"{WORKFLOW}@{PIN}") -> dict[str, str]:
    return {
        "PATH": f"{tmp_path}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LAGO_IMAGES_REPOSITORY": str(tmp_path / "public"),
        "LAGO_IMAGES_SIGNER": signer,
        "GITHUB_REPOSITORY": "example/specs",
        "GH_TOKEN": "token",
        "AWS_SECRET_ACCESS_KEY": "not for gh",
    }


def run(repo: SpecsRepo, *argv: str, code: int = 0, **environ: str):
    ran = repo.run(*argv, environ=environ)
    assert ran.code == code, ran.out + ran.err
    return ran


def build(repo: SpecsRepo, results: str) -> Path:
    """Plan and build, as a run that does not publish; return what is to be attested."""
    run(repo, "ci", "plan", "--output", "../plan.json")
    run(repo, "ci", "build", "--plan", "../plan.json", "--results", results, "one")
    return repo.root / results / "subjects.sha256"


def attest(specs: SpecsRepo, subjects: Path, **changes: str) -> None:
    """As the action does, in the workflow that ``changes`` describes."""
    made = {
        "repo": "example/specs",
        "workflow": WORKFLOW,
        "digest": PIN,
        "type": "https://slsa.dev/provenance/v1",
        "runner": "github-hosted",
        **changes,
    }
    for line in subjects.read_text().splitlines():
        (specs.root.parent / "attested" / line.split()[0]).write_text(json.dumps(made))


def action(repo: SpecsRepo) -> str:
    run(repo, "ci", "plan", "--output", "../plan.json")
    [image] = json.loads((repo.root / "../plan.json").read_text())["images"]
    return image["action"]


def test_a_build_of_the_pinned_workflow_is_promoted(repo, tmp_path):
    subjects = build(repo, "../results")
    disk, manifest = (line.split("  ") for line in subjects.read_text().splitlines())
    [made] = (tmp_path / "public").glob("*/one/x86_64/*/manifest.json")
    assert manifest[0] == hashlib.sha256(made.read_bytes()).hexdigest()
    assert disk[0] == hashlib.sha256((made.parent / "one.qcow2.xz").read_bytes()).hexdigest()
    attest(repo, subjects)
    assert action(repo) == "promote"
    run(repo, "ci", "publish", "--plan", "../plan.json")
    assert len(list((tmp_path / "public/releases/one").rglob("*.json"))) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"workflow": "example/specs/.github/workflows/mine.yml"},
        {"digest": OTHER_PIN},
        {"repo": "stranger/specs"},
        {"runner": "self-hosted"},
        {"type": "https://example.org/other"},
        None,
    ],
)
def test_a_build_of_another_workflow_is_not_promoted(repo, tmp_path, changes):
    """Who may push a branch has the builder's key, and workflows of their own."""
    subjects = build(repo, "../results")
    if changes is not None:
        attest(repo, subjects, **changes)
    # Built again, and not stuck: else anybody with the builder's key could stop a publication.
    ran = run(repo, "ci", "plan", "--output", "../plan.json")
    assert "one is built again" in ran.err
    assert "1 to build" in ran.out
    # A plan that somebody else made, and a result, are judged as well.
    run(repo, "ci", "plan", "--output", "../forged.json", LAGO_IMAGES_PROMOTE="same-repository")
    assert '"promote"' in (repo.root / "../forged.json").read_text()
    for results in ((), ("--results", "../results")):
        ran = run(repo, "ci", "publish", "--plan", "../forged.json", *results, code=1)
        assert f"no attestation says that {WORKFLOW} at aaaaaaaaaaaa built" in ran.err
    assert not list((tmp_path / "public").glob("releases/*/*/*.json"))


def test_a_published_build_needs_no_attestation(repo, tmp_path):
    attest(repo, build(repo, "../results"))
    run(repo, "ci", "plan", "--output", "../plan.json")
    run(repo, "ci", "publish", "--plan", "../plan.json")
    for made in (tmp_path / "attested").iterdir():
        made.unlink()
    git(repo.root, "commit", "-q", "--allow-empty", "-m", "Nothing")
    assert action(repo) == "keep"
    run(repo, "ci", "publish", "--plan", "../plan.json")


@pytest.mark.parametrize("signer", ["", WORKFLOW, f"{WORKFLOW}@main", "x@" + PIN])
def test_nothing_is_published_without_the_name_of_the_pinned_workflow(repo, tmp_path, signer):
    commands = [("ci", "publish"), *([("ci", "plan")] if signer else [])]
    for command in commands:
        ran = repo.run(*command, environ=github(tmp_path, signer))
        assert ran.code == 2
        assert 'promote = "attested" is for publish-images.yml on GitHub' in ran.err
    assert not (tmp_path / "public").exists()


def test_a_plan_on_a_local_machine_promotes_nothing(repo, tmp_path):
    attest(repo, build(repo, "../results"))
    assert action(repo) == "promote"
    ran = repo.run("ci", "plan", environ=github(tmp_path, ""))
    assert (ran.code, "1 to build in 1 chain, 0 to promote" in ran.out) == (0, True)


def test_a_local_machine_publishes_its_own_builds(repo, tmp_path):
    ran = repo.run("ci", "rebuild", "--all", environ=github(tmp_path, ""))
    assert ran.code == 0, ran.err
    assert len(list((tmp_path / "public/releases/one").rglob("*.json"))) == 1
