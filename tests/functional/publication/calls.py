"""Calling the real command line, often and quickly, and killing it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.specs import SpecsRepo

ROOT = Path(__file__).parents[3]


@dataclass
class Caller:
    """Calls the command line in a specs repository. ``pid`` is the running call's."""

    process: "subprocess.Popen[str]"
    repo: SpecsRepo
    log: Path
    pid: int = 0
    killed: list[int] = field(default_factory=list)

    def call(self, *args: str, environ: Mapping[str, str], below: str = "", die_at: int = 0) -> int:
        """The exit code; negative for the signal that ended it.

        With ``below``, changes to files below that folder are counted (see ``changes``), and the
        process is killed just before the one of the number ``die_at``.
        """
        base = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
        base["XDG_CACHE_HOME"] = str(self.repo.root.parent / "cache")
        call = {
            "args": args,
            "cwd": str(self.repo.root),
            "environ": {**base, **environ},
            "log": str(self.log),
            "below": below,
            "die_at": die_at,
        }
        self.pid = self._say(json.dumps(call))["pid"]
        status = self._say("go")["status"]
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    @property
    def changes(self) -> int:
        """How many changes to files the last call counted."""
        return int(Path(f"{self.log}.count").read_text())

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def _say(self, line: str) -> dict:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def caller(repo: SpecsRepo, log: Path) -> Iterator[Caller]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.functional.publication.zygote"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Caller(process=process, repo=repo, log=log)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
