"""The tutorial with GitHub: its workflow under act, its remote a bare one, its store a real Ceph.

GitHub itself is not here: what ``gh`` is asked is done to the stand-in, and so is what ``aws`` is
asked, by the library that it is made of. All else are the reader's own commands.
"""

import re
import shlex
import shutil
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import tutorial
from tests.support.act import PROJECT, GitHubHost, Run
from tests.support.aws_cli import aws
from tests.support.specs import IDENTITY, SpecsRepo, git
from tests.tools import need

pytestmark = pytest.mark.real
TUTORIAL = PROJECT / "docs/tutorial-github.md"
KEYS = {
    "BUILDER_ACCESS_KEY_ID": "builderkey",
    "BUILDER_SECRET_ACCESS_KEY": "buildersecret",
    "PUBLISHER_ACCESS_KEY_ID": "publisherkey",
    "PUBLISHER_SECRET_ACCESS_KEY": "publishersecret",
}
RAW = "https://raw.githubusercontent.com/lago-project/lago-images/main/"


@dataclass(slots=True, kw_only=True)
class GitHub:
    """What stands for GitHub: it knows a repository's secrets, and runs its workflow."""

    host: GitHubHost
    secrets: dict[str, str] = field(default_factory=dict)
    environments: set[str] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)

    def gh(self, command: str) -> str:
        words = shlex.split(command)
        match words[1:3]:
            case ["repo", "create"]:
                self.create(words[3])
            case ["api", "--silent"]:
                self.environments.add(words[-1].rpartition("/")[2])
            case ["secret", "set"]:
                assert "--env" not in words or words[words.index("--env") + 1] in self.environments
                lines = self.read(words[-1]).splitlines()
                self.secrets |= dict(line.split("=", 1) for line in lines)
            case ["run", "watch"]:
                self.ran(self.host.event("push", secrets=self.secrets))
            case ["pr", "create"]:
                assert git(self.root, "rev-parse", "--abbrev-ref", "HEAD") != "main"
            case ["pr", "checks"]:
                self.ran(self.pull_request())
            case ["pr", "merge"]:
                branch = git(self.root, "rev-parse", "--abbrev-ref", "HEAD")
                git(self.root, "checkout", "-q", "main")
                git(self.root, "merge", "-q", "--no-ff", "-m", "Merge pull request #1", branch)
                git(self.root, "push", "-q", "origin", "main")
            case _:
                raise AssertionError(f"the stand-in for GitHub does not know: {command}")
        return ""

    @property
    def root(self) -> Path:
        return self.host.specs.root

    def read(self, path: str) -> str:
        return Path(path.replace("~", str(self.host.folder / "home"))).read_text()

    def create(self, name: str) -> None:
        assert name == self.host.name
        self.host.remote.parent.mkdir(parents=True)
        git(self.host.folder, "init", "-q", "--bare", str(self.host.remote))
        git(self.root, "remote", "add", "origin", f"https://github.com/{name}.git")
        git(self.root, "remote", "set-url", "--push", "origin", str(self.host.remote))

    def pull_request(self) -> Run:
        """Merge the branch as GitHub does to test it, and run the event there."""
        head, base = git(self.root, "rev-parse", "HEAD"), git(self.root, "rev-parse", "main")
        branch = git(self.root, "rev-parse", "--abbrev-ref", "HEAD")
        git(self.root, "checkout", "-q", "--detach", "main")
        git(self.root, "merge", "-q", "--no-ff", "-m", f"Merge {head} into {base}", head)
        ref = "refs/pull/1/merge"
        git(self.root, "push", "-q", "--force", "origin", f"HEAD:{ref}")
        repo = {"full_name": self.host.name}
        sides = {
            "head": {"sha": head, "ref": branch, "repo": repo},
            "base": {"sha": base, "ref": "main", "repo": repo},
        }
        payload = {"number": 1, "pull_request": {"number": 1, **sides}}
        ran = self.host.event("pull_request", payload, ref=ref, secrets=self.secrets)
        git(self.root, "checkout", "-q", branch)
        return ran

    def ran(self, run: Run) -> None:
        assert run.code == 0, run.log
        self.runs.append(run)


def test_every_command_shows_what_the_tutorial_shows(tmp_path, ceph20):
    need("git", "node", "npm", "curl")
    home, bucket = tmp_path / "home", f"tutorial-{uuid.uuid4().hex[:16]}"
    home.mkdir()
    for who in ("builder", "publisher"):
        lines = [f"{k}={v}" for k, v in KEYS.items() if k.startswith(who.upper())]
        (home / f"{who}.env").write_text("\n".join(lines) + "\n")
    host = GitHubHost(
        folder=tmp_path,
        specs=SpecsRepo(root=home / "specs"),
        environ={"AWS_EC2_METADATA_DISABLED": "true", "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    github = GitHub(host=host)
    tools = SpecsRepo.create(tmp_path / "tools")
    for part in (".github/workflows", "ci"):
        shutil.copytree(PROJECT / part, tools.root / part)
    tools.commit("Tools")
    bare = tmp_path / "remotes/lago-project/lago-images.git"
    git(tmp_path, "clone", "-q", "--bare", str(tools.root), str(bare))
    host.replaced["lago-project/lago-images@main"] = tools.root

    def take_a_small_disk_and_these_tools() -> None:
        host.specs.disk("disk.raw")
        spec = host.specs.root / "image-specs/my-debian-12"
        kept = [line for line in spec.read_text().splitlines() if not line.startswith("root-")]
        text = "\n".join(line for line in kept if "/dev/" not in line)
        text = text.replace("bootstrap:debian-12", "simple:disk.raw")
        spec.write_text(f"{text}\n#boot-test=no: no boot in this test\n")
        workflow = host.specs.root / ".github/workflows/images.yml"
        text = workflow.read_text()
        used, ref = re.search(r" uses: ([^/\s]+/[^/\s]+)/.*@(\S+)", text).groups()
        workflow.write_text(text.replace(used, "lago-project/lago-images").replace(ref, "main"))

    session = tutorial.Session(
        home=home,
        environ={
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "USER": "me",
            **{k: v for k, v in ceph20.environ.items() if not k.startswith("AWS_ENDPOINT")},
            **{name: value for name, value in IDENTITY.items() if "CONFIG" not in name},
        },
        instead={"gh ": github.gh, "aws ": lambda command: aws(ceph20, home, command)},
        after={"lago-images init": take_a_small_disk_and_these_tools},
        same={
            f"file://{PROJECT}/": RAW,
            ceph20.endpoint: "https://s3.example.org",
            bucket: "example-images",
        },
    )
    said = tutorial.beginning(TUTORIAL)
    assert all(f"`{start.strip()}`" in said for start in session.instead)
    session.run(TUTORIAL)
    built = [any(job.startswith("build") for job in run.jobs) for run in github.runs]
    published = ["publish" in run.jobs for run in github.runs]
    assert (built, published) == ([True, True, False], [True, False, True])
