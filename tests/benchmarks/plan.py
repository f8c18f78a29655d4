"""Planning 10,000 specs, beside the digests alone as a shell script in CI takes them.

The specs have 15 lines; every third uploads a file of its own, every tenth is a layer. All are
published in a repository in a directory, with 5 files each, and what was staged is there, too,
unless ``--collected`` says that ``repo gc`` took it. A plan with nothing to do is compared with
``git status``, in pairs. Then ten specs and ten uploaded files change. The rival asks ``git diff
--name-only`` and hashes each spec and input with ``git hash-object``: one process a file (measured
on some, told for all), or one process for all, the best it can be. It parses nothing, checks
nothing, knows no layers and no repository, and gives no reasons.

Seconds are CPU seconds of a process and its children, the least of three. ``ci plan`` is the
command itself, a process of its own from start to end, whose modules are compiled before; its steps
are measured in one process.
"""

import argparse
import gc
import hashlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
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
from lago_images.repository.records.state import PublishedCommit, outlined
from lago_images.settings import FILE, Settings
from lago_images.specs.model import BaseKind
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import copy_of, disk_bytes, files_of, manifest, release
from tests.support.specs import SpecsRepo

CHANGED = 10
ONE_BY_ONE = 300
TIMES = 3


def specs_repository(root: Path, count: int) -> SpecsRepo:
    repo = SpecsRepo.create(root)
    for number in range(count):
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


def publish(tree: Tree, commit: str, folder: Path, *, collected: bool) -> None:
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
        for copy in (copy_of(made),) if collected else (made.key.staging, copy_of(made)):
            objects |= {copy.folder + name: data for name, data in files_of(made).items()}
        for key, data in objects.items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    (folder / "state").mkdir(parents=True)
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
        state = step("read the repository", lambda: outlined(DirectoryStore(path=folder)))
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--collected", action="store_true", help="nothing staged is left")
    asked = parser.parse_args()
    gc.set_threshold(100_000)  # as the command does
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        root, published = Path(folder) / "specs", Path(folder) / "repo"
        repo = specs_repository(root, asked.count)
        old = repo.head
        with Git(root) as git:
            tree = read_tree(root, Settings(folder=root), git)
        publish(tree, old, published, collected=asked.collected)
        command = [sys.executable, "-m", "lago_images", "ci", "plan", "--format", "json"]
        command += ["--directory", str(root), "--repository", str(published)]
        environ = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": f"{folder}/bytecode",
        }
        nothing_to_do(command, environ, root)
        for number in range(CHANGED):
            with (root / f"image-specs/s{number * 30 + 1:05}").open("a") as file:
                file.write("update\n")
            repo.write(f"files/{number * 30 + 600}", "other\n")
        repo.commit("Change some")
        measure(command, environ, (root, published), old)


def nothing_to_do(command: Sequence[str], environ: Mapping[str, str], root: Path) -> None:
    """A plan that keeps all images, beside ``git status`` of the same work tree."""
    status = ["git", "-C", str(root), "status"]
    for argv in (command, status):
        run(argv, environ)  # reads all once: caches and compiled modules are there then
    pairs = [(run(command, environ), run(status, environ)) for _ in range(TIMES)]
    ratios = sorted(plan[0] / rival[0] for plan, rival in pairs)
    show("ci plan, nothing to do", min(plan for plan, _ in pairs))
    show("git status", min(rival for _, rival in pairs))
    print(f"ratio {statistics.median(ratios):.0f} ({ratios[0]:.0f} to {ratios[-1]:.0f})")


def run(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[float, float]:
    return cpu(lambda: subprocess.run(argv, env=environ, check=True, capture_output=True))


def measure(
    command: Sequence[str], environ: Mapping[str, str], folders: tuple[Path, Path], old: str
) -> None:
    root = folders[0]
    planning = least(lambda: run(command, environ))
    single = least(lambda: cpu(lambda: one_process_for_all(root, old)))
    used, wall = cpu(lambda: one_process_a_file(root))
    rounds = [steps(*folders) for _ in range(TIMES)]
    made = rounds[0][1]
    uploaded = len(range(0, len(made.images), 3))
    files = len(made.images) + uploaded
    print(f"{len(made.images)} specs, {uploaded} uploaded files: {summary(made)}")
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
