"""The Jenkinsfile under tests/jenkins/harness.groovy, which is a harness and not Jenkins."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.specs import IDENTITY

PROJECT = Path(__file__).parents[2]
# For a program that runs for seconds: no optimising compiler, and one thread that collects garbage.
JAVA = {"JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What happened: ``events`` in order, each with its ``step``."""

    failed: bool
    events: list[dict]
    log: str

    def of(self, step: str) -> list[dict]:
        return [event for event in self.events if event["step"] == step]

    @property
    def commands(self) -> list[str]:
        """What was run of the scripts, wherever they were checked out."""
        commands = (script(event) for event in self.of("sh"))
        return [command for command in commands if command.startswith("ci/")]


def script(event: dict) -> str:
    """The command of an ``sh`` step, with a script of the tools as ``ci/NAME``."""
    return re.sub(r'"\$TOOLS/(ci/[\w-]+)"', r"\1", event["command"])


def run(
    scratch: Path,
    remote: Path,
    *,
    ref: str = "refs/heads/main",
    env: dict[str, str] | None = None,
    params: dict[str, str] | None = None,
    credentials: dict[str, list[str]] | None = None,
    causes: tuple[str, ...] = (),
    jenkinsfile: Path = PROJECT / "Jenkinsfile",
    replaced: dict[str, str] | None = None,
    restart: str = "",
) -> Run:
    """Run a Jenkinsfile; ``scratch`` is the run's, and its agents' workspaces are beside it.

    ``restart`` is the stage that the run is restarted from.
    """
    scratch.mkdir(parents=True)
    (scratch / "settings.json").write_text(
        json.dumps(
            {
                "env": {"LAGO_IMAGES_VENV": sys.prefix, **(env or {})},
                "params": {"NAMES": "", "STALE": "", **(params or {})},
                "credentials": credentials or {},
                "remote": f"file://{remote}",
                "ref": ref,
                "scratch": str(scratch),
                "workspaces": str(scratch.parent / "workspaces"),
                "causes": causes,
                "replaced": replaced or {},
                "restart": restart,
            }
        )
    )
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "JAVA_HOME", "LIBGUESTFS_BACKEND")
    done = subprocess.run(
        [
            "groovy",
            str(PROJECT / "tests/jenkins/harness.groovy"),
            str(jenkinsfile),
            str(scratch / "settings.json"),
        ],
        env={**{k: os.environ[k] for k in kept if k in os.environ}, **IDENTITY, **JAVA},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    log = scratch / "stderr.log"
    told = done.stderr[:3000] + (log.read_text() if log.exists() else "")
    assert done.returncode == 0, done.stdout[-2000:] + told
    plain = json.loads(done.stdout.splitlines()[-1])
    return Run(failed=plain["failed"], events=plain["events"], log=told)
