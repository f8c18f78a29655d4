"""The real workflow files under act: on this machine, without containers, from a bare remote."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests import npm
from tests.support.specs import IDENTITY, SpecsRepo, git

PROJECT = Path(__file__).parents[2]
ACTIONS = PROJECT / "tests" / "act" / "actions"
_USES = re.compile(r"uses: ([\w.-]+/[\w.-]+)@([0-9a-f]{40})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a run ended.

    Attributes:
        log: What act printed; of a step that fails, the end may be missing.
        output: What each step's shell printed, whole, one step after the other.
        jobs: Those that ran at all, with whether they succeeded.
    """

    code: int
    log: str
    output: str
    jobs: Mapping[str, bool]
    artifacts: Path

    def steps(self, name: str) -> list[str]:
        """The jobs in which a step ran."""
        return re.findall(rf"^\[(.+?)\].*⭐ Run Main {re.escape(name)}", self.log, re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHubHost:
    """A specs repository with this project's workflows, its bare remote, and act to run them.

    Attributes:
        variables: The repository's ``vars``.
        environ: For every step.
        replaced: Folders in place of repositories with reusable workflows, by ``owner/name@ref``.
    """

    folder: Path
    specs: SpecsRepo
    name: str = "example/specs"
    variables: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def create(cls, folder: Path, **extra) -> "GitHubHost":
        host = cls(folder=folder, specs=SpecsRepo.create(folder / "work"), **extra)
        host.remote.parent.mkdir(parents=True)
        git(folder, "init", "-q", "--bare", str(host.remote))
        # act takes the repository's name from the remote's URL.
        git(host.specs.root, "remote", "add", "origin", f"https://github.com/{host.name}.git")
        git(host.specs.root, "remote", "set-url", "--push", "origin", str(host.remote))
        for part in (".github/workflows", "ci"):
            shutil.copytree(PROJECT / part, host.specs.root / part)
        return host

    @property
    def remote(self) -> Path:
        return self.folder / "remotes" / f"{self.name}.git"

    def push(self, message: str, *, event: bool = True, **options) -> Run | None:
        """Commit to the default branch and push; the event is run unless told otherwise."""
        self.specs.commit(message)
        git(self.specs.root, "push", "-q", "--force", "origin", "HEAD:refs/heads/main")
        return self.event("push", **options) if event else None

    def event(
        self, name: str, payload: dict | None = None, *, ref: str = "refs/heads/main", **options
    ) -> Run:
        """Run the workflows for an event at what is checked out."""
        repository = {"default_branch": "main", "full_name": self.name, "name": "specs"}
        full = {"repository": repository, "ref": ref, **(payload or {})}
        return self._act(name, full, **options)

    def pull_request(
        self, number: int, message: str, *, fork: bool = False, opened: str = "", **options
    ) -> Run:
        """Commit on a branch, merge it as GitHub does to test it, and run the event there.

        The branch stays checked out; ``merge`` merges it. ``opened`` is the base's commit that the
        event tells, if that is not the newest.
        """
        root = self.specs.root
        base = git(root, "rev-parse", "main")
        git(root, "checkout", "-q", "-B", f"change-{number}", "main")
        head = self.specs.commit(message)
        git(root, "checkout", "-q", "--detach", "main")
        git(root, "merge", "-q", "--no-ff", "-m", f"Merge {head} into {base}", head)
        ref = f"refs/pull/{number}/merge"
        git(root, "push", "-q", "--force", "origin", f"HEAD:{ref}")
        owner = "stranger/specs" if fork else self.name
        payload = {
            "number": number,
            "pull_request": {
                "number": number,
                "head": {"sha": head, "ref": f"change-{number}", "repo": {"full_name": owner}},
                "base": {"sha": opened or base, "ref": "main", "repo": {"full_name": self.name}},
            },
        }
        ran = self.event("pull_request", payload, ref=ref, **options)
        git(root, "checkout", "-q", "main")
        return ran

    def merge(self, number: int, **options) -> Run:
        """Merge a pull request into the default branch and run the push."""
        root = self.specs.root
        git(
            root, "merge", "-q", "--no-ff", "-m", f"Merge pull request {number}", f"change-{number}"
        )
        git(root, "push", "-q", "origin", "HEAD:refs/heads/main")
        return self.event("push", **options)

    def _act(self, event: str, payload: dict, *, secrets: Mapping[str, str] | None = None) -> Run:
        scratch = self.folder / "act"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        (scratch / "event.json").write_text(json.dumps(payload))
        self._record_output(scratch)
        (scratch / "secrets").write_text(
            # Quoted: a key has several lines.
            "".join(f"{key}={json.dumps(value)}\n" for key, value in (secrets or {}).items())
        )
        done = subprocess.run(
            self._argv(event, scratch),
            cwd=self.specs.root,
            env=self._environment(scratch),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        jobs = re.findall(r"^\[(.+?)\].*🏁  Job (succeeded|failed)", done.stdout, re.MULTILINE)
        return Run(
            code=done.returncode,
            log=done.stdout,
            output="".join(p.read_text() for p in sorted((scratch / "output").iterdir())),
            jobs={_job(name): how == "succeeded" for name, how in jobs},
            artifacts=scratch / "artifacts",
        )

    def _argv(self, event: str, scratch: Path) -> list[str]:
        steps = {
            **self.environ,
            "TEST_REMOTES": str(self.folder / "remotes"),
            "TEST_NODE_MODULES": str(npm.modules()),
            "LAGO_IMAGES_VENV": sys.prefix,
        }
        text = "\n".join(p.read_text() for p in sorted((PROJECT / ".github").rglob("*.yml")))
        return [
            str(Path(sys.prefix) / "bin" / "act"),
            event,
            *("--workflows", ".github/workflows/images.yml"),
            *("--eventpath", str(scratch / "event.json")),
            *("--secret-file", str(scratch / "secrets")),
            *("--env-file", "/dev/null", "--var-file", "/dev/null", "--input-file", "/dev/null"),
            *("--defaultbranch", "main", "--no-skip-checkout", "--no-cache-server"),
            *("-P", "ubuntu-24.04=-self-hosted", "-P", "kvm=-self-hosted"),
            *("--action-cache-path", str(scratch / "cache")),
            *("--artifact-server-path", str(scratch / "artifacts")),
            *("--artifact-server-addr", "127.0.0.1", "--artifact-server-port", str(_port())),
            *(x for k, v in self.variables.items() for x in ("--var", f"{k}={v}")),
            *(x for k, v in steps.items() for x in ("--env", f"{k}={v}")),
            *(x for k, v in self.replaced.items() for x in ("--local-repository", f"{k}={v}")),
            *(
                x
                for action, ref in sorted(set(_USES.findall(text)))
                for x in (
                    "--local-repository",
                    f"{action}@{ref}={ACTIONS / action.partition('/')[2]}",
                )
            ),
        ]

    @staticmethod
    def _record_output(scratch: Path) -> None:
        """Put a shell in front of bash that keeps what each step prints.

        act 0.2.89 does not wait for the reader of a step's terminal when the step fails, and drops
        what was not read by then.
        """
        (scratch / "output").mkdir()
        (scratch / "bin").mkdir()
        shell = scratch / "bin" / "bash"
        shell.write_text(
            f"#!{shutil.which('bash')}\n"
            f'PATH=${{PATH#"{scratch}/bin:"}}\n'
            f'bash "$@" 2>&1 | tee "{scratch}/output/$(date +%s%N).$$"\n'
            "exit ${PIPESTATUS[0]}\n"
        )
        shell.chmod(0o755)

    def _environment(self, scratch: Path) -> dict[str, str]:
        kept = ("HOME", "LANG", "TMPDIR", "LIBGUESTFS_BACKEND")
        path = f"{scratch}/bin:{os.environ['PATH']}"
        return {**{k: os.environ[k] for k in kept if k in os.environ}, "PATH": path, **IDENTITY}


def _job(name: str) -> str:
    """The job's own name: act shows ``workflow/caller/job``, numbered in a matrix."""
    return re.sub(r"-\d+$", "", name.rpartition("/")[2].strip())


def _port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
