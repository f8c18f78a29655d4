"""What the catalogue's first page costs who opens it: bytes, and Chromium's time.

    python -m tests.benchmarks.catalogue [--images 2000] [--revisions 5] [--rounds 5]

``opened`` is from the start of the navigation until the list is drawn and may be searched, over
loopback; ``thread`` the processor time of the page's main thread until then; ``search`` that of a
word of eight letters that is typed. Medians; other work on the machine counts in the first alone.
"""

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from lago_images.console import Console
from lago_images.repository.rendering.render import render
from lago_images.repository.rendering.site import Site
from lago_images.repository.serving.server import Server
from lago_images.storage.directory.store import DirectoryStore
from tests import npm
from tests.support.catalogue import large_state

_SCRIPT = Path(__file__).parents[1] / "browser/opening.mjs"
_SITE = Site(name="example-images", base_url="https://images.example.org/repo")


def looked_at(page: bytes, rounds: int) -> list[dict[str, Any]]:
    """Serve a page, and open it in Chromium."""
    with tempfile.TemporaryDirectory(prefix="catalogue-") as folder:
        (Path(folder) / "index.html").write_bytes(page)
        store = DirectoryStore(path=Path(folder))
        with Server(store, Console(quiet=True), bind="127.0.0.1", port=0) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            chromium = shutil.which("chromium") or "chromium"
            argv = ["node", str(_SCRIPT), str(npm.modules()), chromium]
            argv += [f"{server.url}/index.html", str(rounds)]
            done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
            server.shutdown()
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--revisions", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    page = render(large_state(options.images, options.revisions), _SITE, []).files["index.html"]
    packed = len(gzip.compress(page, 6))
    print(f"{len(page) / 1000:.0f} kB, gzipped {packed / 1000:.0f} kB")
    print(f"{'width':>6} {'opened':>10} {'thread':>10} {'search':>10}")
    seen = looked_at(page, options.rounds)
    for width in dict.fromkeys(each["width"] for each in seen):
        rows = [each for each in seen if each["width"] == width]
        medians = (statistics.median(row[key] for row in rows) for key in COLUMNS)
        print(f"{width:>6} " + " ".join(f"{each:>7.0f} ms" for each in medians), flush=True)


COLUMNS = ("opened", "opening", "search")

if __name__ == "__main__":
    main()
