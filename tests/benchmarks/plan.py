"""Planning 10,000 specs, beside the digests alone as a shell script in CI takes them.

The specs have 15 lines; every third uploads a file of its own, every tenth is a layer. All are
published in a repository in a directory, with 7 files each. Then ten specs and ten uploaded files
change. The rival asks ``git diff --name-only`` and hashes each spec and input with ``git
hash-object``: one process a file (measured on some, told for all), or one process for all, the
best it can be. It parses nothing, checks nothing, knows no layers and no repository, and gives no
reasons.

Seconds are CPU seconds of a process and its children, the least of three. ``ci plan`` is the
command itself, a process of its own from start to end; its steps are measured in one process.
"""

import gc
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lago_images.planning.formats import summary, to_json
from lago_images.planning.git import Git
from lago_images.planning.history import Ask, gather
from lago_images.planning.holdings import holdings
from lago_images.planning.model import Plan, Tree
from lago_images.planning.plan import make, suspects
from lago_images.planning.tree import prefixes, read_tree
from lago_images.repository.records.manifest import BaseRecord
from lago_images.repository.records.release import BaseBinding
from lago_images.repository.records.state import PublishedCommit, read
from lago_images.settings import FILE, Settings
from lago_images.specs.model import BaseKind
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import copy_of, disk_bytes, files_of, manifest, release
from tests.support.specs import SpecsRepo

COUNT = 10_000
CHANGED = 10
ONE_BY_ONE = 300
TIMES = 3


def specs_repository(root: Path) -> SpecsRepo:
    repo = SpecsRepo.create(root)
    for number in range(COUNT):
        base = f"layer:s{number - 9:05}" if number % 10 == 9 else "bootstrap:debian-12"
        repo.write(
            f"image-specs/s{number:05}",
            f"#name=Image {number}\n#base={base}\n#osinfo=debian12\n#distro=debian\n"
            f"#arch=x86_64\n#version={number}\n# What it is for\n\n"
            "root-password password:123456\ninstall nfs-kernel-server,qemu-guest-agent\n"
            + (f"upload files/{number}:/etc/a\n" if number % 3 == 0 else "update\n")
            + f"write /etc/motd:number {number}\nrun-command systemctl enable nfs-server\n"
            "delete /tmp/x\nedit /etc/default/grub:s/^GRUB_TIMEOUT=.*/GRUB_TIMEOUT=0/\n",
        )
        if number % 3 == 0:
            repo.write(f"files/{number}", f"{number}\n" * 4000)
    repo.commit("Everything")
    return repo


def publish(tree: Tree, commit: str, folder: Path) -> None:
    """Every spec as one release; written straight, because fsyncs are not what is measured."""
    for name, spec in tree.specs.items():
        layer = spec.base.kind is BaseKind.LAYER
        below = disk_bytes(spec.base.name, f"b-{spec.base.name}") if layer else b""
        digest = f"sha256:{hashlib.sha256(below).hexdigest()}"
        made = manifest(
            name,
            f"b-{name}",
            fingerprint=tree.fingerprints[name],
            properties=spec.properties,
            base=BaseRecord(
                ref=str(spec.base), digest=digest, build=f"b-{spec.base.name}" if layer else ""
            ),
            commit=commit,
        )
        base = None
        if layer:
            base = BaseBinding(
                name=spec.base.name,
                arch=made.arch,
                build=made.base.build,
                revision=1,
                sha256=digest.removeprefix("sha256:"),
            )
        public = release(1, made, commit=commit, base=base, published=1)
        objects = {str(public.key): public.to_json()}
        for copy in (made.key.staging, copy_of(made)):
            objects |= {copy.folder + name: data for name, data in files_of(made).items()}
        for key, data in objects.items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    (folder / "state").mkdir()
    (folder / "state/published.json").write_bytes(PublishedCommit.to_json(commit))


def steps(root: Path, folder: Path) -> tuple[dict[str, tuple[float, float]], Plan]:
    """What each step of a plan takes, and the plan."""
    settings, figures, results = Settings(folder=root), {}, {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        def keep() -> None:
            results[name] = work()

        figures[name] = cpu(keep)
        return results[name]

    with Git(root) as git:
        tree = step("read and check the specs", lambda: read_tree(root, settings, git))
        state = step("read the repository", lambda: read(DirectoryStore(path=folder)))
        held = step("what it holds", lambda: holdings(state))
        paths = (*prefixes(settings.specs, tree.paths()), FILE)
        commits = suspects(tree, held, Ask())
        history = step(
            "ask git what changed",
            lambda: gather(git, commits=commits, published=held.commit, paths=paths),
        )
    made = step("decide", lambda: make(tree, held, history, Ask(), time.time()))
    step("write the document", lambda: to_json(made))
    return figures, made


def cpu(work: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds."""
    start, used = time.perf_counter(), _used()
    work()
    return _used() - used, time.perf_counter() - start


def _used() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def one_process_for_all(root: Path, old: str) -> None:
    listing = ["git", "-C", str(root), "diff", "--name-only", old, "HEAD"]
    subprocess.run(listing, check=True, capture_output=True)
    paths = [path for top in ("image-specs", "files") for path in (root / top).iterdir()]
    given = "\n".join(map(str, paths)).encode()
    hashing = ["git", "-C", str(root), "hash-object", "--stdin-paths"]
    subprocess.run(hashing, input=given, check=True, capture_output=True)


def one_process_a_file(root: Path) -> None:
    for number in range(ONE_BY_ONE):
        path = f"image-specs/s{number:05}"
        hashing = ["git", "-C", str(root), "hash-object", path]
        subprocess.run(hashing, check=True, capture_output=True)


def main() -> None:
    gc.set_threshold(100_000)  # as the command does
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        root, published = Path(folder) / "specs", Path(folder) / "repo"
        repo = specs_repository(root)
        old = repo.head
        with Git(root) as git:
            publish(read_tree(root, Settings(folder=root), git), old, published)
        read(DirectoryStore(path=published))
        for number in range(CHANGED):
            with (root / f"image-specs/s{number * 30 + 1:05}").open("a") as file:
                file.write("update\n")
            repo.write(f"files/{number * 30 + 600}", "other\n")
        repo.commit("Change some")
        measure(root, published, old)


def measure(root: Path, published: Path, old: str) -> None:
    command = [sys.executable, "-m", "lago_images", "ci", "plan", "--format", "json"]
    command += ["--directory", str(root), "--repository", str(published)]
    planning = least(lambda: cpu(lambda: subprocess.run(command, check=True, capture_output=True)))
    single = least(lambda: cpu(lambda: one_process_for_all(root, old)))
    used, wall = cpu(lambda: one_process_a_file(root))
    files = COUNT + len(range(0, COUNT, 3))
    rounds = [steps(root, published) for _ in range(TIMES)]
    print(f"{COUNT} specs, {files - COUNT} uploaded files: {summary(rounds[0][1])}")
    show("ci plan", planning)
    for name in rounds[0][0]:
        show(f"  {name}", min(figures[name] for figures, _ in rounds))
    show("git hash-object, one process", single)
    show("git hash-object, one a file", (used * files / ONE_BY_ONE, wall * files / ONE_BY_ONE))


def least(work: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    return min(work() for _ in range(TIMES))


def show(name: str, figures: tuple[float, float]) -> None:
    print(f"{name:30} {figures[0]:7.2f} s CPU  {figures[1]:7.2f} s wall", flush=True)


if __name__ == "__main__":
    main()
