"""Talk to the guest agent of a machine that is booting or has booted.

The protocol is QEMU's: https://www.qemu.org/docs/master/interop/qemu-ga-ref.html
"""

import base64
import json
import os
import random
import select
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lago_images.console import clean
from lago_images.errors import BootError

# Seconds that it may take for an answer.
ASK = 60.0
# Makes the agent's parser drop whatever half a line it holds; it may answer that with an error.
_FLUSH = b"\xff"
_AGAIN = 5.0
_POLL = 0.2
# Bytes of an answer: what an image has in place of an agent may send more than there is memory.
_LARGEST = 64 << 20
# Bytes of a failed program's output that its error has.
_TAIL = 500
_SYSTEM = ("/bin/sh", "-c", "systemctl is-system-running 2>/dev/null || true")
_STARTING = ("initializing", "starting")
_PAUSE = 1.0


def _nothing() -> None:
    """Look at nothing: whoever has the agent alone knows nothing of its guest."""


@dataclass(slots=True, kw_only=True)
class Agent:
    """The guest agent, behind the two ends of its virtio-serial port.

    Attributes:
        send: The file descriptor that reaches the guest.
        receive: The file descriptor that the guest's answers come from.
        clock: Seconds.
        check: Called while an answer is waited for; what it raises ends that.
    """

    send: int
    receive: int
    clock: Callable[[], float]
    check: Callable[[], None] = _nothing
    _token: int = field(default_factory=lambda: random.getrandbits(31))
    _sent: float | None = None
    _pending: bytes = b""
    _is_closed: bool = False

    def is_answering(self) -> bool:
        """Return whether the agent answers; asks it now and then, and waits a moment.

        QEMU keeps what is sent until the guest opens the port; an agent that is started again
        loses it. So it is asked again.
        """
        now = self.clock()
        if self._sent is None or now - self._sent > _AGAIN:
            self._sent = now
            self._sync()
        return any(line.get("return") == self._token for line in self._read())

    def settle(self, *, timeout: float) -> None:
        """Skip the answers to earlier questions.

        Raises:
            BootError: The agent did not answer in time.
        """
        deadline = self.clock() + timeout
        self._token += 1
        self._sync()
        while self.clock() < deadline:
            if any(line.get("return") == self._token for line in self._read()):
                return
            if self._is_closed:
                raise BootError("the machine ended before the guest agent answered")
        raise BootError(f"the guest agent did not answer within {timeout:.0f} s")

    def ask(self, command: str, *, timeout: float, **arguments: object) -> Any:  # noqa: ANN401
        """Return the agent's answer to a command.

        Raises:
            BootError: It refused, or did not answer in time.
        """
        deadline = self.clock() + timeout
        self._write({"execute": command, "arguments": arguments})
        while self.clock() < deadline:
            if self._is_closed:
                raise BootError(f"the machine ended before the guest agent answered {command}")
            for line in self._read():
                if "error" in line:
                    raise BootError(f"the guest agent refuses {command}: {line['error']}")
                return line.get("return")
        raise BootError(f"the guest agent did not answer {command} within {timeout:.0f} s")

    def send_only(self, command: str, arguments: Mapping[str, object]) -> None:
        """Send a command that the agent does not answer when it succeeds."""
        self._write({"execute": command, "arguments": arguments})

    def pause(self, seconds: float = _POLL) -> None:
        """Wait for a moment."""
        select.select([], [], [], seconds)

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> bytes:
        """Return the standard output of a program in the guest.

        Args:
            argv: The program and its arguments.
            timeout: Seconds for it, and for each answer of the agent.
            stdin: What it reads. Of more than a pipe holds, the agent may take nothing.

        Raises:
            BootError: The agent may not run programs (as in RHEL's own images), or it failed.
        """
        deadline = self.clock() + timeout
        options: dict[str, object] = {"capture-output": True}
        if stdin:
            options["input-data"] = base64.b64encode(stdin).decode()
        started = self.ask("guest-exec", timeout=timeout, path=argv[0], arg=argv[1:], **options)
        try:
            while self.clock() < deadline:
                status = self.ask("guest-exec-status", timeout=timeout, pid=started["pid"])
                if status["exited"]:
                    if status.get("exitcode") != 0:
                        raise BootError(f"{argv[0]} failed in the guest: {_outcome(status)}")
                    return base64.b64decode(status.get("out-data", ""))
                select.select([], [], [], _POLL)
        # The guest's agent is the guest's own: its answers may be anything.
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BootError(f"the guest agent's answer of {argv[0]} makes no sense") from error
        raise BootError(f"{argv[0]} did not end in the guest within {timeout:.0f} s")

    def until(self, is_so: Callable[[], bool], limit: float) -> bool:
        """Ask again and again until something is so; return False for more than ``limit`` s."""
        deadline = self.clock() + limit
        while not is_so():
            self.check()
            if self.clock() > deadline:
                return False
            self.pause(_PAUSE)
        return True

    def wait_for_units(self, limit: float) -> bool:
        """Wait until systemd has started what it is to start, or is not there; as ``until``.

        Raises:
            BootError: The agent may not run programs, or did not answer in time.
        """

        def is_over() -> bool:
            self.settle(timeout=ASK)
            state = self.run(_SYSTEM, timeout=ASK).decode(errors="replace").strip()
            return state not in _STARTING

        return self.until(is_over, limit)

    def _sync(self) -> None:
        arguments = {"id": self._token}
        self._write({"execute": "guest-sync-delimited", "arguments": arguments}, _FLUSH)

    def _write(self, message: Mapping[str, object], before: bytes = b"") -> None:
        # A broken pipe means that QEMU has ended, which its starter notices.
        with suppress(BrokenPipeError):
            os.write(self.send, before + json.dumps(message).encode() + b"\n")

    def _read(self) -> list[dict[str, Any]]:
        ready, _, _ = select.select([self.receive], [], [], _POLL)
        if not ready:
            self.check()
            return []
        data = os.read(self.receive, 2**16)
        if not data:
            self._is_closed = True
            select.select([], [], [], _POLL)
            self.check()
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > _LARGEST:
            raise BootError("the guest agent sends an answer without an end")
        return [parsed for line in lines if (parsed := _parsed(line))]


def _outcome(status: Mapping[str, Any]) -> str:
    """Return how a program ended, and the last of what it printed."""
    end = f"signal {status['signal']}" if "signal" in status else f"exit {status.get('exitcode')}"
    printed = b"".join(base64.b64decode(status.get(name, "")) for name in ("out-data", "err-data"))
    lines = printed[-_TAIL:].decode(errors="replace").splitlines()
    text = " / ".join(shown for line in lines if (shown := clean(line).strip()))
    return f"{end}: {text}" if text else end


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(line.strip(b"\xff\r"))
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
