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
from dataclasses import dataclass, replace
from pathlib import Path

from lago_images.building import ext4, superblocks
from lago_images.building import packages as contents
from lago_images.building.bases.bootstrap import (
    build,
    debian,
    disk,
    guest_files,
    layout,
    tree,
)
from lago_images.building.bases.prepared import Package, Prepared
from lago_images.building.customise import identities
from lago_images.building.esp import with_esp
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
DEBIAN13 = """\
#name=Debian 13
#base=bootstrap:debian-13
#arch=x86_64
#distro=debian
"""
DEBIAN13_ARM = """\
#name=Debian 13 for aarch64
#base=bootstrap:debian-13
#arch=aarch64
#distro=debian
"""
_MADE_BY = (build, debian, disk, guest_files, layout, superblocks, tree, identities, ext4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A raw disk, which tests only read, what is installed on it, and what it starts with."""

    disk: Path
    packages: tuple[Package, ...]
    boot_files: BootFiles

    @classmethod
    def of(cls, prepared: Prepared) -> "Image":
        """The image of a raw disk that was built."""
        assert prepared.packages is not None
        assert prepared.boot_files is not None
        return cls(disk=prepared.disk, packages=prepared.packages, boot_files=prepared.boot_files)

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


def debian13_cloud() -> Image:
    """The disk that ``bootstrap:debian-13`` gives with cloud-init."""
    return _kept("debian13-cloud", DEBIAN13 + "#cloud-init=yes\n")


def debian13_arm() -> Image:
    """The disk that ``bootstrap:debian-13`` gives for aarch64."""
    return _kept("debian13-aarch64", DEBIAN13_ARM)


def built_debian12(folder: Path, cache: Path | None = None) -> Image:
    """The same as ``debian12``, built now; without ``cache``, nothing is kept of it."""
    folder.mkdir()
    return _built(folder, DEBIAN12, cache)


def _kept(name: str, text: str) -> Image:
    kept = cache() / f"{name}-{_key(text)}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            for old in kept.parent.glob(f"{name}-*"):
                shutil.rmtree(old)
            _build(kept, text)
    return read_image(kept)


def _build(kept: Path, text: str) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as name:
        folder = Path(name)
        made = folder / "made"
        made.mkdir()
        write_image(_built(folder, text), made)
        made.rename(kept)


def _built(folder: Path, text: str, kept: Path | None = None) -> Image:
    # As in a run: programs keep their temporary files in the image's own folder.
    runner = Runner(log=folder / "log", environ={**os.environ, "TMPDIR": str(folder)})
    spec = a_spec(text, "debian-12")
    context = a_context(folder)
    context = replace(context, cache=kept or context.cache)
    prepared = build.prepare(spec, "tests", folder, context, runner)
    if kept is None:
        shutil.rmtree(context.cache, ignore_errors=True)
    return Image.of(with_esp(prepared, runner))


def write_image(image: Image, folder: Path) -> None:
    """Move an image into an empty folder."""
    (folder / "packages.txt").write_text(contents.render(image.packages))
    (folder / BOOT_FILES).write_text(boot_files.render(image.boot_files))
    image.disk.replace(folder / "disk.raw")


def read_image(folder: Path) -> Image:
    """Return the image that was moved into a folder."""
    return Image(
        disk=folder / "disk.raw",
        packages=contents.parse((folder / "packages.txt").read_text()),
        boot_files=boot_files.parse((folder / BOOT_FILES).read_text()),
    )


def _key(text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for module in _MADE_BY:
        digest.update(Path(module.__file__).read_bytes())
    for part in sorted(Path(identities.__file__).parent.glob("*[!y]")):
        digest.update(part.read_bytes() if part.is_file() else b"")
    return digest.hexdigest()[:16]


def cache() -> Path:
    """The folder of what tests keep between runs."""
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
    return _stat(disk, "Block count") * _stat(disk, "Block size")


def free_blocks(disk: Path) -> int:
    """The blocks of that file system that no file has."""
    return _stat(disk, "Free blocks")


def _stat(disk: Path, name: str) -> int:
    return int(re.search(rf"^{name}: +(\d+)$", _debugfs(disk, "stats"), re.MULTILINE)[1])


def list_ext4(disk: Path, folder: str) -> list[str]:
    """Return the names in a folder of the last partition of a raw disk."""
    listed = _debugfs(disk, f"ls -p {folder}")
    names = [line.split("/")[5] for line in listed.splitlines() if line.startswith("/")]
    return [name for name in names if name not in {".", ".."}]


def stat_ext4(disk: Path, path: str) -> str:
    """Return what debugfs tells of a file in the last partition: mode, owner, attributes."""
    return _debugfs(disk, f"stat {path}")


def write_ext4(disk: Path, path: str, text: str) -> None:
    """Put a file of root's into the last partition of a raw disk, in place of another.

    It is an hour old: on a busy machine a guest's clock may be behind this one's by seconds.
    """
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        _debugfs(disk, f"rm {path}", "-w")
        _debugfs(disk, f"write {file.name} {path}", "-w")
        _debugfs(disk, f"set_inode_field {path} mtime @{int(time.time()) - 3600}", "-w")
    assert read_ext4(disk, path) == text


def write_guest(disk: Path, path: str, text: str, mode: int = 0o644) -> None:
    """Put a file of root's, readable or executable, into the last partition of a raw disk."""
    write_ext4(disk, path, text)
    _debugfs(disk, f"set_inode_field {path} mode 0{0o100000 | mode:o}", "-w")


def authorize(disk: Path, key: str) -> None:
    """Let who has a key of ssh, given in base64, log in as root of a raw disk."""
    change_ext4(disk, "mkdir /root/.ssh")
    write_guest(disk, "/root/.ssh/authorized_keys", f"ssh-ed25519 {key} test\n", 0o600)


def add_first_boot(disk: Path) -> None:
    """Give a raw disk a first-boot command, as virt-customize does it and we then let it wait."""
    unit = Path(identities.WAIT_FOR_NETWORK).parent.with_suffix("")
    change_ext4(disk, "mkdir /usr/lib/virt-sysprep", f"mkdir {unit}.d")
    write_guest(disk, "/usr/lib/virt-sysprep/firstboot.sh", "#!/bin/sh\n", 0o755)
    write_guest(
        disk, str(unit), "[Service]\nType=oneshot\nExecStart=/usr/lib/virt-sysprep/firstboot.sh\n"
    )
    write_guest(disk, identities.WAIT_FOR_NETWORK, identities.wait_for_network())
    change_ext4(disk, f"symlink {unit.parent}/multi-user.target.wants/{unit.name} {unit}")


def change_ext4(disk: Path, *requests: str) -> None:
    """Change the last partition of a raw disk by requests of debugfs, which have to succeed."""
    for request in requests:
        _debugfs(disk, request, "-w")


def _debugfs(disk: Path, request: str, *options: str) -> str:
    argv = ["debugfs", *options, "-R", request, _root(disk)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def allocated(disk: Path) -> int:
    """Bytes that a sparse file takes up."""
    return disk.stat().st_blocks * 512
