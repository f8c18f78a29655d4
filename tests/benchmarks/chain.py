"""A chain of three images in one build, beside a build of each, one after the other.

    python -m tests.benchmarks chain [--rounds N]

``lago-debian-12``, ``lago-debian-12-iscsi`` on it, and a layer on that with one package more, by
``lago-images build`` into an empty directory: all at once, and by three calls with a spec more each
time. Boot tests are left out, and nothing is kept from before. Who is first alternates. It needs a
mirror.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.build import CHAIN, ROOT, Cost, measured

LAST = "lago-debian-12-iscsi-tree"
TEXT = """\
#name=One package more
#base=layer:lago-debian-12-iscsi
#osinfo=debian12
#distro=debian
#version=v1
#arch=x86_64
#expand=/dev/sda3
#root-partition=/dev/sda3
install tree
"""


def build(*calls: tuple[str, ...]) -> Cost:
    """Build by several calls of the program; before each, some specs are added."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "image-specs/files", folder / "image-specs/files")
        environ = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        argv = [sys.executable, "-m", "lago_images", "build"]

        def run() -> None:
            for names in calls:
                for spec in names:
                    (folder / "image-specs" / spec).write_text(text_of(spec))
                subprocess.run(argv, cwd=folder, env=environ, check=True, capture_output=True)

        return measured(run)


def text_of(spec: str) -> str:
    """A spec, without a boot test."""
    text = TEXT if spec == LAST else (ROOT / "image-specs" / spec).read_text()
    return "#boot-test=no: only the build is measured\n" + re.sub("(?m)^#boot-test=.*\n", "", text)


def main() -> None:
    """Print both and how much faster the chain is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    images = (*CHAIN, LAST)
    found: list[float] = []
    for number in range(parser.parse_args().rounds):
        works = {"at once": (images,), "one by one": tuple((name,) for name in images)}
        order = list(works) if number % 2 == 0 else list(works)[::-1]
        costs = {who: build(*works[who]) for who in order}
        for who, cost in costs.items():
            print(f"  {who:10} {cost}", flush=True)
        found.append(costs["one by one"].wall / costs["at once"].wall)
    spread = f" ({min(found):.2f} to {max(found):.2f})" if len(found) > 1 else ""
    print(f"the chain is {statistics.median(found):.2f} times as fast as its parts{spread}")


if __name__ == "__main__":
    main()
