"""Ask QEMU about a guest by its control protocol: a picture of the screen, its forwarded ports.

The protocol is QMP: https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html
"""

import json
import os
import re
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lago_images.errors import BootError

# Each waits for so many seconds at most; no clock, which a test may hold still.
_POLL = 0.2
_POLLS = 50
_FORWARD = re.compile(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)")


@dataclass(slots=True, kw_only=True)
class Monitor:
    """A running QEMU's monitor.

    Attributes:
        send: The file descriptor that reaches QEMU.
        receive: The file descriptor that its answers and events come from.
    """

    send: int
    receive: int
    _pending: bytes = b""
    _lines: list[dict[str, Any]] = field(default_factory=list)
    _is_ready: bool = False

    def screenshot(self, path: Path) -> bool:
        """Write the guest's screen as PNG; return whether there is one, and QEMU alive to show it.

        Args:
            path: Absolute, of the file.
        """
        with suppress(BootError):
            self.ask("screendump", filename=str(path), format="png")
        return path.exists()

    def forwarded_port(self) -> int | None:
        """Return the port of 127.0.0.1 that QEMU forwards to the guest; None for none."""
        with suppress(BootError):
            asked = {"command-line": "info usernet"}
            match = _FORWARD.search(str(self.ask("human-monitor-command", **asked)))
            return int(match[1]) if match else None
        return None

    def listen(self) -> None:
        """Have QEMU tell what happens to the guest; it may be gone already."""
        with suppress(BootError):
            self.ask("query-status")

    def shutdown_reason(self) -> str:
        """Return why the guest has ended, as QMP's ShutdownCause has it; empty if that is not told.

        QEMU has ended, and was listened to.
        """
        while (line := self._next()) is not None:
            if line.get("event") == "SHUTDOWN":
                return str(line["data"]["reason"])
        return ""

    def ask(self, command: str, **arguments: object) -> Any:  # noqa: ANN401
        """Return the answer to a command.

        Raises:
            BootError: QEMU refused, or did not answer.
        """
        if not self._is_ready:
            self._is_ready = True
            self.ask("qmp_capabilities")
        message = {"execute": command, "arguments": arguments}
        os.write(self.send, json.dumps(message).encode() + b"\n")
        polls = 0
        while polls < _POLLS:
            line = self._next()
            polls += line is None
            if line and "error" in line:
                raise BootError(f"QEMU refuses {command}: {line['error']}")
            if line and "return" in line:
                return line["return"]
        raise BootError(f"QEMU did not answer {command}")

    def _next(self) -> dict[str, Any] | None:
        """Return what QEMU said next: an answer or an event; None if it says nothing for now."""
        if not self._lines and select.select([self.receive], [], [], _POLL)[0]:
            *lines, self._pending = (self._pending + os.read(self.receive, 2**16)).split(b"\n")
            self._lines += map(json.loads, lines)
        return self._lines.pop(0) if self._lines else None


@contextmanager
def monitored(folder: Path) -> Iterator[tuple[list[str], Monitor]]:
    """Yield QEMU's options for a monitor, and the monitor.

    Two FIFOs, and no socket, whose path would be too long somewhere.
    """
    base = folder.resolve() / "boot-test.qmp"
    paths = [base.with_name(f"{base.name}.{end}") for end in ("in", "out")]
    opened: list[int] = []
    try:
        for path in paths:
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
            # For both directions: else opening waits for QEMU, and writing fails once that ended.
            opened.append(os.open(path, os.O_RDWR))
        # QEMU's option syntax: a comma in a value is written twice.
        name = str(base).replace(",", ",,")
        options = ["-chardev", f"pipe,id=qmp,path={name}", "-mon", "chardev=qmp,mode=control"]
        yield options, Monitor(send=opened[0], receive=opened[1])
    finally:
        for descriptor in opened:
            os.close(descriptor)
        for path in paths:
            path.unlink(missing_ok=True)
