"""The real guest agent without a guest: in a sandbox of its own, where it may do nothing here."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lago_images.building.boot.console_signs import Fault, faults
from lago_images.building.boot.guest_agent import Agent
from lago_images.errors import BootError

_LONGEST = 300
# No file of the host can be written, and no process or network of it is seen.
_SANDBOX = (
    "bwrap",
    *("--unshare-all", "--die-with-parent", "--new-session", "--uid", "0", "--gid", "0"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
    *("--tmpfs", "/root", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp", "--tmpfs", "/run"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAlone:
    """A guest agent that answers; what stands in for its guest is the sandbox."""

    agent: Agent
    process: "subprocess.Popen[bytes]"
    console: Path

    def wait(self) -> float:
        """Wait until it answers."""
        for _ in range(_LONGEST):
            if self.agent.is_answering():
                return 0.0
        raise BootError("the guest agent does not answer")

    def power_off(self, limit: float) -> bool:
        """End the sandbox."""
        self.process.kill()
        self.process.wait(timeout=limit)
        return True

    def faults(self) -> tuple[Fault, ...]:
        """Return those of its console, where tests in the sandbox write as a kernel does."""
        return faults(self.console.read_text()) if self.console.exists() else ()

    def photograph(self, picture: Path | None) -> bool:
        """Return that there is none: it has no screen."""
        return False


@contextmanager
def agent_alone(folder: Path) -> Iterator[AgentAlone]:
    """Start one whose socket is in a folder, and end it with the block."""
    path = folder / "agent"
    path.unlink(missing_ok=True)
    (folder / "console").unlink(missing_ok=True)
    inside = ("--bind", str(folder), "/run/agent")
    program = ("qemu-ga", "-m", "unix-listen", "-p", "/run/agent/agent", "-t", "/run")
    with (
        (folder / "agent.log").open("ab") as log,
        subprocess.Popen([*_SANDBOX, *inside, *program], stdout=log, stderr=log) as process,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        try:
            _connect(connection, path, process)
            end = connection.fileno()
            agent = Agent(send=end, receive=end, clock=time.monotonic)
            yield AgentAlone(agent=agent, process=process, console=folder / "console")
        finally:
            process.kill()


def _connect(connection: socket.socket, path: Path, process: "subprocess.Popen[bytes]") -> None:
    while True:
        try:
            return connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            assert process.poll() is None, (path.parent / "agent.log").read_text()
            time.sleep(0.05)


@dataclass(slots=True, kw_only=True)
class Restarts:
    """Starts the agent again, as a boot test starts a guest; notes whether with a network."""

    folder: Path
    networks: list[bool] = field(default_factory=list)
    starved: bool = False

    @contextmanager
    def started(self, *, network: bool) -> Iterator[AgentAlone]:
        self.networks.append(network)
        with agent_alone(self.folder) as alone:
            yield alone

    def is_starved(self) -> bool:
        return self.starved
