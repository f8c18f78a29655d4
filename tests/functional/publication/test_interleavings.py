"""A seed chooses whose request goes next, among all who may be at work on a repository at once.

Two publishers of two commits, two that record what is outdated, an attacker with the builder's key,
``repo gc``, a withdrawal, a rollback, and a reader that holds yesterday's index; one of them may
die on the way.
``LAGO_IMAGES_TEST_ROUNDS=10000`` runs as many schedules, and ``LAGO_IMAGES_TEST_SEED=7`` the one of
that seed alone.
"""

import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from lago_images.console import Console
from lago_images.errors import ConflictError, Error, NotFoundError, StorageError, TamperedError
from lago_images.host.retry import RetryPolicy
from lago_images.jobs.publish import PublicationOutcome, publish
from lago_images.jobs.workspace import Workspace
from lago_images.planning.model import Action, Tree
from lago_images.repository.publishing import collect, pages, publisher, withdrawals
from lago_images.repository.publishing.outdated import record
from lago_images.repository.publishing.releasing import Verdict
from lago_images.repository.publishing.retention import DAY, Retention
from lago_images.repository.records import layout, reading
from lago_images.repository.records.changes import PackageChanges, Upstream, VersionChange
from lago_images.repository.records.release import Released
from lago_images.repository.records.state import digest, read
from lago_images.repository.rendering import index, lago, sums
from lago_images.repository.rendering.documents import Images
from lago_images.repository.rendering.render import render
from lago_images.settings import Settings
from lago_images.storage.base import Stat
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.s3 import store as s3
from lago_images.storage.s3.store import S3Store
from tests.support import builders
from tests.support.builders import (
    PROPERTIES,
    SITE,
    copy_of,
    manifest,
    publish_by_hand,
    put,
    put_build,
)
from tests.support.ci import plan, planned
from tests.support.turnstile import GatedStore, KilledError, OneByOne, Turnstile, gate_requests

ROUNDS = {"directory": 200, "ceph20": 5}
# Schedules in which a planted fault must show.
_ENOUGH = 100
ARCH = "x86_64"
LINE = ["c0", "c1", "c2"]
# Revisions 1 to 4 of "one", the first of which was retired long ago; and "two".
OLD = [manifest("one", f"b{n}", fingerprint=f"sha256:b{n}") for n in (1, 2, 3, 4)]
OTHER = manifest("two", "b1", fingerprint="sha256:t1")
# What two commits make of them, staged and waiting to be published.
NEW = {
    "c1": (
        manifest("one", "b5", fingerprint="sha256:b5", commit="c1"),
        manifest("two", "b5", fingerprint="sha256:t5", commit="c1"),
    ),
    "c2": (
        manifest("one", "b6", fingerprint="sha256:b6", commit="c2"),
        manifest("two", "b6", fingerprint="sha256:t6", commit="c2"),
    ),
}
STAGED = [made for builds in NEW.values() for made in builds]
# By the sha256 of a disk: only these were ever judged.
JUDGED = {made.disk.sha256: made for made in (*OLD, OTHER, *STAGED)}
EVIL = b"evil"
MORTAL = ("c1", "c2", "gc", "yank", "rollback", "asks")
# What is found outside, as versions of a package: one after the other, and nothing.
FOUND = ("", "2", "3")
OPERATOR = Released(commit="c0", actor="op@host")


@dataclass
class Seen:
    """What was written under ``releases/``, and what a reader found wrong."""

    writes: dict[str, list[bytes]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class View:
    """An actor's store: its writes of releases are noted, and what lay there before looks old."""

    def __init__(self, store: Any, old: frozenset[str], seen: Seen) -> None:
        self._store, self._old, self._seen = store, old, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, prefix: str = "", **more: Any) -> Iterator[Stat]:
        for stat in self._store.list(prefix, **more):
            is_old = stat.key in self._old
            yield replace(stat, modified=stat.modified - 30 * DAY) if is_old else stat

    def put(self, key: str, data: bytes, **more: Any) -> str:
        etag = self._store.put(key, data, **more)
        if key.startswith(layout.RELEASES):
            self._seen.writes.setdefault(key, []).append(data)
        return etag


def fill(store: Any) -> None:
    """The repository before: four revisions and what was staged, rendered."""
    publish_by_hand(store, *OLD)
    publish_by_hand(store, OTHER)
    put(store, copy_of(OLD[0]).retirement, b"{}")
    builders.publisher(store).refresh()


def publishes(store: Any, commit: str) -> PublicationOutcome:
    """The job that publishes a commit, with a plan that was made before anybody began."""
    builds = NEW[commit]
    images = [
        planned(
            made.name,
            action=Action.PROMOTE,
            base="bootstrap:bookworm",
            fingerprint=made.fingerprint,
            promote=made.build_id,
            promote_sha256=digest(made),
            revision=4 if made.name == "one" else 1,
        )
        for made in builds
    ]
    tree = Tree(
        specs={m.name: replace(builders.spec(m.name), properties=PROPERTIES) for m in builds},
        fingerprints={made.name: made.fingerprint for made in builds},
        inputs={},
    )
    git: Any = SimpleNamespace(
        is_ancestor=lambda one, other: LINE.index(one) <= LINE.index(other),
        head=lambda: commit,
        remote=lambda: None,
        tips=lambda _ref: [LINE[-1]],
        url=lambda: "https://git.example.org/specs",
        prefix="",
    )
    work = Workspace(
        root=Path(),
        settings=Settings(name=SITE.name, base_url=SITE.base_url),
        console=Console(quiet=True),
        environ={},
        store=store,
        git=git,
        cache=Path(),
        logs=Path(),
        clock=time.time,
    )
    return publish(work, plan(*images, head=commit), [], tree=tree)


def attacks(store: Any, chance: random.Random) -> None:
    """Write below ``builds/`` alone, as the builder's policy has it."""
    for _ in range(12):
        made = chance.choice(STAGED)
        staging = made.key.staging
        evil = chance.choice((bytes(made.disk.compressed_size), EVIL * 9))
        forged = replace(made, tools={"evil": "1"}, commit="evil")
        key, data = chance.choice(
            (
                (staging.disk, evil),
                # What was judged, again: between two looks of a publisher all seems well.
                (staging.disk, builders.disk_bytes(made.name, made.build_id)),
                (staging.hash, EVIL),
                (staging.metadata, b'{"root-password": "evil"}'),
                (staging.manifest, EVIL),
                (staging.manifest, forged.to_json()),
                (staging.manifest, made.to_json()),
                (f"builds/{made.name}/{ARCH}/evil/manifest.json", EVIL),
                (f"builds/{made.name}/{ARCH}/evil/evil.qcow2.xz", EVIL),
            )
        )
        try:
            builders.overwrite(store, key, data)
        except (NotFoundError, ConflictError):
            put_if_missing(store, key, data)


def put_if_missing(store: Any, key: str, data: bytes) -> None:
    try:
        put(store, key, data)
    except ConflictError:
        return


def collects(store: Any) -> object:
    retention = Retention(revisions=2, days=1, grace_days=7)
    return collect.sweep(builders.publisher(store, now=time.time), retention)


def yanks(store: Any) -> object:
    opened = builders.publisher(store, now=time.time)
    return withdrawals.yank(opened, "one", reason="broken", released=OPERATOR)


def rolls_back(store: Any) -> object:
    opened = builders.publisher(store, now=time.time)
    return withdrawals.rollback(opened, "one", released=OPERATOR)


def asks(store: Any, chance: random.Random) -> None:
    """Record what is found outside, which changes from one time to the next, and render."""
    for _ in range(2):
        opened = builders.publisher(store, now=time.time)
        state, new = read(store), chance.choice(FOUND)
        upgraded = (VersionChange(name="openssl", old="1", new=new),) if new else ()
        found = Upstream(packages=PackageChanges(added=(), removed=(), upgraded=upgraded))
        if release := state.current("one", ARCH):
            record(store, state, release, found, time.time())
        opened.refresh()


def reads(store: Any, files: Mapping[str, bytes], seen: Seen) -> None:
    """Download what yesterday's files name, then what today's do."""
    seen.wrong += named_wrongly(store, files)
    seen.wrong += named_wrongly(store, rendered(store))


def rendered(store: Any) -> dict[str, bytes]:
    names = (layout.INDEX, layout.METADATA, layout.SUMS, layout.IMAGES_JSON)
    return {name: store.get(name).data for name in names}


def named_wrongly(store: Any, files: Mapping[str, bytes]) -> Iterator[str]:
    """Say what the files name that is missing, or is not what they and the judge say it is."""
    entries, wrong = index.parse(files[layout.INDEX])
    versions, more = lago.parse(files[layout.METADATA])
    yield from (str(one) for one in (*wrong, *more))
    named = {(entry.file, "sha512", entry.checksum) for entry in entries}
    named |= {(f"{one.handle}.xz", "sha256", one.sha256) for one in versions}
    listed = sums.parse(files[layout.SUMS], "sums")
    # A document may be newer than the list for a moment, as ``index.asc`` may be than ``index``.
    named |= {(key, "sha256", digest) for key, digest in listed if key.startswith(layout.IMAGES)}
    pages_ = {key for key, _ in listed if not key.startswith(layout.IMAGES)}
    for image in msgspec.json.decode(files[layout.IMAGES_JSON], type=Images).images:
        pages_ |= {layout.page(image.name), layout.image_feed(image.name)}
        disks = (revision.disk for revision in image.revisions)
        named |= {
            (disk.url.removeprefix(f"{SITE.base_url}/"), "sha256", disk.sha256) for disk in disks
        }
    for key in pages_ - {stat.key for stat in store.list()}:
        yield f"{key} is named and missing"
    for key, kind, expected in sorted(named):
        try:
            data = b"".join(store.read(key))
        except NotFoundError:
            yield f"{key} is named and missing"
            continue
        if hashlib.new(kind, data).hexdigest() != expected:
            yield f"{key} is not what is named"
        if hashlib.sha256(data).hexdigest() not in JUDGED:
            yield f"{key} was never judged"


Actors = dict[str, Callable[[], Any]]


@dataclass
class Run:
    """What one schedule led to."""

    store: Any
    seen: Seen
    ended: dict[str, Any]
    order: list[str]


def run(seed: int, base: Any, open_store: Callable[[Turnstile, str], Any]) -> Run:
    """Let the actors do their work in the order of a seed, on a repository that was filled."""
    seen, chance = Seen(), random.Random(seed)
    dying = chance.choice(MORTAL) if chance.random() < 0.3 else ""
    turns = Turnstile(seed, {dying: chance.randrange(60)})
    old = frozenset(stat.key for stat in base.list())
    for made in STAGED:
        put_build(base, made)
    yesterday = rendered(base)

    def view(actor: str) -> Any:
        return View(open_store(turns, actor), old, seen)

    names = ("c1", "c2", "attacker", "gc", "yank", "rollback", "read", "asks", "asks too")
    views = {name: view(name) for name in names}
    actors: Actors = {
        "c1": lambda: publishes(views["c1"], "c1"),
        "c2": lambda: publishes(views["c2"], "c2"),
        "attacker": lambda: attacks(views["attacker"], chance),
        "gc": lambda: collects(views["gc"]),
        "yank": lambda: yanks(views["yank"]),
        "rollback": lambda: rolls_back(views["rollback"]),
        "read": lambda: reads(views["read"], yesterday, seen),
        "asks": lambda: asks(views["asks"], random.Random(f"{seed} one")),
        "asks too": lambda: asks(views["asks too"], random.Random(f"{seed} other")),
    }
    # Who comes when: a seed leaves some out, so that the others meet more often.
    cast = {name: call for name, call in actors.items() if chance.random() < 0.8}
    ended = turns.run(cast or actors)
    return Run(store=base, seen=seen, ended=ended, order=turns.order)


def wrong(done: Run) -> Iterator[str]:
    """Name every invariant that a schedule broke."""
    for name, end in done.ended.items():
        # An actor may be refused, and say why; a store that fails is no reason here.
        is_refusal = isinstance(end, TamperedError) or not isinstance(end, StorageError)
        is_expected = isinstance(end, KilledError) or (isinstance(end, Error) and is_refusal)
        if isinstance(end, BaseException) and not is_expected:
            yield f"{name}: {end!r}"
    yield from done.seen.wrong
    yield from named_wrongly(done.store, rendered(done.store))
    if any(isinstance(end, KilledError) for end in done.ended.values()):
        # Whoever comes next makes up for what was broken off.
        builders.publisher(done.store).refresh()
    files, state = rendered(done.store), read(done.store)
    yield from named_wrongly(done.store, files)
    made = render(state, SITE)
    for key, data in {**made.files, **{k: page.render() for k, page in made.pages.items()}}.items():
        if done.store.get(key).data != data:
            yield f"{key} is not what the releases say"
    yield from (f"{key} cannot be read" for key, found in state.outdated.values() if not found)
    yield from lost(done, {key: done.store.get(key).data for key in done.seen.writes})
    offered = {one.name: (one.revision, one.file) for one in index.parse(files[layout.INDEX])[0]}
    current = {
        name: (release.revision, release.public.disk)
        for name, arch in state.images
        if (release := state.current(name, arch))
    }
    if offered != current:
        yield f"the index offers {offered}, the releases say {current}"
    if state.damaged:
        yield f"damaged: {state.damaged}"
    for key in (*files, *(stat.key for stat in done.store.list(layout.RELEASES))):
        if EVIL in done.store.get(key).data:
            yield f"{key} has the attacker's words"
    for stat in done.store.list(layout.IMAGES):
        data = done.store.get(stat.key).data
        if EVIL in data or (stat.key.endswith(".xz") and sha256(data) not in JUDGED):
            yield f"{stat.key} is the attacker's"


def lost(done: Run, now: Mapping[str, bytes]) -> Iterator[str]:
    """Say which revisions have two contents, and which publications left no trace."""
    for key, contents in done.seen.writes.items():
        if len(set(contents)) > 1 or now[key] != contents[0]:
            yield f"{key} has two contents"
    for end in done.ended.values():
        if not isinstance(end, PublicationOutcome):
            continue
        for outcome in end.outcomes.values():
            key = str(outcome.release.key)
            if outcome.verdict is Verdict.RELEASED and now.get(key) != outcome.release.to_json():
                yield f"{key} was released and is lost"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def _in_the_order_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two requests of one actor side by side, and no pause that would only take time."""
    for module in (pages, publisher, reading, s3):
        monkeypatch.setattr(module, "side_by_side", OneByOne)
    monkeypatch.setattr(RetryPolicy, "wait", lambda *_args, **_named: None)
    # What is flushed outlives a loss of power, which does not happen here.
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the repository, to be copied for every schedule."""
    path = tmp_path_factory.mktemp("before") / "repository"
    fill(DirectoryStore(path=path))
    return path


def seeds(where: str) -> range:
    if chosen := os.environ.get("LAGO_IMAGES_TEST_SEED"):
        return range(int(chosen), int(chosen) + 1)
    return range(int(os.environ.get("LAGO_IMAGES_TEST_ROUNDS") or ROUNDS[where]))


def in_directory(seed: int, before: Path, path: Path) -> Run:
    shutil.copytree(before, path)
    base = DirectoryStore(path=path)
    return run(seed, base, partial(GatedStore, base))


@pytest.mark.timeout(7200)
def test_no_order_of_requests_breaks_a_promise_in_a_directory(
    before: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    requests = 0
    for seed in seeds("directory"):
        done = in_directory(seed, before, tmp_path / "repository")
        found = list(wrong(done))
        assert not found, f"LAGO_IMAGES_TEST_SEED={seed}: {found}; {done.ended}; {done.order}"
        requests += len(done.order)
        shutil.rmtree(tmp_path / "repository")
    tell(record_property, f"directory: {len(seeds('directory'))} schedules, {requests} requests")


class Unguarded(DirectoryStore):
    """A directory that keeps no condition on a part of the keys."""

    def put(self, key: str, data: bytes, *, expected: str | None, **more: Any) -> str:
        is_release = key.startswith(layout.RELEASES)
        is_loose = is_release if self.loose == "releases" else layout.is_rendered(key)
        if is_loose:
            expected = next((stat.etag for stat in self.list(key) if stat.key == key), None)
        return super().put(key, data, expected=expected, **more)

    loose = ""


class UnguardedReleases(Unguarded):
    loose = "releases"


class UnguardedFiles(Unguarded):
    loose = "rendered"


class Unproved(DirectoryStore):
    """A directory that copies what is there, whatever it is."""

    def copy(self, source: str, target: str, **_proof: Any) -> None:
        self.put(target, self.get(source).data, expected=None)


@pytest.mark.parametrize(
    ("faulty", "what"),
    [
        (UnguardedReleases, "two contents"),
        (UnguardedFiles, "the index offers"),
        (Unproved, "the attacker's"),
    ],
    ids=["If-None-Match is ignored", "If-Match is ignored", "the copy is not proved"],
)
def test_a_planted_fault_breaks_a_promise(
    faulty: type[DirectoryStore], what: str, before: Path, tmp_path: Path
) -> None:
    """Else the schedules would show nothing."""
    for seed in range(_ENOUGH):
        path = tmp_path / str(seed)
        shutil.copytree(before, path)
        base = DirectoryStore(path=path)
        store = faulty(path=path)
        done = run(seed, base, partial(GatedStore, store))
        if any(what in one for one in wrong(done)):
            return
    pytest.fail(f"no schedule shows: {what}")


def test_a_seed_repeats_the_same_order_of_requests(before: Path, tmp_path: Path) -> None:
    one, again, other = (
        in_directory(seed, before, tmp_path / str(number)) for number, seed in enumerate((3, 3, 4))
    )
    assert one.order == again.order
    assert {n: type(end) for n, end in one.ended.items()} == {
        n: type(end) for n, end in again.ended.items()
    }
    assert one.order != other.order


@pytest.mark.timeout(7200)
def test_no_order_of_requests_breaks_a_promise_in_a_bucket(
    ceph20: Any, record_property: Callable[[str, object], None]
) -> None:
    requests = 0
    bucket = ceph20.new_bucket()
    for seed in seeds("ceph20"):

        def opened(seed: int = seed) -> S3Store:
            return S3Store.open(bucket, f"p{seed}", environ=ceph20.environ)

        base = opened()
        base.ensure_safe_writes(single_writer=False, console=Console(quiet=True))
        fill(base)
        done = run(seed, base, lambda turns, actor: gate_requests(opened(), turns, actor))
        found = list(wrong(done))
        assert not found, f"LAGO_IMAGES_TEST_SEED={seed}: {found}; {done.ended}; {done.order}"
        requests += len(done.order)
    tell(record_property, f"ceph20: {len(seeds('ceph20'))} schedules, {requests} requests")


def tell(record_property: Callable[[str, object], None], text: str) -> None:
    record_property("schedules", text)
    print(f"\n{text}: 0 failures")
