"""What a refresh costs: requests and seconds at 100, 1,000 and 10,000 releases.

    python -m tests.benchmarks.refresh [--store directory|ceph20] [--sizes 100,1000,10000]
        [--rivals-to N]

Cold: nothing cached, nothing rendered. Warm: nothing new. New: one release more. Rivals in the
same run: a renderer that reads every release and manifest each time, one after the other; and
one that scans as the older tool (and createrepo) does, every disk's hash and metadata too. Above
``--rivals-to`` releases the rivals are left out, because they take minutes.
"""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lago_images.console import Console
from lago_images.repository.records import layout
from lago_images.repository.records.layout import headers
from lago_images.settings import Settings
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.open import open_store
from tests.servers import run
from tests.support.builders import copy_of, files_of, manifest, publisher, release

REVISIONS = 50
WRITERS = 16


@dataclass
class Counted:
    """A directory store whose calls are counted, as a bucket counts its requests."""

    inner: DirectoryStore
    requests: Counter[str] = field(default_factory=Counter)

    @property
    def bucket(self) -> "Counted":
        return self

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)
        if not callable(call):
            return call

        def counted(*args: Any, **more: Any) -> Any:
            self.requests[name] += 1
            return call(*args, **more)

        return counted


@contextmanager
def directory() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="refresh-") as folder:
        yield Counted(DirectoryStore(path=Path(folder)))


@contextmanager
def ceph20() -> Iterator[Any]:
    with run.running_ceph20() as server:
        url = f"s3://{server.new_bucket()}/repo"
        environ = {**os.environ, **server.environ}
        yield open_store(url, settings=Settings(), environ=environ, console=Console(quiet=True))


def objects(number: int) -> Iterator[tuple[str, bytes]]:
    """One released build's objects; image and revision follow from the number."""
    name, revision = f"image-{number // REVISIONS}", number % REVISIONS + 1
    made = manifest(name, f"b{revision}")
    folder = copy_of(made).folder
    yield from ((folder + file, data) for file, data in files_of(made).items())
    public = release(revision, made, published=1_700_000_000 + number)
    yield str(public.key), public.to_json()


def fill(store: Any, numbers: range) -> None:
    def write(number: int) -> None:
        for key, data in objects(number):
            if isinstance(store, Counted):
                # Not through the store: its fsyncs are not what is measured here.
                path = store.inner.path / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            else:
                store.put(key, data, expected=None, headers=headers(key))

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, numbers))


def ours(store: Any) -> None:
    publisher(store).refresh()


def read_all(store: Any) -> None:
    """The naive renderer."""
    for stat in store.list("releases/"):
        public = json.loads(store.get(stat.key).data)
        folder = f"images/{public['name']}/{public['arch']}/{public['image']['folder']}/"
        json.loads(store.get(folder + "manifest.json").data)


def scan(store: Any) -> None:
    """The older tool's way: look at every file of every image."""
    for stat in store.list("images/"):
        if stat.key.endswith(".xz"):
            store.head(stat.key)
        else:
            store.get(stat.key)


def measure(store: Any, work: Callable[[Any], None]) -> tuple[int, float]:
    store.bucket.requests.clear()
    begun = time.perf_counter()
    work(store)
    return sum(store.bucket.requests.values()), time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=["directory", "ceph20"], default="directory")
    parser.add_argument("--sizes", default="100,1000,10000")
    parser.add_argument("--rivals-to", type=int, default=10_000)
    options = parser.parse_args()
    filled = 0
    print(f"{options.store}: requests and seconds of one refresh")
    print(f"{'releases':>8}  " + "".join(f"{what:>18}" for what in COLUMNS))
    with {"directory": directory, "ceph20": ceph20}[options.store]() as store:
        for size in map(int, options.sizes.split(",")):
            fill(store, range(filled, size))
            filled = size + 1
            ours(store)
            store.delete(["state/cache.json", "state/pages.json", *layout.RENDERED])
            store.delete([stat.key for each in layout.PAGE_FOLDERS for stat in store.list(each)])
            row = [measure(store, ours), measure(store, ours)]
            fill(store, range(size, size + 1))
            rivals = (read_all, scan) if size <= options.rivals_to else ()
            row += [measure(store, work) for work in (ours, *rivals)]
            shown = "".join(f"{requests:>9} {seconds:>6.2f} s" for requests, seconds in row)
            if not rivals:
                shown += "   rivals left out"
            print(f"{size:>8}  {shown}", flush=True)


COLUMNS = ("cold", "warm", "new", "read all", "scan")

if __name__ == "__main__":
    main()
