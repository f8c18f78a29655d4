"""``lago-images serve`` as a process of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A running server: its URL, and what it printed for its users to paste."""

    url: str
    lines: tuple[str, ...]
    process: "subprocess.Popen[str]"
    log: Path


@contextlib.contextmanager
def serving(directory: Path, log: Path, *, port: int = 0) -> Iterator[Serving]:
    """Serve a repository while the block runs; then end the server as Ctrl-C does."""
    # fmt: off
    argv = [
        sys.executable, "-m", "lago_images", "serve", str(directory),
        "--port", str(port),
    ]
    # fmt: on
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            argv, env=environ, cwd=log.parent, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            lines = _greeting(process)
            url = re.search(r"http://\S+", lines[0]) if lines else None
            assert url is not None, f"serve ended: {log.read_text()}"
            yield Serving(url=url[0], lines=tuple(lines), process=process, log=log)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(300)


def _greeting(process: "subprocess.Popen[str]") -> list[str]:
    """The lines up to lago's, which is the last one before the server waits for requests."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("lago init"):
            break
    return lines
