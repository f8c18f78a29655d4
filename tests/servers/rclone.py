"""``rclone serve s3``: answers 200 to every conditional write, and overwrites."""

import os
from pathlib import Path

from tests.servers.model import Server
from tests.servers.processes import Processes, free_port


def start(packages: Path, run: Path, processes: Processes) -> Server:
    (run / "data").mkdir()
    port = free_port()
    keys = "testkey,testsecret"
    processes.start(
        [
            *(str(packages / "bin/rclone"), "serve", "s3", str(run / "data")),
            *("--addr", f"127.0.0.1:{port}", "--auth-key", keys, "--config", "/dev/null"),
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(run)},
    )
    endpoint = f"http://127.0.0.1:{port}"
    processes.wait_for(endpoint)
    return Server(name="rclone", endpoint=endpoint, conditional=False)
