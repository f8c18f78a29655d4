"""Real disks for tests: bootstrapped Debians, made once and kept between runs."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lago_images.building import ext4
from lago_images.building import packages as contents
from lago_images.building.bases.bootstrap import build, debian, disk, guest_files, layout
from lago_images.building.bases.prepared import Package, Prepared
from lago_images.building.customise import identities
from lago_images.building.model import Context
from lago_images.console import Console
from lago_images.host.process import Runner
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
_MADE_BY = (build, debian, disk, guest_files, layout, identities, ext4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A raw disk, which tests only read, and what is installed on it."""

    disk: Path
    packages: tuple[Package, ...]

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
    return _kept("debian12", DEBIAN12)


def debian12_cloud() -> Image:
    """The same with cloud-init."""
    return _kept("cloud", DEBIAN12 + "#cloud-init=yes\n")


def built_debian12(folder: Path) -> Image:
    """The same as ``debian12``, built now."""
    folder.mkdir()
    return _built(folder, DEBIAN12)


def _kept(name: str, text: str) -> Image:
    kept = _cache() / f"{name}-{_key(text)}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            for old in kept.parent.glob(f"{name}-*"):
                shutil.rmtree(old)
            _build(kept, text)
    listed = contents.parse((kept / "packages.txt").read_text())
    return Image(disk=kept / "disk.raw", packages=listed)


def _build(kept: Path, text: str) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as name:
        folder = Path(name)
        made = folder / "made"
        made.mkdir()
        image = _built(folder, text)
        (made / "packages.txt").write_text(contents.render(image.packages))
        image.disk.replace(made / "disk.raw")
        made.rename(kept)


def _built(folder: Path, text: str) -> Image:
    # As in a run: programs keep their temporary files in the image's own folder.
    runner = Runner(log=folder / "log", environ={**os.environ, "TMPDIR": str(folder)})
    spec = a_spec(text, "debian-12")
    prepared = build.prepare(spec, "tests", folder, a_context(folder), runner)
    assert prepared.packages is not None
    return Image(disk=prepared.disk, packages=prepared.packages)


def _key(text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for module in _MADE_BY:
        digest.update(Path(module.__file__).read_bytes())
    for part in sorted(Path(identities.__file__).parent.glob("*[!y]")):
        digest.update(part.read_bytes() if part.is_file() else b"")
    return digest.hexdigest()[:16]


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "lago-images-tests"


def read_ext4(disk: Path, path: str) -> str:
    """A file in the last partition of a raw disk, without an appliance."""
    done = subprocess.run(
        ["debugfs", "-R", f"cat {path}", _root(disk)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    if "File not found" in done.stderr:
        raise FileNotFoundError(path)
    return done.stdout


def _root(disk: Path) -> str:
    """The last partition of a raw disk, as e2fsprogs name a file system in a file."""
    argv = ["sfdisk", "--json", str(disk)]
    table = subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout
    start = max(each["start"] for each in json.loads(table)["partitiontable"]["partitions"])
    return f"{disk}?offset={start * 512}"


def root_size(disk: Path) -> int:
    """The bytes of the file system in the last partition of a raw disk."""
    facts = _debugfs(disk, "stats")
    blocks, size = (
        int(re.search(rf"^{name}: +(\d+)$", facts, re.MULTILINE)[1])
        for name in ("Block count", "Block size")
    )
    return blocks * size


def list_ext4(disk: Path, folder: str) -> list[str]:
    """Return the names in a folder of the last partition of a raw disk."""
    listed = _debugfs(disk, f"ls -p {folder}")
    names = [line.split("/")[5] for line in listed.splitlines() if line.startswith("/")]
    return [name for name in names if name not in {".", ".."}]


def stat_ext4(disk: Path, path: str) -> str:
    """Return what debugfs tells of a file in the last partition: mode, owner, attributes."""
    return _debugfs(disk, f"stat {path}")


def write_ext4(disk: Path, path: str, text: str) -> None:
    """Put a file of root's into the last partition of a raw disk, in place of another."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        _debugfs(disk, f"rm {path}", "-w")
        _debugfs(disk, f"write {file.name} {path}", "-w")
    assert read_ext4(disk, path) == text


def _debugfs(disk: Path, request: str, *options: str) -> str:
    argv = ["debugfs", *options, "-R", request, _root(disk)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def allocated(disk: Path) -> int:
    """Bytes that a sparse file takes up."""
    return disk.stat().st_blocks * 512
