"""Calling the real command line, often and quickly: see ``tests.support.zygote``."""

import atexit
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import lago_images
from tests.support import zygote

# Before a test changes it.
_ENVIRON = dict(os.environ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A process of the command line, which waits until it is told to begin."""

    pid: int
    own: socket.socket
    answers: IO[bytes]

    def begin(self) -> None:
        self.own.sendall(b"g")

    def answer(self) -> dict[str, Any]:
        """The next message of the process' own, or ``{"status": …}`` when it has ended."""
        answer: dict[str, Any] = json.loads(self.answers.readline())
        if "status" in answer:
            self.answers.close()
            self.own.close()
        return answer

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; negative for the signal that ended it. Raises ``TimeoutError``."""
        self.own.settimeout(timeout)
        return os.waitstatus_to_exitcode(self.answer()["status"])


class Zygote:
    """A process that imported the command line, and forks for each call."""

    def __init__(self) -> None:
        self._door, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-P", zygote.__file__, str(other.fileno()), lago_images.__file__],
                cwd=zygote.ROOT,
                env=_ENVIRON,
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def start(
        self, args: Sequence[str], cwd: Path, environ: Mapping[str, str], out: int, err: int, **more
    ) -> Call:
        """Start a call that reads nothing and writes to two open files.

        Raises ``ValueError`` for variables that Python reads when it starts: it has started.
        """
        if unheard := sorted(set(_read_at_start(environ).items()) - set(_ENVIRON.items())):
            raise ValueError(f"these variables need a Python that is started with them: {unheard}")
        own, other = socket.socketpair()
        call = {"args": [*map(os.fspath, args)], "cwd": str(cwd), "environ": dict(environ), **more}
        with other, Path(os.devnull).open("rb") as nothing:
            files = [other.fileno(), nothing.fileno(), out, err]
            # Of a server that has ended nothing is read below.
            with suppress(ConnectionError):
                socket.send_fds(self._door, [json.dumps(call).encode()], files)
        answers = own.makefile("rb")
        if not (answer := answers.readline()):
            answers.close()
            own.close()
            raise RuntimeError("the forking server has ended, or does not take the call")
        return Call(pid=json.loads(answer)["pid"], own=own, answers=answers)

    def end(self) -> None:
        self._door.close()
        self._process.wait()


class _Zygotes:
    """Two, one after the other: what depends on the order of Python's sets differs between them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: list[Zygote] = []
        self._next: Iterator[Zygote] = iter(())

    def next(self) -> Zygote:
        with self._lock:
            if not self._made:
                self._made = [Zygote(), Zygote()]
                self._next = itertools.cycle(self._made)
                atexit.register(self._end)
            return next(self._next)

    def _end(self) -> None:
        for each in self._made:
            each.end()


_ZYGOTES = _Zygotes()


def start(
    args: Sequence[str], cwd: Path, environ: Mapping[str, str], out: int, err: int, **more
) -> Call:
    return _ZYGOTES.next().start(args, cwd, environ, out, err, **more)


def run(
    args: Sequence[str], cwd: Path, environ: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """As ``subprocess.run`` would, with the output as text."""
    if not _is_usual(environ):
        return subprocess.run(
            [sys.executable, "-m", "lago_images", *args],
            cwd=cwd,
            env=environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    with _file() as out, _file() as err:
        call = start(args, cwd, environ, out.fileno(), err.fileno())
        call.begin()
        try:
            code = call.wait(timeout)
        except TimeoutError as error:
            os.kill(call.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(args), timeout) from error
        return subprocess.CompletedProcess(list(args), code, _text(out), _text(err))


def _is_usual(environ: Mapping[str, str]) -> bool:
    """Whether Python would start as a zygote has started."""
    return _read_at_start(environ) == _read_at_start(_ENVIRON)


def _read_at_start(environ: Mapping[str, str]) -> dict[str, str]:
    begins = ("PYTHON", "LC_", "LANG", "LOCPATH")
    return {name: value for name, value in environ.items() if name.startswith(begins)}


def _file() -> io.FileIO:
    return io.FileIO(os.memfd_create("output"), "r+")


def _text(file: io.FileIO) -> str:
    file.seek(0)
    return io.TextIOWrapper(io.BytesIO(file.readall())).read()
