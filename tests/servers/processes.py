"""Server processes that cannot outlive the tests that started them."""

import ctypes
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_TRIES = 100
_libc = ctypes.CDLL(None)


class NotStartedError(Exception):
    """A server ended, or did not answer in time; with its last words."""


def free_port() -> int:
    """Return a port that nothing listens on, for who must know it before a server is started.

    It is below those that the kernel gives to clients and to servers that ask for any port, so that
    none of them takes it meanwhile.
    """
    ranges = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(ranges.read_text().split()[0])
    # Not random's own functions: workers of one run draw the same numbers from them.
    ports = random.SystemRandom().sample(range(1024, lowest), min(_TRIES, lowest - 1024))
    for port in ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise NotStartedError(f"none of {len(ports)} ports below {lowest} is free")


@dataclass(slots=True, kw_only=True)
class Processes:
    """Processes that are killed together, and by the kernel if this one dies before."""

    log: Path
    running: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start a process; its output goes to the log."""
        with self.log.open("ab") as log:
            self.running.append(
                subprocess.Popen(
                    argv,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509 -- calls one function of the C library
                    start_new_session=True,
                )
            )

    def run(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, timeout: float = 300
    ) -> None:
        """Run a program to its end."""
        with self.log.open("ab") as log:
            done = subprocess.run(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                check=False,
                timeout=timeout,
            )
        if done.returncode != 0:
            raise self._not_started(f"{argv[0]} failed with {done.returncode}")

    def wait_for(self, url: str, timeout: float = 300) -> None:
        """Until the server answers anything at all."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            for process in self.running:
                if process.poll() is not None:
                    raise self._not_started(f"{process.args!r} ended with {process.returncode}")
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return
            except urllib.error.HTTPError as answer:
                answer.close()
                return
            except OSError:
                time.sleep(0.05)
        raise self._not_started(f"{url} did not answer within {timeout:.0f} s")

    def stop(self) -> None:
        """Kill them, the last one first."""
        for process in reversed(self.running):
            process.kill()
            process.wait()
        self.running.clear()

    def _not_started(self, why: str) -> NotStartedError:
        said = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
        return NotStartedError(f"{why}\n{said}")


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
