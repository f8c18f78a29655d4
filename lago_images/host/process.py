"""Start programs, with a short environment and a log. The one door to the operating system."""

import os
import shutil
import signal
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar

from lago_images.errors import CommandError, ToolMissingError
from lago_images.host.redaction import command_line, environment_for, redacted
from lago_images.host.tools import package_of

# What children may see of the environment: no cloud, GitHub or signing credentials (promise 9).
ALLOWED = (
    "PATH",
    "HOME",
    "TERM",
    "TMPDIR",
    "TZ",
    "XDG_RUNTIME_DIR",
    "XDG_CACHE_HOME",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
_ADMIN = ("/usr/sbin", "/sbin")
TAIL = 30
PIPE = subprocess.PIPE
# Seconds between SIGTERM and SIGKILL: who ended a run waits for all of its programs. qemu,
# mmdebstrap and virt-* end in less; 7zz may not, and leaves nothing, since it writes to a pipe.
_GRACE = 0.5
_POLL = 0.05


def child_environment(
    environ: Mapping[str, str], extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the allow-listed part of ``environ``, a fixed locale, and ``extra``."""
    # Messages and numbers are parsed, and a spec's build must not depend on who starts it.
    kept = {name: environ[name] for name in ALLOWED if name in environ}
    return {**kept, "PATH": search_path(environ), "LC_ALL": "C.UTF-8", **(extra or {})}


def search_path(environ: Mapping[str, str]) -> str:
    """Return the path to look for programs in, with Debian's folders of sfdisk and mke2fs."""
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folders + [more for more in _ADMIN if more not in folders])


class Children:
    """Children keeps the programs that are running, so that another thread can end all of them.

    Args:
        parent: A run's, of which these are a part: its end ends these, and not the reverse.
    """

    _all: ClassVar["weakref.WeakSet[Children]"] = weakref.WeakSet()
    # Held while a program starts: one that is started and not yet on the list would outlive us.
    # Reentrant for a signal's handler, which may run in the middle of the main thread's own start.
    _starting: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, parent: "Children | None" = None) -> None:
        self._parent = parent
        self._all.add(self)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._over = threading.Event()

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` once ``end`` was called."""
        if self._parent:
            self._parent.check()
        if self._over.is_set():
            raise KeyboardInterrupt

    def pause(self, seconds: float) -> None:
        """Wait; raises ``KeyboardInterrupt`` as soon as ``end`` was called."""
        # In short turns: the end of a parent is an event of its own.
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            self.check()
            self._over.wait(min(left, _POLL))
        self.check()

    def start(self, argv: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":  # noqa: ANN401
        """Start a program, unless ``end`` was called."""
        with self._starting, self._lock:
            self.check()
            if self._parent:
                child = self._parent.start(argv, **options)
            else:
                # A session of its own: Ctrl-C in a terminal goes to the whole foreground group, and
                # would end the child before it is asked to clean up.
                child = subprocess.Popen(argv, start_new_session=True, **options)
            self._running.add(child)
            return child

    def ended(self, child: "subprocess.Popen[bytes]") -> None:
        """Take a program off the list: its process id may be another's now."""
        with self._lock:
            self._running.discard(child)
        if self._parent:
            self._parent.ended(child)

    @classmethod
    def kill_all(cls) -> None:
        """Kill every program of every run, as this process ends without waiting for threads.

        None can be started any more.
        """
        # Kept: the process ends. The limit is for a start that hangs, as on a server's files.
        cls._starting.acquire(timeout=_GRACE)
        for children in tuple(cls._all):
            children.kill()

    def kill(self) -> None:
        """Kill the programs that are running; others may be started."""
        for child in tuple(self._running):
            _signal(child, signal.SIGKILL)

    def end(self) -> None:
        """Send all programs SIGTERM, then SIGKILL; none can be started any more."""
        with self._lock:
            self._over.set()
            running = tuple(self._running)
        for child in running:
            _signal(child, signal.SIGTERM)
        limit = time.monotonic() + _GRACE
        while any(child.poll() is None for child in running) and time.monotonic() < limit:
            time.sleep(_POLL)
        for child in running:
            _signal(child, signal.SIGKILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Runs programs.

    Attributes:
        environ: Where the children's allow-listed variables are taken from.
        log: Every command and every line of output is appended here, redacted; None for no log.
        echo: Called with each line of output as it comes.
        prefix: Put before every command: a sandbox.
        children: What is running; shared by the runners of a run.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    log: Path | None = None
    echo: Callable[[str], None] | None = None
    prefix: tuple[str, ...] = ()
    children: Children = field(default_factory=Children)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float | None = None,
        doing: str | None = None,
    ) -> None:
        """Run a program to its end; its output goes to the log.

        Args:
            argv: The program and its arguments.
            env: Variables besides the allow-listed ones.
            cwd: Where to run it.
            timeout: Seconds after which it and its children are killed.
            doing: What it is run for, for the message when it fails.

        Raises:
            ToolMissingError: The program is not installed.
            CommandError: It failed, was killed, or ran out of time.
        """
        self.note("+ " + command_line(argv))
        tail: deque[str] = deque(maxlen=TAIL)
        with self.started(
            argv, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as child:
            timer, expired = _alarm(child, timeout)
            assert child.stdout is not None  # noqa: S101 -- PIPE was asked for
            try:
                for raw in child.stdout:
                    line = raw.decode(errors="replace").rstrip("\r\n")
                    tail.append(line)
                    self.note(line)
                    if self.echo:
                        self.echo(line)
                child.wait()
            finally:
                timer.cancel()
        if child.returncode != 0 or expired.is_set():
            raise self._failure(argv, child.returncode, tail, doing, timeout, expired.is_set())

    def capture(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        timeout: float | None = 120,
        doing: str | None = None,
    ) -> bytes:
        """Run a program and return its standard output; its standard error goes to the log.

        Raises as ``run`` does.
        """
        self.note("+ " + command_line(argv))
        pipe = subprocess.PIPE
        with self.started(
            argv, env=env, cwd=cwd, stdin=None if stdin is None else pipe, stdout=pipe, stderr=pipe
        ) as child:
            timer, expired = _alarm(child, timeout)
            try:
                out, err = child.communicate(stdin)
            finally:
                timer.cancel()
        failed = child.returncode != 0 or expired.is_set()
        tail = err.decode(errors="replace").splitlines()
        if failed and not tail:
            tail = out.decode(errors="replace").splitlines()
        for line in tail:
            self.note(line)
        if failed:
            raise self._failure(
                argv, child.returncode, tail[-TAIL:], doing, timeout, expired.is_set()
            )
        return bytes(out)

    @contextmanager
    def started(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Start a program in a process group of its own, which ends with the block.

        Raises ``ToolMissingError`` when the program is not installed.
        """
        environment = environment_for(argv[0], child_environment(self.environ, env))
        full = [*self.prefix, *argv]
        for program in (full[0], argv[0]):
            if shutil.which(program, path=environment.get("PATH")) is None:
                raise missing(program)
        child = self.children.start(
            full,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
        )
        try:
            yield child
            self.children.check()
        finally:
            _end(child)
            self.children.ended(child)

    def interact(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
        """Run a program on this process's terminal to its end, and return its exit code.

        It stays in the terminal's foreground process group, so that it may read the keyboard.
        Raises ``ToolMissingError`` when the program is not installed.
        """
        terminal = {"TERM": self.environ["TERM"]} if "TERM" in self.environ else {}
        environment = child_environment(self.environ, {**terminal, **(env or {})})
        if shutil.which(argv[0], path=environment["PATH"]) is None:
            raise missing(argv[0])
        return subprocess.run(argv, env=environment, check=False).returncode

    def note(self, line: str) -> None:
        """Add a line to the log, redacted."""
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as log:
                log.write(redacted(line) + "\n")

    def _failure(
        self,
        argv: Sequence[str],
        returncode: int,
        tail: Sequence[str],
        doing: str | None,
        timeout: float | None,
        expired: bool,
    ) -> CommandError:
        if expired:
            how = f"was stopped after {timeout:.0f} s"
        elif returncode < 0:
            how = f"was killed by {signal.Signals(-returncode).name}"
        else:
            how = f"failed with exit code {returncode}"
        prefix = f"{doing}: " if doing else ""
        return CommandError(
            f"{prefix}{argv[0]} {how}",
            argv=argv,
            returncode=returncode,
            tail=[redacted(line) for line in tail],
            log=self.log,
        )


def missing(program: str) -> ToolMissingError:
    """Return the error for a program that is not installed, with the package that has it."""
    package = package_of(program)
    hint = f"apt-get install {package}" if package else "install it, or put it on PATH"
    return ToolMissingError(f"{program} is not installed", hint=hint)


def _alarm(
    child: "subprocess.Popen[bytes]", timeout: float | None
) -> tuple[threading.Timer, threading.Event]:
    expired = threading.Event()

    def fire() -> None:
        # Before the signal: whoever waits for the child must see why it ended.
        expired.set()
        _signal(child, signal.SIGKILL)

    timer = threading.Timer(timeout if timeout is not None else threading.TIMEOUT_MAX, fire)
    timer.daemon = True
    if timeout is not None:
        timer.start()
    return timer, expired


def _signal(child: "subprocess.Popen[bytes]", number: int) -> None:
    # start_new_session made its process id the group's. The group may be empty by now.
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Leave no member of the program's process group behind."""
    if child.poll() is None:
        _signal(child, signal.SIGTERM)
        try:
            child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            _signal(child, signal.SIGKILL)
            child.wait()
    # The program has ended; what it left running in its group has not.
    _signal(child, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
