"""Publications of an older and a newer commit, in every order of their steps.

The older commit's publisher makes some steps, then the newer one's makes some; then the older
one's goes to its end, then the newer one's. Either may die where it first stops.
"""

import hashlib
import math
import threading
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lago_images.console import Console
from lago_images.errors import ConflictError, NotFoundError
from lago_images.jobs.publish import publish
from lago_images.jobs.workspace import Workspace
from lago_images.planning.model import Action
from lago_images.repository.records.layout import INDEX, METADATA, PUBLISHED, RELEASES
from lago_images.repository.records.state import read
from lago_images.repository.rendering.index import parse
from lago_images.settings import Settings
from lago_images.storage.base import Blob, Stat
from tests.support.ci import plan, planned
from tests.support.handmade import manifest, publisher, put_build, put_copy, put_release, release

NAME = "debian-12"
LINE = ["c0", "c1", "c2"]
OLDER, NEWER = "c1", "c2"
# More than each makes, which a test below holds.
STEPS = {OLDER: 14, NEWER: 22}
BUILDS = {
    "b0": manifest(build_id="b0", fingerprint="sha256:f0"),
    "b1": manifest(build_id="b1", fingerprint="sha256:f1"),
    "b2": manifest(build_id="b2", fingerprint="sha256:f2"),
}
# What the newer commit makes of the image: the same as before the older one, or its own.
WANTED = {"reverts": "b0", "changes": "b2"}


class KilledError(Exception):
    pass


class Schedule:
    """Whose turn it is: each makes ``steps`` of its own before the other's turn comes."""

    def __init__(self, steps, killed=()):
        self.left, self.killed = dict(steps), killed
        self.made = dict.fromkeys(steps, 0)
        self.turns = [*steps, *steps]
        self.changed = threading.Condition()

    def step(self, who):
        with self.changed:
            self._wait(who)
            if self.left[who] == 0:
                if who in self.killed:
                    raise KilledError(who)
                self.left[who] = math.inf
                self.turns.pop(0)
                self.changed.notify_all()
                self._wait(who)
            self.left[who] -= 1
            self.made[who] += 1

    def end(self, who):
        with self.changed:
            self.turns = [turn for turn in self.turns if turn != who]
            self.changed.notify_all()

    def _wait(self, who):
        assert self.changed.wait_for(lambda: self.turns[0] == who, timeout=300)


class MemoryStore:
    """Objects in memory. Calls ``step`` before whatever publishers can see of each other."""

    url = "memory:"
    folder = None

    def ensure_safe_writes(self, **_more): ...

    def __init__(self, objects, step=lambda: None):
        self.objects, self.step = objects, step

    def list(self, prefix="", **_more):
        if prefix.startswith(RELEASES):
            self.step()
        for key, blob in sorted(self.objects.copy().items()):
            if key.startswith(prefix):
                yield Stat(key=key, size=len(blob.data), etag=blob.etag, modified=0)

    def head(self, key):
        blob = self.get(key)
        return Stat(key=key, size=len(blob.data), etag=blob.etag, modified=0)

    def get(self, key):
        if key == PUBLISHED:
            self.step()
        if blob := self.objects.get(key):
            return blob
        raise NotFoundError(key)

    def put(self, key, data, *, expected, **_more):
        if key.startswith(RELEASES) or key in {PUBLISHED, INDEX, METADATA}:
            self.step()
        there = self.objects.get(key)
        if (there.etag if there else None) != expected:
            raise ConflictError(key)
        self.objects[key] = Blob(key=key, data=data, etag=uuid.uuid4().hex)
        return self.objects[key].etag

    def copy(self, source, target, *, etag, size, sha256, headers):
        blob = self.objects[source]
        assert (blob.etag, len(blob.data)) == (etag, size)
        assert hashlib.sha256(blob.data).hexdigest() == sha256
        self.put(target, blob.data, expected=None)

    def delete(self, keys):
        for key in keys:
            self.objects.pop(key, None)


def older(store):
    return run(store, OLDER, "b1", Action.PROMOTE)


def newer(store, case):
    return run(store, NEWER, WANTED[case], Action.KEEP if case == "reverts" else Action.PROMOTE)


def run(store, commit, build, action):
    """The job that publishes a commit, with a plan that was made before either began."""
    image = planned(
        NAME,
        action=action,
        fingerprint=BUILDS[build].fingerprint,
        promote=build if action is Action.PROMOTE else None,
        revision=1,
    )
    git: Any = SimpleNamespace(is_ancestor=lambda one, other: LINE.index(one) <= LINE.index(other))
    work = Workspace(
        root=Path(),
        settings=Settings(base_url="http://images.test"),
        console=Console(quiet=True),
        environ={},
        store=store,
        git=git,
        cache=Path(),
        logs=Path(),
        clock=lambda: 1_700_000_100.0,
    )
    return publish(work, plan(image, head=commit), [])


@pytest.fixture(scope="module")
def start():
    """A repository before both: what the commit before them made of the image is published."""
    store: Any = MemoryStore({})
    for build in BUILDS.values():
        put_build(store, build)
    put_copy(store, BUILDS["b0"])
    put_release(store, release(1, BUILDS["b0"], commit="c0"))
    publisher(store).refresh()
    return store.objects


def race(start, case, schedule):
    """Publish both commits as scheduled; whatever else than being killed ends one is raised."""
    objects, errors = dict(start), []

    def job(who, call):
        try:
            schedule.step(who)
            call(MemoryStore(objects, lambda: schedule.step(who)))
        except KilledError:
            pass
        except Exception as error:  # noqa: BLE001 -- raised by the test, not in its thread
            errors.append(error)
        finally:
            schedule.end(who)

    threads = [
        threading.Thread(target=job, args=(OLDER, older)),
        threading.Thread(target=job, args=(NEWER, lambda store: newer(store, case))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return MemoryStore(objects)


def offered(store):
    """The build that clients are offered; the index is as the releases have it."""
    current = read(store).current(NAME, "x86_64")
    [entry] = parse(store.get(INDEX).data)[0]
    assert (entry.revision, entry.file) == (current.revision, current.public.disk)
    return current.build


@pytest.mark.parametrize("first", range(STEPS[OLDER]))
@pytest.mark.parametrize("case", WANTED)
def test_no_order_of_publishers_ends_with_an_older_commits_image(start, case, first):
    for second in range(STEPS[NEWER]):
        store = race(start, case, Schedule({OLDER: first, NEWER: second}))
        assert offered(store) == WANTED[case], (first, second)


@pytest.mark.parametrize("first", range(STEPS[OLDER]))
@pytest.mark.parametrize("killed", [(OLDER,), (NEWER,)])
def test_nor_does_a_death_once_the_newer_ones_job_is_run_again(start, killed, first):
    for second in range(STEPS[NEWER]):
        store = race(start, "reverts", Schedule({OLDER: first, NEWER: second}, killed))
        newer(store, "reverts")
        assert offered(store) == "b0", (first, second)


@pytest.mark.parametrize("case", WANTED)
@pytest.mark.parametrize("who", [OLDER, NEWER])
def test_these_are_all_orders(start, case, who):
    schedule = Schedule({OLDER: 0, NEWER: 0})
    race(start, case, schedule)
    assert 0 < schedule.made[who] < STEPS[who]
