"""The Jenkinsfile, run by Groovy in a harness of ours: a harness, not Jenkins.

Its ``sh`` steps are run for real: git, the scripts, builds and publications.
"""

import re
import shutil
from pathlib import Path

import pytest

from lago_images.ci import scaffold
from lago_images.jobs.results import dump
from tests.servers.model import Server
from tests.support import jenkins
from tests.support.act import GitHubHost
from tests.support.ci import built
from tests.support.keys import make_key
from tests.support.policies import published_bucket
from tests.support.specs import SpecsRepo, git
from tests.tools import need

pytestmark = pytest.mark.real
CREDENTIALS = {
    "lago-images-builder": ["builderkey", "buildersecret"],
    "lago-images-publisher": ["publisherkey", "publishersecret"],
    "our-bot": ["bot", "bottoken"],
}
AWS = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
TIMER = "hudson.triggers.TimerTrigger$TimerTriggerCause"


class Agent:
    """A specs repository, its remote, and a bucket."""

    def __init__(self, tmp_path, server: Server) -> None:
        need("groovy", "git")
        self.bucket = published_bucket(server)
        self.server = server
        self.host = GitHubHost.create(tmp_path)
        self.host.specs.write("lago-images.toml", 'name = "test"\n')
        self.host.specs.disk("disk.raw")
        self.host.specs.spec("one", "simple:disk.raw")
        two = self.host.specs.spec("two", "simple:disk.raw")
        two.write_text(two.read_text().replace("#arch=x86_64", "#arch=aarch64"))
        self.host.push("Start", event=False)
        self.runs = 0

    def run(self, **extra) -> jenkins.Run:
        self.runs += 1
        env = {
            "LAGO_IMAGES_REPOSITORY": f"s3://{self.bucket}",
            "LAGO_IMAGES_BASE_URL": f"{self.server.endpoint}/{self.bucket}",
            "AWS_ENDPOINT_URL_S3": self.server.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "XDG_CACHE_HOME": str(self.host.folder / "cache"),
            **extra.pop("env", {}),
        }
        scratch = self.host.folder / f"jenkins-{self.runs}"
        known = {**CREDENTIALS, **extra.pop("more", {})}
        return jenkins.run(scratch, self.host.remote, env=env, credentials=known, **extra)

    def releases(self) -> set[str]:
        found = self.server.client().list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {e["Key"] for e in found if e["Key"].startswith("releases/")}

    def objects(self) -> set[str]:
        found = self.server.client().list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {e["Key"] for e in found if not e["Key"].startswith("state/")}


@pytest.fixture
def agent(tmp_path, ceph20):
    return Agent(tmp_path, ceph20)


# The job that publishes is no branch of the multibranch job.
MAIN = {"LAGO_IMAGES_PUBLISH": "true"}
BRANCH = {"BRANCH_IS_PRIMARY": "true", "BRANCH_NAME": "main"}


def secrets_of(run: jenkins.Run) -> dict[str, list[str]]:
    """The scripts that saw credentials."""
    return {jenkins.script(e): e["secrets"] for e in run.of("sh") if e["secrets"]}


def said_to_be_ours(run: jenkins.Run) -> set[str]:
    """What builds are told of the change: whether the kernel of the host is shared with it."""
    return {e["ours"] for e in run.of("sh") if jenkins.script(e).startswith("ci/build")}


def test_the_pipeline_runs_on_branches_pull_requests_forks_and_failures(agent):
    check_restart(agent)
    check_multibranch(agent)
    check_branch(agent)
    check_nothing_to_do(agent)
    check_pull_request(agent)
    check_fork(agent)
    check_trust(agent)
    check_failure(agent)
    check_signing(agent)


def check_restart(agent):
    """Jenkins keeps stashes of it and no variable: one clear line, and nothing half-done."""
    for stage in ("Build", "Publish"):
        run = agent.run(env=MAIN, restart=stage)
        assert run.failed
        [failure] = run.of("failure")
        assert failure["what"].startswith("This run has no plan: it was restarted from a later")
        assert run.of("credentials") == run.of("node")[1:] == []
    assert agent.objects() == set()


def check_multibranch(agent):
    """Its branches' Jenkinsfiles are anybody's: none of them has the publisher's credentials."""
    run = agent.run(env={**BRANCH, **MAIN})
    assert not run.failed, run.log
    assert secrets_of(run) == {"ci/plan jenkins": AWS}
    assert [each for e in run.of("credentials") for each in e["ids"]] == ["lago-images-builder"]
    assert run.commands == ["ci/setup-host plan", "ci/lint", "ci/plan jenkins"]
    assert agent.objects() == set()


def check_branch(agent):
    run = agent.run(env=MAIN)
    assert not run.failed, run.log
    assert run.commands.count("ci/build --upload") == 2
    labels = [e["label"] for e in run.of("node")]
    assert (labels.count("kvm"), labels.count("aarch64")) == (1, 1)
    assert agent.releases() == {"releases/one/x86_64/1.json", "releases/two/aarch64/1.json"}
    # The publisher's credentials are where it publishes, and the builder's where staging is read.
    assert set(secrets_of(run)) == {
        *("ci/plan jenkins", "ci/build --upload", "ci/publish", "ci/report"),
    }
    ids = [each for e in run.of("credentials") for each in e["ids"]]
    assert ids.count("lago-images-publisher") == 1
    assert {"stage": "Publish", "names": ["lock"], "step": "options"} in run.of("options")
    (junit,) = run.of("junit")
    assert 'tests="2" failures="0"' in junit["xml"]
    # The plan's digest does not go the way that the plan goes.
    jobs = [e for e in run.of("sh") if jenkins.script(e).startswith(("ci/build", "ci/publish"))]
    (planned,) = {e["digest"] for e in jobs}
    assert re.fullmatch("[0-9a-f]{64}", planned)
    archived = {name for event in run.of("archive") for name in event["files"]}
    assert {"plan.json", "logs/one.log", "logs/two.log"} <= archived


def check_nothing_to_do(agent):
    """A scheduled run asks for what is outdated or old, too, and here nothing is."""
    idle = agent.run(env=MAIN, causes=(TIMER,))
    assert not idle.failed, idle.log
    assert {e["stage"] for e in idle.of("skip")} == {"Build"}
    assert len(agent.releases()) == 2
    (planned,) = [e for e in idle.of("sh") if jenkins.script(e) == "ci/plan jenkins"]
    assert (planned["stale"], planned["outdated"]) == ("30", "true")
    (published,) = [e for e in idle.of("sh") if jenkins.script(e).startswith("ci/publish")]
    assert published["outdated"] == "true"


PULL = {
    "CHANGE_ID": "3",
    "CHANGE_TARGET": "main",
    "CHANGE_BRANCH": "change",
    "BRANCH_NAME": "PR-3",
    "LAGO_IMAGES_GITHUB_CREDENTIALS": "our-bot",
}


def check_pull_request(agent):
    """Builds what it affects and publishes nothing; who comments sees the report alone."""
    found = agent.objects()
    root = agent.host.specs.root
    agent.host.specs.spec("one", "simple:disk.raw", "#notes=changed")
    git(root, "checkout", "-q", "-b", "change")
    agent.host.specs.commit("Change one")
    git(root, "push", "-q", "origin", "HEAD:refs/pull/3/merge", "HEAD:refs/heads/change")
    ran = agent.run(env=PULL, ref="refs/pull/3/merge")
    assert not ran.failed, ran.log
    assert ran.commands.count("ci/build --upload") == 1
    assert "ci/publish" not in ran.commands
    # Nor does it wait until nobody publishes.
    assert ran.of("options") == []
    new = agent.objects() - found
    assert new
    assert all(key.startswith("builds/one/") for key in new)
    assert secrets_of(ran) == {
        "ci/plan jenkins": AWS,
        "ci/build --upload": AWS,
        'ci/report --author "$GITHUB_USER"': [*AWS, "GITHUB_TOKEN"],
    }


def check_fork(agent):
    """The same from a fork's author: no credentials anywhere, and nothing written."""
    found = agent.objects()
    root = agent.host.specs.root
    agent.host.specs.spec("one", "simple:disk.raw", "#notes=by a stranger")
    agent.host.specs.commit("Change one again")
    git(root, "push", "-q", "--force", "origin", "HEAD:refs/pull/3/merge")
    fork = agent.run(env={**PULL, "CHANGE_FORK": "stranger"}, ref="refs/pull/3/merge")
    assert not fork.failed, fork.log
    assert "ci/build --no-upload" in fork.commands
    assert secrets_of(fork) == {}
    assert agent.objects() == found
    assert said_to_be_ours(fork) == {"false"}


def check_trust(agent):
    """A branch source that names no fork is no evidence: the commit is on our branch, or not."""
    found = agent.objects()
    root = agent.host.specs.root
    for branch in ("change", "main", "another"):
        fork = agent.run(env={**PULL, "CHANGE_BRANCH": branch}, ref="refs/pull/3/merge")
        assert not fork.failed, fork.log
        assert "ci/build --no-upload" in fork.commands
        assert secrets_of(fork) == {}
        assert said_to_be_ours(fork) == {"false"}
    tip = git(agent.host.remote, "rev-parse", "change")
    # Nor are parents that are ours, under files that are not.
    crafted = git(
        root,
        *("commit-tree", "HEAD^{tree}", "-p", tip, "-p", "main", "-m", "Merge"),
    )
    git(root, "push", "-q", "--force", "origin", f"{crafted}:refs/pull/3/merge")
    assert secrets_of(agent.run(env=PULL, ref="refs/pull/3/merge")) == {}
    unknown = {name: value for name, value in PULL.items() if name != "CHANGE_BRANCH"}
    assert secrets_of(agent.run(env=unknown, ref="refs/pull/3/merge")) == {}
    assert agent.objects() == found
    # A merge of the branch with its target is what Jenkins builds by default.
    git(root, "push", "-q", "--force", "origin", "HEAD:refs/heads/change")
    git(root, "checkout", "-q", "--detach", "main")
    git(root, "merge", "-q", "--no-ff", "-m", "Merge", "change")
    git(root, "push", "-q", "--force", "origin", "HEAD:refs/pull/3/merge")
    ours = agent.run(env=PULL, ref="refs/pull/3/merge")
    assert not ours.failed, ours.log
    assert secrets_of(ours)["ci/build --upload"] == AWS
    assert said_to_be_ours(ours) == {"true"}


def check_failure(agent):
    """A failing chain leaves the other published and the run red.

    With the Jenkinsfile that ``init`` writes, on agents with an earlier run's leavings, and with
    files in the specs where the tools, results and a plan might be looked for.
    """
    pwned = agent.host.folder / "pwned"
    git(agent.host.specs.root, "checkout", "-q", "main")
    agent.host.specs.spec("three", "simple:disk.raw")
    agent.host.specs.write("broken.raw.xz", b"\xfd7zXZ\x00 and no more")
    agent.host.specs.spec("bad", "simple:broken.raw.xz")
    for place in (".lago-images/ci/publish", ".lago-images/.venv/bin/lago-images"):
        agent.host.specs.write(place, f"#!/bin/sh\ntouch {pwned}\n").chmod(0o755)
    (agent.host.specs.root / "plan.json").symlink_to(".lago-images/ci/publish")
    agent.host.specs.write("results/zzz.results.json", dump([built("bad"), built("three")]))
    agent.host.push(f"Add bad $(touch {pwned})", event=False)
    for label in ("kvm", "linux"):
        old = agent.host.folder / "workspaces" / label / "results/old.results.json"
        assert old.parents[1].is_dir()
        old.parent.mkdir(exist_ok=True)
        old.write_text("not of this run")
    run = agent.run(env=MAIN, **scaffolded(agent))
    assert run.failed
    assert "not of this run" not in run.log
    assert "releases/three/x86_64/1.json" in agent.releases()
    assert not any("/bad/" in key for key in agent.objects())
    (junit,) = run.of("junit")
    assert 'tests="2" failures="1"' in junit["xml"]
    assert re.search(r"broken\.raw\.xz", junit["xml"])
    assert not pwned.exists()
    tools = [each for each in run.of("sh") if "ci/" in each["command"]]
    assert all(each["command"].startswith('"$TOOLS/ci/') for each in tools)
    assert not any(Path(each["tools"]).is_relative_to(each["folder"]) for each in tools)


def check_signing(agent):
    """Both keys sign, by either Jenkinsfile; a pull request's run does not see them."""
    folder = agent.host.folder
    old, new = make_key(folder, "old"), make_key(folder, "new")
    ids = {
        "LAGO_IMAGES_SIGNING_CREDENTIALS": "key",
        "LAGO_IMAGES_NEXT_SIGNING_CREDENTIALS": "next-key",
    }
    more = {"key": [str(old.secret)], "next-key": [str(new.secret)]}
    (agent.host.specs.root / "image-specs/bad").unlink()
    agent.host.push("Remove bad", event=False)
    first = agent.run(
        env={**MAIN, "LAGO_IMAGES_SIGNING_CREDENTIALS": "key"}, more=more, **scaffolded(agent)
    )
    assert not first.failed, first.log
    assert {f"index-{old.fingerprint}.asc", "index.asc"} <= agent.objects()
    second = agent.run(env={**MAIN, **ids}, more=more)
    assert not second.failed, second.log
    assert f"index-{new.fingerprint}.asc" in agent.objects()
    saw = [names for names in secrets_of(second).values() if "SIGNING_KEY" in names]
    assert saw == [[*AWS, "NEXT_SIGNING_KEY", "SIGNING_KEY"]]
    asked = agent.run(env={**PULL, **ids}, more=more, ref="refs/pull/3/merge")
    assert not any("SIGNING_KEY" in name for names in secrets_of(asked).values() for name in names)


def scaffolded(agent) -> dict:
    """The Jenkinsfile that ``init`` writes, and a repository for the tools that it checks out."""
    tools = SpecsRepo.create(agent.host.folder / f"tools-{agent.runs}")
    shutil.copytree(agent.host.specs.root / "ci", tools.root / "ci")
    ref = tools.commit("Tools")
    facts = scaffold.Facts(name="x", branch="main", repository="./r", tools="o/tools", ref=ref)
    jenkinsfile = agent.host.folder / "Jenkinsfile"
    jenkinsfile.write_text(scaffold.files(facts)["Jenkinsfile"])
    replaced = {"https://github.com/o/tools": f"file://{tools.root}"}
    return {"jenkinsfile": jenkinsfile, "replaced": replaced}
