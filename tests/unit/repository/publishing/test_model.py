"""The model of the publication: no order breaks it, every guard is needed, and it is the code's."""

import itertools

import pytest

from lago_images.repository.publishing import collect, withdrawals
from lago_images.repository.publishing.releasing import Decision, release
from lago_images.repository.publishing.retention import Retention
from lago_images.repository.records.release import Released
from lago_images.storage.directory.store import DirectoryStore
from tests.model import publication as model
from tests.model.publication import GOOD, GUARDS, Actor, World, explore
from tests.support.builders import (
    judged,
    manifest,
    publish_by_hand,
    publisher,
    put_build,
    put_release,
)
from tests.support.builders import release as record

START = World(
    staged=GOOD,
    public=frozenset({("old", GOOD), ("now", GOOD)}),
    releases=("old", "now"),
    retired=frozenset(),
    rendered=(1, frozenset({"old", "now"})),
)
ATTACK, READ, YANK = Actor(model.ATTACK), Actor(model.READ), Actor(model.YANK)
PUBLISH = Actor(model.PUBLISH, "a")
COLLECT, ROLL_BACK = Actor(model.COLLECT, "old"), Actor(model.ROLL_BACK, "old")
CASTS = {
    "two publishers and an attacker": (PUBLISH, Actor(model.PUBLISH, "b"), ATTACK),
    "a publisher, gc, an attacker and a reader": (PUBLISH, COLLECT, ATTACK, READ),
    "a publisher and two operators": (PUBLISH, YANK, ROLL_BACK),
    "gc, an operator and a reader": (COLLECT, ROLL_BACK, READ),
    "gc and another operator": (COLLECT, YANK, READ),
    "gc of what is being published": (PUBLISH, Actor(model.COLLECT, "a"), ATTACK),
}
# The guard that is left out, and where that breaks something.
NEEDED = {
    "prove": ("two publishers and an attacker", "a release names an attacker's bytes"),
    "create once": ("two publishers and an attacker", "a revision has two contents"),
    "if-match": ("a publisher and two operators", "an update is lost"),
    "grace": (
        "a publisher, gc, an attacker and a reader",
        "a reader of an older index was sent to what is missing",
    ),
}


@pytest.mark.parametrize("cast", CASTS)
def test_no_order_of_steps_and_crashes_breaks_an_invariant(cast):
    assert explore(START, CASTS[cast]) == set()


@pytest.mark.parametrize("guard", sorted(GUARDS))
def test_removing_any_guard_breaks_an_invariant(guard):
    cast, broken = NEEDED[guard]
    assert broken in explore(START, CASTS[cast], GUARDS - {guard})


def test_a_release_before_its_copy_names_what_is_missing():
    broken = explore(START, (Actor(model.RELEASE_FIRST, "a"), YANK))
    assert "the rendered files name what is missing or not what was judged" in broken


def test_listing_before_reading_the_etags_loses_an_update():
    broken = explore(START, (Actor(model.LIST_FIRST, "a"), Actor(model.PUBLISH, "b")))
    assert "an update is lost" in broken


# What the model leaves out: records of the state, which only decide whether to publish; the bytes
# of what a listing names; what is staged; uploads that nobody finished; and the names of keys.
IGNORED = {
    ("list", "rendered"),
    ("delete", "builds"),
    ("get", "state"),
    ("write", "state"),
    ("get", "releases"),
    # The packages of two builds: a release has text for people made of them, and nothing decided.
    ("get", "images"),
    ("list", "builds"),
    ("get", "builds"),
    ("unfinished", "builds"),
    ("unfinished", "images"),
}
_KINDS = {"put": "write", "copy": "write"}
_FOLDERS = {"builds", "images", "releases", "state"}
NAME = "debian-12"
DAY = 86_400
NOW = 1_700_000_000


class Recorder:
    """A store that records the requests that it is asked for, in order."""

    def __init__(self, path):
        self.store = DirectoryStore(path=path, clock_ns=lambda: NOW * 10**9)
        self.requests: list[tuple[str, str]] = []

    def __getattr__(self, name):
        value = getattr(self.store, name)
        if name in {"url", "folder"}:
            return value

        def call(*args, **named):
            key = args[0]
            if name == "copy":
                key = args[1]
            elif name == "delete":
                args = (list(args[0]),)
                key = next(iter(args[0]), None)
            if key is not None:
                folder = key.partition("/")[0]
                kind = _KINDS.get(name, name)
                self.requests.append((kind, folder if folder in _FOLDERS else "rendered"))
            return value(*args, **named)

        return call

    def steps(self):
        """The requests that the model has; of reads between two writes, the last of each kind."""
        wanted = [one for one in self.requests if one not in IGNORED]
        steps: list[tuple[str, str]] = []
        for is_read, group in itertools.groupby(wanted, lambda one: one[0] in {"get", "list"}):
            some = list(group)
            # Of the same writes in a row, which the model takes for one, too.
            last = list(dict.fromkeys(reversed(some)))[::-1] if is_read else some
            steps.extend(one for one, _ in itertools.groupby(last))
        self.requests.clear()
        return steps


@pytest.fixture
def store(tmp_path):
    """Three revisions, which are published; the first is beyond retention."""
    store = Recorder(tmp_path / "repo")
    builds = [manifest(build_id=f"b{n}", fingerprint=f"f{n}") for n in (1, 2, 3)]
    publish_by_hand(store, *builds)
    publisher(store).refresh()
    store.requests.clear()
    return store


def requests(steps):
    return [request for step in steps if (request := model.REQUESTS[step])]


def test_the_models_publisher_sends_the_requests_of_the_code(store):
    made = manifest(build_id="b4", fingerprint="f4")
    put_build(store, made)
    store.requests.clear()
    decision = Decision(
        released=Released(commit="c1"), known_revision=3, is_ancestor=lambda *_: False, now=float
    )
    release(store, judged(made), decision)
    publisher(store).refresh()
    assert store.steps() == requests(model.PUBLISH)


def test_the_models_operators_send_the_requests_of_the_code(store):
    withdrawals.yank(publisher(store), NAME, reason="bad", released=Released(commit="c1"))
    assert store.steps() == requests(model.YANK)
    withdrawals.rollback(publisher(store), NAME, to=1, released=Released(commit="c1"))
    assert store.steps() == requests(model.ROLL_BACK)


def test_the_models_gc_sends_the_requests_of_the_code(store):
    retention = Retention(revisions=2, days=1, grace_days=1)
    later = publisher(store, now=lambda: NOW + 30 * DAY)
    collect.sweep(later, retention)
    # The last look at what is named protects what is deleted, which is nothing yet.
    assert store.steps() == [*requests(model.RETIRE), ("get", "rendered")]
    # Somebody releases meanwhile, so that there is something to render.
    put_release(store, record(4, "b3", fingerprint="f3"))
    store.requests.clear()
    collect.sweep(later, Retention(revisions=9, days=1, grace_days=1))
    assert store.steps() == requests(model.DELETE)
