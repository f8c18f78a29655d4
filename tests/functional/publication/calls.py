"""Calling the real command line in a specs repository, stopping it and killing it."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support import calls
from tests.support.specs import SpecsRepo

_WATCH = "tests.functional.publication.changes:watch"


@dataclass
class Caller:
    """Calls the command line. ``pid`` is the running call's."""

    repo: SpecsRepo
    log: Path
    pid: int = 0
    changes: int = 0

    def call(self, *args: str, environ: Mapping[str, str], **more) -> int:
        """The exit code; negative for the signal that ended it."""
        with self._started(args, environ, more) as call:
            return call.wait()

    def watched(
        self,
        *args: str,
        environ: Mapping[str, str],
        below: Path,
        die_at: int = 0,
        at: Callable[[], object] = int,
    ) -> int:
        """The same; changes to files below a folder are counted in ``changes``.

        Before each the process is stopped, and ``at`` is called; before the one of the number
        ``die_at`` it is killed.
        """
        self.changes = 0
        watch = {"first": _WATCH, "with": {"below": str(below)}}
        with self._started(args, environ, watch) as call:
            while "change" in (answer := call.answer()):
                self.changes = answer["change"]
                if self.changes == die_at:
                    os.kill(self.pid, signal.SIGKILL)
                else:
                    with _stopped(self.pid):
                        at()
                    call.begin()
            return os.waitstatus_to_exitcode(answer["status"])

    @contextmanager
    def _started(
        self, args: tuple[str, ...], environ: Mapping[str, str], more: Mapping
    ) -> Iterator[calls.Call]:
        base = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
        base["XDG_CACHE_HOME"] = str(self.repo.root.parent / "cache")
        with self.log.open("wb") as log:
            call = calls.start(
                args, self.repo.root, {**base, **environ}, log.fileno(), log.fileno(), **more
            )
        self.pid = call.pid
        call.begin()
        try:
            yield call
        except BaseException:
            # Else it would wait for its next change, or go on with the folder of a failed test.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            raise
        finally:
            self.pid = 0

    def output(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """Let no thread of a process go on while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    while any(_state(task) != "T" for task in tasks.iterdir()):
        time.sleep(0.001)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "T"
