"""The real lago 0.46.0 client, from its sdist on PyPI.

It is Python 2 code. Where there is a Python 2.7 it runs as it is; everywhere it also runs on
Python 3, converted by lib2to3's maintained copy (fissix), as ``lago_driver`` says.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "clients"
DRIVER = Path(__file__).with_name("lago_driver.py")
VERSION = "0.46.0"
SDIST_SHA256 = "487d97d1dda0b46e8f55569c3c907404fd32d21946dcff2aef18816b32725c4a"
# What lago.templates imports, and what those import.
MODULES = ("__init__", "config", "constants", "log_utils", "templates", "utils", "validation")
PYTHON3 = ["setuptools<70", "wheel", "pbr", "fissix", "future", "six", "PyYAML", "pyxdg"]
PYTHON3 += ["configparser"]
PYTHON2 = ["six", "PyYAML<6", "pyxdg<0.28", "configparser<5", "future", "wrapt<1.15", "enum34"]
PYTHON2 += ["setuptools<45"]


class LagoError(Exception):
    """What lago raised, as ``Class: message``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lago:
    """A runnable lago client: its interpreter and the folder its package is in."""

    python: Path
    source: Path

    def templates(self, url: str) -> dict[str, Any]:
        """The repository's name and its templates, with versions and the newest of them."""
        return self._run("list", url)

    def download(self, url: str, store: Path, template: str, version: str = "") -> dict[str, Any]:
        """Download, check and convert a template as ``lago init`` does.

        Returns:
            ``path`` of the raw disk, ``hash``, ``metadata``, ``version``, and whether it was
            ``fresh`` or taken from the store.

        Raises:
            LagoError: lago raised.
        """
        return self._run("download", url, str(store), template, *([version] if version else []))

    def _run(self, *arguments: str) -> dict[str, Any]:
        argv = [str(self.python), str(DRIVER), str(self.source), *arguments]
        done = subprocess.run(argv, capture_output=True, timeout=300, check=False)
        if done.returncode != 0:
            raise AssertionError(f"lago's driver died:\n{done.stderr.decode()}")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if "error" in answer:
            raise LagoError(answer["error"])
        return answer


def converted() -> Lago:
    """lago on this Python 3, converted once into the cache."""
    with _made("lago-python3") as (folder, new):
        if new:
            python = _environment(folder)
            _unpack(_sdist(python, folder), folder)
            names = [str(folder / "lago" / f"{name}.py") for name in MODULES]
            _call(python, "-m", "fissix", "--write", "--nobackups", "--no-diffs", *names)
    return Lago(python=folder / "venv" / "bin" / "python", source=folder)


def python2() -> str | None:
    """A Python 2.7 with pip, if there is one."""
    found = shutil.which("python2.7")
    if found is None:
        return None
    argv = [found, "-m", "pip", "--version"]
    works = subprocess.run(argv, capture_output=True, check=False).returncode == 0
    return found if works else None


def unmodified() -> Lago:
    """lago as it was released, on Python 2.7."""
    python = python2()
    assert python is not None
    with _made("lago-python2") as (folder, new):
        if new:
            _unpack(_sdist(converted().python, folder), folder)
            _call(python, "-m", "pip", "install", "--quiet", "--target", folder, *PYTHON2)
    return Lago(python=Path(python), source=folder)


@contextmanager
def _made(name: str) -> Iterator[tuple[Path, bool]]:
    """A folder of the cache, and whether it must be filled; one process at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder, marker = CACHE / name, CACHE / name / "complete"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new = not marker.exists() or marker.read_text() != _recipe()
        if new:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield folder, new
        marker.write_text(_recipe())


def _recipe() -> str:
    return " ".join([VERSION, SDIST_SHA256, sys.version, *PYTHON3, *PYTHON2])


def _environment(folder: Path) -> Path:
    _call(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    _call(python, "-m", "pip", "install", "--quiet", *PYTHON3)
    return python


def _sdist(python: Path, folder: Path) -> Path:
    # Its setup.py needs pbr and a setuptools of its time, which are in the environment.
    how = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--quiet", "--dest"]
    _call(python, "-m", "pip", "download", *how, folder, f"lago=={VERSION}")
    (archive,) = folder.glob("lago-*.tar.gz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert digest == SDIST_SHA256, f"lago's sdist is not the known one: {digest}"
    return archive


def _unpack(archive: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch, tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
        (Path(scratch) / f"lago-{VERSION}" / "lago").rename(folder / "lago")


def _call(*argv: str | Path) -> None:
    done = subprocess.run(list(map(str, argv)), capture_output=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout.decode()}\n{done.stderr.decode()}"
