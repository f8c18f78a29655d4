"""What the tests take from npm, installed once into the project's cache."""

import fcntl
import hashlib
import subprocess
from pathlib import Path

from tests.tools import need

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache"


def modules() -> Path:
    """The folder ``node_modules`` with the packages of ``tests/package.json``."""
    need("npm")
    need("node")
    wanted = (HERE / "package.json").read_bytes()
    folder = CACHE / f"npm-{hashlib.sha256(wanted).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            (folder / "package.json").write_bytes(wanted)
            subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"],
                cwd=folder,
                check=True,
                timeout=600,
            )
            (folder / "done").touch()
    return folder / "node_modules"
