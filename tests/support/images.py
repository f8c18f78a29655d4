"""Real disks for tests: a bootstrapped Debian 12, made once and kept between runs."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lago_images.building import packages as contents
from lago_images.building.bases.bootstrap import build, debian, guest_files
from lago_images.building.bases.bootstrap import disk as partition
from lago_images.building.bases.prepared import Package, Prepared
from lago_images.building.customise import identities
from lago_images.building.model import Context
from lago_images.console import Console
from lago_images.host.process import Runner
from lago_images.repository.records import boot_files
from lago_images.repository.records.boot_files import BootFiles
from lago_images.repository.records.layout import BOOT_FILES
from lago_images.repository.records.manifest import BaseRecord
from lago_images.settings import Settings
from lago_images.specs.model import Spec
from lago_images.storage.base import Store
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import parsed

DEBIAN12 = """\
#name=Debian 12
#base=bootstrap:debian-12
#arch=x86_64
#distro=debian
"""
_MADE_BY = (build, debian, guest_files, partition, identities)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A raw disk, which tests only read, what is installed on it, and what it starts with."""

    disk: Path
    packages: tuple[Package, ...]
    boot_files: BootFiles

    def copy(self, folder: Path) -> Prepared:
        """A copy that may be changed."""
        disk = folder / "base.raw"
        subprocess.run(
            ["cp", "--reflink=auto", "--sparse=always", self.disk, disk], check=True, timeout=120
        )
        record = BaseRecord(ref="bootstrap:debian-12", digest=contents.digest(self.packages))
        return Prepared(disk=disk, format="raw", record=record, packages=self.packages)


def a_spec(text: str, name: str = "image") -> Spec:
    """The spec of a text that has no problems."""
    return parsed(text, name)


def a_context(
    folder: Path,
    *,
    settings: Settings | None = None,
    store: Store | None = None,
    environ: dict[str, str] | None = None,
) -> Context:
    """A context with everything under ``folder``."""
    root = folder / "root"
    root.mkdir(exist_ok=True)
    return Context(
        root=root,
        store=store or DirectoryStore(path=folder / "repository"),
        settings=settings or Settings(folder=folder),
        console=Console(quiet=True),
        environ=dict(os.environ) if environ is None else environ,
        cache=folder / "cache",
        logs=folder / "logs",
        clock=time.time,
    )


def debian12() -> Image:
    """The disk that ``bootstrap:debian-12`` gives, built again when its code has changed."""
    kept = _cache() / _key()
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            for old in kept.parent.glob("debian12-*"):
                shutil.rmtree(old)
            _build(kept)
    listed = contents.parse((kept / "packages.txt").read_text())
    starts = boot_files.parse((kept / BOOT_FILES).read_text())
    return Image(disk=kept / "disk.raw", packages=listed, boot_files=starts)


def _build(kept: Path) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as name:
        folder = Path(name)
        made = folder / "made"
        made.mkdir()
        runner = Runner(log=folder / "log")
        spec = a_spec(DEBIAN12, "debian-12")
        prepared = build.prepare(spec, folder, a_context(folder), runner)
        assert prepared.packages is not None
        assert prepared.boot_files is not None
        (made / "packages.txt").write_text(contents.render(prepared.packages))
        (made / BOOT_FILES).write_text(boot_files.render(prepared.boot_files))
        prepared.disk.replace(made / "disk.raw")
        made.rename(kept)


def _key() -> str:
    digest = hashlib.sha256()
    for module in _MADE_BY:
        digest.update(Path(module.__file__).read_bytes())
    for part in sorted(Path(identities.__file__).parent.glob("*[!y]")):
        digest.update(part.read_bytes() if part.is_file() else b"")
    return f"debian12-{digest.hexdigest()[:16]}"


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "lago-images-tests"


def read_ext4(disk: Path, path: str) -> str:
    """A file in the first partition of a raw disk, without an appliance."""
    done = subprocess.run(
        ["debugfs", "-R", f"cat {path}", f"{disk}?offset={partition.START}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    if "File not found" in done.stderr:
        raise FileNotFoundError(path)
    return done.stdout


def list_ext4(disk: Path, folder: str) -> list[str]:
    """Return the names in a folder of the first partition of a raw disk."""
    listed = _debugfs(disk, f"ls -p {folder}")
    names = [line.split("/")[5] for line in listed.splitlines() if line.startswith("/")]
    return [name for name in names if name not in {".", ".."}]


def stat_ext4(disk: Path, path: str) -> str:
    """Return what debugfs tells of a file in the first partition: mode, owner, attributes."""
    return _debugfs(disk, f"stat {path}")


def write_ext4(disk: Path, path: str, text: str) -> None:
    """Put a file of root's into the first partition of a raw disk, in place of another."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        _debugfs(disk, f"rm {path}", "-w")
        _debugfs(disk, f"write {file.name} {path}", "-w")
    assert read_ext4(disk, path) == text


def _debugfs(disk: Path, request: str, *options: str) -> str:
    argv = ["debugfs", *options, "-R", request, f"{disk}?offset={partition.START}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def allocated(disk: Path) -> int:
    """Bytes that a sparse file takes up."""
    return disk.stat().st_blocks * 512
