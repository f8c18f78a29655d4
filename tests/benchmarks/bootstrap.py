"""A bootstrapped Debian 12 with nothing kept, with its packages kept, and with all of it kept.

    python -m tests.benchmarks.bootstrap [--rounds N]

From the mirrors that this machine's apt uses: what is kept is only used where they have the same.
Prints processor seconds, with all programs that were started, and seconds, of each round.
"""

import argparse
import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lago_images.building import caches
from lago_images.building.bases.bootstrap import build
from lago_images.building.caches import Kind
from lago_images.host.process import Runner
from tests.support.images import DEBIAN12, a_context, a_spec

FORGOTTEN = {
    "nothing kept": (Kind.TREES, Kind.PACKAGES),
    "packages kept": (Kind.TREES,),
    "all of it kept": (),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bootstrap-", dir="/var/tmp") as name:
        cache = Path(name) / "cache"
        for number in range(rounds):
            for what, forgotten in FORGOTTEN.items():
                caches.clear(cache, forgotten, time.time())
                processor, seconds = once(Path(name) / f"{number} {what}", cache)
                print(f"{what:16} {processor:6.1f} s CPU {seconds:6.1f} s", flush=True)


def once(folder: Path, cache: Path) -> tuple[float, float]:
    folder.mkdir()
    context = replace(a_context(folder), cache=cache)
    runner = Runner(environ={**os.environ, "TMPDIR": str(folder)})
    start_time, before = time.monotonic(), used()
    build.prepare(a_spec(DEBIAN12), "benchmark", folder, context, runner)
    return used() - before, time.monotonic() - start_time


def used() -> float:
    all_of_it = [
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return sum(each.ru_utime + each.ru_stime for each in all_of_it)


if __name__ == "__main__":
    main()
