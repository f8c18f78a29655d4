"""Publications of an older and a newer commit, in every order of their steps.

The older commit's publisher makes some steps, then the newer one's makes some; then the older
one's goes to its end, then the newer one's. Either may die where it first stops.
"""

import hashlib
import math
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lago_images.building.model import Result
from lago_images.console import Console
from lago_images.errors import ConflictError, NotFoundError, RepositoryError, TamperedError
from lago_images.jobs.publish import publish
from lago_images.jobs.workspace import Workspace
from lago_images.planning.model import Action, Tree
from lago_images.repository.records.layout import INDEX, METADATA, PUBLISHED, RELEASES
from lago_images.repository.records.release import Released
from lago_images.repository.records.state import digest, read
from lago_images.repository.rendering.index import parse
from lago_images.repository.statements.making import BUILDER, Statements
from lago_images.repository.statements.provenance import Origin
from lago_images.settings import Settings
from lago_images.specs.model import Base, BaseKind
from lago_images.storage.base import Blob, Stat
from tests.support.builders import (
    PROPERTIES,
    bound,
    layer_on,
    manifest,
    overwrite,
    publisher,
    put,
    put_build,
    put_copy,
    put_release,
    release,
    spec,
)
from tests.support.ci import plan, planned

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
        if (blob.etag, len(blob.data), hashlib.sha256(blob.data).hexdigest()) != (
            etag,
            size,
            sha256,
        ):
            raise TamperedError(source)
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
        base="bootstrap:bookworm",
        promote=build if action is Action.PROMOTE else None,
        promote_sha256=digest(BUILDS[build]) if action is Action.PROMOTE else None,
        revision=1,
    )
    tree = Tree(
        specs={NAME: replace(spec(NAME), properties=PROPERTIES)},
        fingerprints={NAME: BUILDS[build].fingerprint},
        inputs={},
    )
    work = Workspace(
        root=Path(),
        settings=Settings(base_url="http://images.test"),
        console=Console(quiet=True),
        environ={},
        store=store,
        git=git_at(commit),
        cache=Path(),
        logs=Path(),
        clock=lambda: 1_700_000_100.0,
    )
    return publish(work, plan(image, head=commit), [], tree=tree)


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
def test_no_death_of_a_publisher_leaves_an_older_commits_image_after_a_rerun(start, killed, first):
    for second in range(STEPS[NEWER]):
        store = race(start, "reverts", Schedule({OLDER: first, NEWER: second}, killed))
        newer(store, "reverts")
        assert offered(store) == "b0", (first, second)


@pytest.mark.parametrize("case", WANTED)
@pytest.mark.parametrize("who", [OLDER, NEWER])
def test_every_order_of_publishers_is_tried(start, case, who):
    schedule = Schedule({OLDER: 0, NEWER: 0})
    race(start, case, schedule)
    assert 0 < schedule.made[who] < STEPS[who]


def base_of(image):
    kind, _, name = image.base.partition(":")
    return Base(kind=BaseKind(kind), name=name, line=1)


def publication(store, *images, results=(), manifests=(), head="c1", settings=None):
    """Publish what these entries of a plan ask for, with a checkout that asks for the same."""
    by_name = {made.name: made for made in manifests}
    tree = Tree(
        specs={
            one.name: replace(
                spec(one.name), properties=by_name[one.name].properties, base=base_of(one)
            )
            for one in images
        },
        fingerprints={one.name: one.fingerprint for one in images},
        inputs={},
    )  # fmt: skip
    work = Workspace(
        root=Path(),
        settings=settings or Settings(base_url="http://images.test"),
        console=Console(quiet=True),
        environ={"GITHUB_ACTIONS": "true", "GITHUB_ACTOR": "ann", "GITHUB_REPOSITORY": "o/r",
                 "GITHUB_RUN_ID": "7"},
        store=store,
        git=git_at(head),
        cache=Path(),
        logs=Path(),
        clock=lambda: 1_700_000_100.0,
    )  # fmt: skip
    made = plan(*images, head="c1", chains=(tuple(one.name for one in reversed(images)),))
    return publish(work, made, results, tree=tree)


def git_at(head) -> Any:
    """A clone at a commit, of a line that ends with the newer one."""
    return SimpleNamespace(
        is_ancestor=lambda one, other: LINE.index(one) <= LINE.index(other),
        head=lambda: head,
        remote=lambda: None,
        tips=lambda _ref: [NEWER],
        url=lambda: "https://me:secret@git.example.org/specs",
        prefix="vm/",
    )


def wanted(made, **changes):
    return planned(made.name, base=made.base.ref, fingerprint=made.fingerprint, revision=0,
                   **changes)  # fmt: skip


def result(made):
    return Result(name=made.name, arch=made.arch, manifest=made, seconds=1.0)


ONE = manifest("one", "b1", fingerprint="sha256:1")
TWO = manifest("two", "b2", fingerprint="sha256:2")


def stored(*builds):
    store: Any = MemoryStore({})
    for made in builds:
        put_build(store, made)
    return store


def test_a_build_is_released_with_its_actor():
    store = stored(ONE)
    done = publication(store, wanted(ONE), results=[result(ONE)], manifests=[ONE])
    assert done.ok
    assert done.outcomes["one"].release.released == Released(
        commit="c1",
        actor="ann",
        run="https://github.com/o/r/actions/runs/7",
        repository="https://git.example.org/specs",
    )


def test_the_release_binds_the_statements_about_the_build():
    store = stored(ONE)
    done = publication(store, wanted(ONE), results=[result(ONE)], manifests=[ONE])
    image = done.outcomes["one"].release.image
    assert image
    written = store.objects[image.public.sbom].data
    assert image.objects["sbom.cdx.json"].sha256 == hashlib.sha256(written).hexdigest()
    assert "provenance.json" not in image.objects
    copied = [key for key in store.objects if key.startswith(image.public.folder)]
    assert copied[-1] == image.public.manifest


def test_a_package_list_other_than_the_builds_fails_one_image_only():
    store = stored(ONE, TWO)
    overwrite(store, ONE.key.staging.packages, b"bash 5.2 amd64\nmore 1 amd64\n")
    done = publication(
        store, wanted(ONE), wanted(TWO), results=[result(ONE), result(TWO)], manifests=[ONE, TWO]
    )
    assert list(done.outcomes) == ["two"]
    assert "packages.txt" in done.failed["one"]
    assert not [key for key in store.objects if key.startswith("images/one/")]


@pytest.mark.parametrize(
    ("more", "results", "run"),
    [
        ({}, [ONE], "https://github.com/o/r/actions/runs/7"),
        (
            {
                "action": Action.PROMOTE,
                "promote": ONE.build_id,
                "promote_sha256": digest(ONE),
            },
            [],
            "",
        ),
    ],
)
def test_statements_name_the_spec_the_repository_and_the_run(monkeypatch, more, results, run):
    origins = []
    make = Statements.make

    def recorded(self, made, files, **more):
        origins.append(self.origin)
        return make(self, made, files, **more)

    monkeypatch.setattr(Statements, "make", recorded)
    image = wanted(ONE, **more)
    done = publication(stored(ONE), image, results=map(result, results), manifests=[ONE])
    assert done.ok
    assert origins == [
        Origin(
            spec="vm/image-specs/one",
            repository="https://git.example.org/specs",
            builder=BUILDER,
            run=run,
            settings={"compression-level": "6", "network": "true"},
        )
    ]


def test_a_build_overwritten_after_its_result_fails_alone_with_both_digests():
    store = stored(ONE, TWO)
    forged = replace(ONE, tools={"evil": "1"})
    overwrite(store, ONE.key.staging.manifest, forged.to_json())
    done = publication(
        store, wanted(ONE), wanted(TWO), results=[result(ONE), result(TWO)], manifests=[ONE, TWO]
    )
    assert list(done.outcomes) == ["two"]
    assert not done.ok
    assert digest(ONE) in done.failed["one"]
    assert digest(forged) in done.failed["one"]
    assert read(store).current("one", "x86_64") is None


def test_an_invalid_manifest_fails_one_image_only():
    store = stored(ONE, TWO)
    overwrite(store, ONE.key.staging.manifest, b"garbage")
    done = publication(
        store, wanted(ONE), wanted(TWO), results=[result(ONE), result(TWO)], manifests=[ONE, TWO]
    )
    assert list(done.outcomes) == ["two"]
    assert "what was judged has" in done.failed["one"]


def test_a_promoted_build_must_have_the_plans_digest():
    store = stored(ONE)
    image = wanted(ONE, action=Action.PROMOTE, promote="b1", promote_sha256="0" * 64)
    done = publication(store, image, manifests=[ONE])
    assert "0" * 64 in done.failed["one"]
    assert digest(ONE) in done.failed["one"]
    image = replace(image, promote_sha256=digest(ONE))
    assert publication(store, image, manifests=[ONE]).ok


@pytest.mark.parametrize(
    ("forged", "what"),
    [
        ({"boot": None}, "demands a boot test"),
        ({"created": 1_800_000_000}, "in the future"),
        ({"properties": {**PROPERTIES, "aliases": "debian-13"}}, "not the spec's: 'aliases'"),
        ({"fingerprint": "sha256:other"}, ""),
    ],
    ids=str,
)
def test_the_claims_of_a_planted_build_are_not_trusted(forged, what):
    planted = replace(ONE, **forged)
    store = stored(planted)
    image = wanted(ONE, action=Action.PROMOTE, promote="b1", promote_sha256=digest(planted))
    done = publication(store, image, manifests=[ONE])
    assert not done.ok
    assert what in done.failed.get("one", "")
    assert read(store).images == ()


def test_a_plan_for_another_checkout_releases_nothing():
    store = stored(ONE)
    with pytest.raises(RepositoryError, match="the plan is for commit c1, checked out is commit c"):
        publication(store, wanted(ONE), results=[result(ONE)], manifests=[ONE], head="c0")
    assert read(store).images == ()


def test_a_base_is_released_before_the_layer_that_stands_on_it():
    layer = manifest("layer", "l1", fingerprint="sha256:l", base=layer_on(ONE))
    store = stored(ONE, layer)
    done = publication(
        store, wanted(layer), wanted(ONE), results=[result(layer), result(ONE)],
        manifests=[layer, ONE],
    )  # fmt: skip
    assert done.ok, done.failed
    assert done.outcomes["layer"].release.image.base == bound(ONE, 1)


def test_a_layer_of_a_failed_base_fails():
    layer = manifest("layer", "l1", fingerprint="sha256:l", base=layer_on(ONE))
    store = stored(ONE, layer)
    overwrite(store, ONE.key.staging.disk, bytes(ONE.disk.compressed_size))
    done = publication(
        store, wanted(layer), wanted(ONE), results=[result(layer), result(ONE)],
        manifests=[layer, ONE],
    )  # fmt: skip
    assert set(done.failed) == {"one", "layer"}
    assert read(store).images == ()


def test_a_damaged_release_of_another_image_is_reported_and_does_not_stop_the_job():
    store = stored(ONE)
    put(store, "releases/two/x86_64/1.json", b"{}")
    done = publication(store, wanted(ONE), results=[result(ONE)], manifests=[ONE])
    assert list(done.outcomes) == ["one"]
    assert [one.where for one in done.findings] == ["releases/two/x86_64/1.json"]
    assert not done.ok
