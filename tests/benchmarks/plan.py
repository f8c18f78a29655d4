"""Planning 10,000 specs, beside the digests alone as a shell script in CI takes them.

The specs have 15 lines; every third uploads a file of its own, every tenth is a layer. Ten specs
and ten uploaded files changed since everything was published. The rival asks ``git diff
--name-only`` and hashes each spec and input with ``git hash-object``: one process a file (measured
on some, told for all), or one process for all, the best it can be. It parses nothing, checks
nothing, knows no layers and gives no reasons.

Seconds are CPU seconds of a process and its children. Cold: a process of its own, from start to
end. Warm: the same work again in one process.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lago_images.planning.document import to_json
from lago_images.planning.facts import Ask, Built, Current, Holdings, Published
from lago_images.planning.git import Git
from lago_images.planning.history import gather
from lago_images.planning.model import Action, Tree
from lago_images.planning.plan import make, suspects
from lago_images.planning.tree import prefixes, read_tree
from lago_images.settings import FILE, Settings
from tests.support.specs import SpecsRepo

COUNT = 10_000
CHANGED = 10
ONE_BY_ONE = 300


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


def everything_published(tree: Tree, commit: str) -> dict[str, object]:
    return {"commit": commit, "fingerprints": dict(tree.fingerprints)}


def holdings(tree: Tree, known: dict) -> Holdings:
    images = {}
    for name, fingerprint in known["fingerprints"].items():
        base = f"build:{tree.specs[name].base.name}"
        built = Built(
            build=name, fingerprint=fingerprint, commit=known["commit"], created=0, base=base
        )
        current = Current(
            revision=1, fingerprint=fingerprint, commit=known["commit"], build=name, built=built
        )
        images[name, "x86_64"] = Published(current=current, newest=1)
    return Holdings(images=images, commit=known["commit"])


def plan(root: Path, known: dict) -> tuple[int, str]:
    """How many images are built, and the plan as a document."""
    settings = Settings(folder=root)
    with Git(root) as git:
        tree = read_tree(root, settings, git)
        held = holdings(tree, known)
        history = gather(
            git,
            commits=suspects(tree, held, Ask()),
            published=held.commit,
            paths=(*prefixes(settings.specs, tree.inputs.values()), FILE),
        )
    made = make(tree, held, history, Ask(), time.time())
    return sum(image.action is Action.BUILD for image in made.images), to_json(made)


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
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "specs"
        repo = specs_repository(root)
        old = repo.head
        with Git(root) as git:
            known = everything_published(read_tree(root, Settings(folder=root), git), old)
        for number in range(CHANGED):
            with (root / f"image-specs/s{number * 30 + 1:05}").open("a") as file:
                file.write("update\n")
            repo.write(f"files/{number * 30 + 600}", "other\n")
        repo.commit("Change some")
        saved = Path(folder) / "known.json"
        saved.write_text(json.dumps(known))
        measure(root, saved, known)


def measure(root: Path, saved: Path, known: dict) -> None:
    again = [sys.executable, "-m", "tests.benchmarks.plan", str(root), str(saved)]
    figures = {
        "plan, cold": cpu(lambda: subprocess.run(again, check=True, stdout=subprocess.DEVNULL)),
        "plan, warm": cpu(lambda: plan(root, known)),
        "git hash-object, one process": cpu(lambda: one_process_for_all(root, known["commit"])),
    }
    used, wall = cpu(lambda: one_process_a_file(root))
    files = COUNT + len(range(0, COUNT, 3))
    share = files / ONE_BY_ONE
    figures["git hash-object, one a file"] = used * share, wall * share
    built, _ = plan(root, known)
    print(f"{COUNT} specs, {files - COUNT} uploaded files, {built} images to build")
    cold = figures["plan, cold"][0]
    for name, (used, wall) in figures.items():
        print(f"{name:30} {used:7.2f} s CPU  {wall:7.2f} s wall  plan/this {cold / used:6.2f}")


if __name__ == "__main__":
    if sys.argv[2:]:
        print(plan(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))[1])
    else:
        main()
