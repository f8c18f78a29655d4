"""At every request of a publication in turn, it dies or the request is broken.

After each, the repository is the old or the new one, whole for its real clients; and the next
plain run converges without hand-work.

What a death leaves is what the bucket holds between two requests: that is kept while one
publication goes on, request by request, and the next run is tried on each of these states; every so
often a publication is killed.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from lago_images.console import Console
from lago_images.host.retry import RetryPolicy
from lago_images.jobs import plan as plan_job
from lago_images.jobs import publish as publish_job
from lago_images.jobs.workspace import Workspace
from lago_images.planning.git import Git
from lago_images.planning.history import Ask
from lago_images.repository.records import layout
from lago_images.repository.records.layout import outdated_key
from lago_images.repository.records.state import read
from lago_images.repository.rendering.render import render
from lago_images.repository.rendering.site import site_of
from lago_images.settings import load
from lago_images.storage.s3.store import S3Store
from tests.functional.publication import scene as scenes
from tests.functional.publication.calls import Caller
from tests.functional.publication.judges import judge, judge_signed
from tests.functional.publication.scene import NEW, OLD, Scene, old_or_new
from tests.servers.model import Server
from tests.servers.proxy import Fault, FaultProxy, Request, passing
from tests.support.files import Files, serving
from tests.support.repository import fill
from tests.support.specs import SpecsRepo
from tests.tools import need

need("virt-builder", "virt-index-validate")

WORKERS = 2
# Of so many points, one is a kill, too.
KILLED = 9
BASE_URL = "http://images.test"
QUICK = RetryPolicy(delay=0.01, longest=0.05)
# Of each, the first meets a request, the others its repetitions.
FAULTS = {
    "reset": [Fault(reset=True)],
    "answer dropped after it was applied": [Fault(drop=True)],
    "500, 503, 429, then delayed": [
        Fault(answer=500),
        Fault(answer=503),
        Fault(answer=429),
        Fault(delay=0.05),
    ],
}


@dataclass
class Worker:
    """A place in a bucket, the way to it that can be broken, and who calls the command line."""

    server: Server
    proxy: FaultProxy
    store: S3Store
    call: Caller
    scene: Scene
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        return self._environ(self.proxy.endpoint)

    def _environ(self, endpoint: str) -> dict[str, str]:
        return {
            **self.server.through(endpoint).environ,
            "LAGO_IMAGES_REPOSITORY": self.store.url,
            "LAGO_IMAGES_BASE_URL": BASE_URL,
            **self.scene.environ,
        }

    def start(self, plan: Callable[[Request], Fault | None]) -> None:
        """The scene again, and a plan for the requests from now on, which count from 1."""
        self.scene.restore(self.store)
        self.proxy.requests.clear()
        self.proxy.plan = plan

    def kill(self) -> None:
        if self.call.pid:
            os.kill(self.call.pid, signal.SIGKILL)

    def judge(self) -> None:
        judge(self.scene, old_or_new(self.store), (OLD, NEW), self.folder)
        if self.scene.key is not None:
            signed = self.store.get(layout.SIGNED_INDEX).data
            judge_signed(self.scene, signed, (OLD, NEW), self.folder)

    def converges(self) -> None:
        self.proxy.plan = passing
        scenes.converged(self.store, self.scene, self.call, self.environ)


@contextmanager
def worker(number: int, server: Server, scene: Scene, folder: Path) -> Iterator[Worker]:
    bucket = server.new_bucket()
    store = S3Store.open(bucket, "some/prefix", environ=server.environ, retry=QUICK)
    call = Caller(repo=scene.repo, log=folder / f"log-{number}")
    with FaultProxy(server.endpoint) as proxy:
        yield Worker(server=server, proxy=proxy, store=store, call=call, scene=scene, folder=folder)


def publish(at: Worker) -> int:
    return at.call.call("ci", "publish", environ=at.environ)


def once(number: int, fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda request: fault if request.number == number else None


class Broken:
    """Breaks the request of that number, and then its repetitions."""

    def __init__(self, number: int, faults: list[Fault]) -> None:
        self.number, self.left = number, list(faults)
        self.chosen: tuple[str, str] | None = None

    def __call__(self, request: Request) -> Fault | None:
        if request.number == self.number:
            self.chosen = (request.method, request.target)
        if self.left and self.chosen == (request.method, request.target):
            return self.left.pop(0)
        return None


def undisturbed(at: Worker, run: Callable[[Worker], object] = publish) -> list[Request]:
    """The requests of a publication, once what is known of the store is known."""
    for _ in range(2):
        at.start(passing)
        run(at)
    scenes.published(at.store, at.scene)
    return list(at.proxy.requests)


@dataclass
class States:
    """What a bucket holds before and after each request that changes it: objects by key.

    It is a plan of a proxy, which lets one request go at a time.
    """

    store: S3Store
    found: list[Mapping[str, bytes]] = field(default_factory=list)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def __call__(self, request: Request) -> Fault:
        return Fault(before=self._begin, after=partial(self._end, request))

    def keep(self) -> None:
        objects = {stat.key: self._read(stat.key, stat.etag) for stat in self.store.list()}
        if objects not in self.found:
            self.found.append(objects)

    def _begin(self) -> None:
        assert self._turn.acquire(timeout=300)

    def _end(self, request: Request) -> None:
        if request.writes:
            self.keep()
        self._turn.release()

    def _read(self, key: str, etag: str) -> bytes:
        if (key, etag) not in self._known:
            self._known[key, etag] = self.store.get(key).data
        return self._known[key, etag]


def states(at: Worker) -> list[Mapping[str, bytes]]:
    """What a publication may leave that dies before or after any of its requests."""
    kept = States(store=at.store)
    at.start(kept)
    kept.keep()
    assert publish(at) == 0, at.call.output()
    scenes.published(at.store, at.scene)
    return kept.found


def killed(at: Worker, number: int, *, applied: bool) -> None:
    """Kill at a request, before it is sent or when it was applied; then judge."""
    fault = Fault(after=at.kill, drop=True) if applied else Fault(before=at.kill, reset=True)
    at.start(once(number, fault))
    code = publish(at)
    assert code == -signal.SIGKILL, (number, code, at.call.output())
    at.judge()
    at.converges()


@pytest.mark.parametrize("name", ["published", "published_signed"])
def test_a_publication_killed_at_any_request_converges_on_the_next_run(
    name: str, ceph20: Server, tmp_path: Path, record_property, request: pytest.FixtureRequest
) -> None:
    published: Scene = request.getfixturevalue(name)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(worker(n, ceph20, published, tmp_path)) for n in range(WORKERS)
        ]
        requests, *_ = [undisturbed(at) for at in workers]
        left = states(workers[0])
        points = [(one.number, True) for one in requests if one.writes]
        # Signing changes what is written, and no more.
        points += [(one.number, False) for one in requests if one.writes or not published.key]

        def some(first: int) -> None:
            at = workers[first]
            for objects in left[first::WORKERS]:
                at.proxy.plan = passing
                scenes.hold(at.store, objects)
                at.judge()
                at.converges()
            for number, applied in points[::KILLED][first::WORKERS]:
                killed(at, number, applied=applied)

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(some, range(WORKERS)))
    writes = sum(one.writes for one in requests)
    # Before the first of them, and after each.
    assert len(left) == writes + 1
    assert len(published.judged) >= 2
    what = (
        f"{name}: died at {len(points)} points of {len(requests)} requests, {writes} of which "
        f"write, in {len(left)} states: 0 failures"
    )
    tell(record_property, what)


def workspace(repo: SpecsRepo, store: S3Store, folder: Path) -> Workspace:
    return Workspace(
        root=repo.root,
        settings=load(repo.root, {"LAGO_IMAGES_BASE_URL": BASE_URL}),
        console=Console(quiet=True),
        environ=dict(os.environ),
        store=store,
        git=Git.find(repo.root),
        cache=folder,
        logs=folder,
        clock=lambda: 1_800_000_000.0,
    )


def in_process(at: Worker) -> Callable[[Worker], publish_job.PublicationOutcome]:
    """A publication without a process of its own, for what it must survive."""
    store = S3Store.open(
        at.store.bucket.name,
        "some/prefix",
        environ=at.server.through(at.proxy.endpoint).environ,
        retry=QUICK,
    )
    work = workspace(at.scene.repo, store, at.folder)
    at.start(passing)
    made = plan_job.plan(work, Ask())

    def run(_worker: Worker) -> publish_job.PublicationOutcome:
        # What the store wants is asked anew, as by a new process.
        store.writer.dialect = None
        return publish_job.publish(work, made, [])

    return run


@pytest.mark.parametrize("name", FAULTS)
def test_a_publication_converges_whichever_request_fails(
    published: Scene, ceph20: Server, tmp_path: Path, name: str, record_property
) -> None:
    with worker(0, ceph20, published, tmp_path) as at:
        run = in_process(at)
        requests = undisturbed(at, run)
        for number in range(1, len(requests) + 1):
            at.start(Broken(number, FAULTS[name]))
            done = run(at)
            assert cast("Broken", at.proxy.plan).left == []
            assert done.ok, (name, number)
            assert {image: one.release.revision for image, one in done.outcomes.items()} == {
                "one": 2,
                "three": 1,
            }
            scenes.published(at.store, published)
        assert run(at).written == ()
    tell(record_property, f"{name}: at each of {len(requests)} requests: 0 failures")


def test_a_build_killed_while_uploading_or_publishing_converges_on_the_next_run(
    published: Scene, ceph20: Server, tmp_path: Path, record_property
) -> None:
    with worker(0, ceph20, published, tmp_path) as at:

        def rebuild(_worker: Worker) -> int:
            return at.call.call("ci", "rebuild", "one", environ=at.environ)

        at.start(passing)
        assert rebuild(at) == 0, at.call.output()
        at.start(passing)
        assert rebuild(at) == 0, at.call.output()
        requests = list(at.proxy.requests)
        uploads = [r.number for r in requests if r.writes and "/builds/" in r.target]
        assert uploads
        for number in uploads:
            for fault in (Fault(before=at.kill, reset=True), Fault(after=at.kill, drop=True)):
                at.start(once(number, fault))
                assert rebuild(at) == -signal.SIGKILL, at.call.output()
                judge(published, old_or_new(at.store), (OLD, NEW), tmp_path)
                at.proxy.plan = passing
                assert rebuild(at) == 0, at.call.output()
                in_index, in_metadata, _ = scenes.offered(at.store)
                assert in_index == in_metadata
                assert in_index["one"] == 2
    tell(record_property, f"killed at {2 * len(uploads)} points of an upload: 0 failures")


def test_what_is_outdated_is_recorded_once_wherever_a_publication_dies(
    ceph20: Server, tmp_path: Path, record_property
) -> None:
    repo = SpecsRepo.create(tmp_path / "specs")
    with serving() as source, FaultProxy(ceph20.endpoint) as proxy:
        repo.write("lago-images.toml", f'[[template-sources]]\nurl = "{source.url}/index"\n')
        repo.spec("base", "libguestfs:tiny")
        repo.commit("Add an image")
        bucket = ceph20.new_bucket()
        store, watched = (
            S3Store.open(bucket, "some/prefix", environ=server.environ, retry=QUICK)
            for server in (ceph20, ceph20.through(proxy.endpoint))
        )
        work = workspace(repo, watched, tmp_path)
        put_template(source, 1)
        fill(store, plan_job.plan(work, Ask()), created=1_800_000_000, digests={"base": FIRST})
        made = plan_job.plan(work, Ask())
        publish_job.publish(work, made, [])
        put_template(source, 2)
        kept = States(store=store)
        kept.keep()
        proxy.plan = kept
        publish_job.publish(work, made, [], outdated=True)
        proxy.plan = passing
        for objects in kept.found:
            scenes.hold(store, objects)
            # The next run of anybody renders what was recorded; one that asks, too, records it.
            for outdated in (False, True):
                publish_job.publish(work, made, [], outdated=outdated)
                rendered_as_recorded(work)
            records = [stat.key for stat in store.list(layout.RELEASES) if outdated_key(stat.key)]
            assert records == ["releases/base/x86_64/outdated/1.1.json"]
            assert b"its base is revision 2 of tiny" in store.get(LATEST).data
    # The record, what is rendered of it, and what is kept of the pages.
    assert len(kept.found) >= len({*records, LATEST, *CHANGED}) + 1
    tell(record_property, f"what is outdated: died in {len(kept.found)} states: 0 failures")


LATEST = "latest/base.x86_64.json"
CHANGED = ("catalogue/base.html", layout.IMAGES_JSON, layout.SUMS, layout.CATALOGUE)
FIRST = f"sha512:{'1' * 128}"


def put_template(source: Files, revision: int) -> None:
    entry = f"[tiny]\narch=x86_64\nfile=tiny.xz\nsize=1\nrevision={revision}\n"
    source.content["/index"] = f"{entry}checksum[sha512]={str(revision) * 128}\n".encode()


def rendered_as_recorded(work: Workspace) -> None:
    made = render(read(work.store), site_of(work.settings, work.store.url))
    pages = {key: page.render() for key, page in made.pages.items()}
    for key, data in {**made.files, **pages}.items():
        assert work.store.get(key).data == data, key


def tell(record_property: Callable[[str, object], None], text: str) -> None:
    """Into the report of the tests and on the terminal."""
    record_property("points", text)
    print(f"\n{text}")
