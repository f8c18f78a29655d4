"""16 publisher processes at once, round after round, with random images.

A few rounds by default; ``LAGO_IMAGES_TEST_ROUNDS=50`` is the full size.
"""

import hashlib
import itertools
import json
import multiprocessing
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest

from lago_images.console import Console
from lago_images.host.retry import RetryPolicy
from lago_images.repository.publishing.publisher import publishing
from lago_images.repository.publishing.releasing import Decision, Verdict, release
from lago_images.repository.records import layout
from lago_images.repository.records.release import Released
from lago_images.repository.records.state import State, read
from lago_images.repository.rendering import index, lago
from lago_images.settings import Settings
from lago_images.storage.base import Store
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.s3.store import S3Store
from tests.support.builders import judged, manifest, put_build

PROCESSES = 16
IMAGES = [f"image-{number}" for number in range(6)]
ROUNDS = {"directory": 8, "ceph20": 5, "ceph18": 3}
SETTINGS = Settings(base_url="http://images.test")
_FORK = multiprocessing.get_context("fork")


def is_ancestor(one: str, other: str) -> bool:
    """Commits are numbers, in one line."""
    return int(one) <= int(other)


def work(number: int, rounds: int, where: Any, gate: Any, said: Path) -> None:
    """One publisher: a build of a random image each round, published at once with all others'.

    In each round the processes' commits come in random order, so older ones finish late.
    """
    store: Store = where()
    chance = random.Random(number)
    lines = []
    for round_ in range(rounds):
        commit = round_ * 4 + chance.randrange(8)
        name = chance.choice(IMAGES)
        made = manifest(
            name,
            build_id=f"r{round_}p{number}",
            fingerprint=f"sha256:{name}-{commit}-{chance.randrange(2)}",
        )
        put_build(store, made)
        known = read(store).newest(name, "x86_64")
        gate.wait()
        with publishing(
            store, SETTINGS, console=Console(quiet=True), environ={}, now=lambda: 1_700_000_000.0
        ) as publisher:
            outcome = release(
                store,
                judged(made),
                Decision(
                    released=Released(commit=str(commit)),
                    known_revision=known,
                    is_ancestor=is_ancestor,
                    now=publisher.now,
                ),
            )
            publisher.refresh()
        after = offered(store)
        lines.append(
            {
                "name": name,
                "commit": commit,
                "build": made.build_id,
                "verdict": outcome.verdict,
                "revision": outcome.release.revision,
                "seen": after.get(name, 0),
            }
        )
    said.write_text(json.dumps(lines))


def offered(store: Store) -> dict[str, int]:
    entries, problems = index.parse(store.get(layout.INDEX).data)
    assert problems == []
    return {entry.name: entry.revision for entry in entries}


@contextmanager
def running(rounds: int, where: Any, folder: Path) -> Iterator[list[ForkProcess]]:
    gate = _FORK.Barrier(PROCESSES, timeout=120)
    processes = [
        _FORK.Process(target=work, args=(n, rounds, where, gate, folder / f"{n}.json"))
        for n in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ROUNDS)
def test_concurrent_publishers_lose_no_release(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, record_property
) -> None:
    where = opener(name, tmp_path, request)
    rounds = int(os.environ.get("LAGO_IMAGES_TEST_ROUNDS") or ROUNDS[name])
    with publishing(
        where(), SETTINGS, console=Console(quiet=True), environ={}, now=lambda: 0.0
    ) as publisher:
        publisher.refresh()
    with running(rounds, where, tmp_path) as processes:
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * PROCESSES
    told = [
        line for n in range(PROCESSES) for line in json.loads((tmp_path / f"{n}.json").read_text())
    ]
    assert len(told) == rounds * PROCESSES
    judge(where(), told)
    text = f"{name}: {PROCESSES} publishers, {rounds} rounds, {len(told)} publications: 0 lost"
    record_property("races", text)
    print(f"\n{text}")


def opener(name: str, folder: Path, request: pytest.FixtureRequest) -> Any:
    if name == "directory":
        return lambda: DirectoryStore(path=folder / "repository")
    server = request.getfixturevalue(name)
    bucket = server.new_bucket()
    retry = RetryPolicy(attempts=12, delay=0.02, longest=1.0)
    return lambda: S3Store.open(bucket, "p", environ=server.environ, retry=retry)


def judge(store: Store, told: list[dict[str, Any]]) -> None:
    state = read(store)
    assert offered(store) == {
        name: current.revision
        for name, arch in state.images
        if (current := state.current(name, arch))
    }
    for line in told:
        # After each publication clients were offered it, or what came after.
        assert line["seen"] >= line["revision"], line
        if line["verdict"] == Verdict.RELEASED:
            [made] = [
                one
                for one in state.history(line["name"], "x86_64")
                if one.revision == line["revision"]
            ]
            assert (made.build, made.released.commit) == (line["build"], str(line["commit"]))
    released = [line for line in told if line["verdict"] == Verdict.RELEASED]
    assert len({(line["name"], line["revision"]) for line in released}) == len(released)
    assert len({line["build"] for line in released}) == len(released)
    assert len(released) == sum(len(history) for history in state.releases.values())
    histories(state)
    contents(store, state)


def histories(state: State) -> None:
    """Revisions leave none out; commits only go forward; one fingerprint is not released twice."""
    for history in state.releases.values():
        assert [one.revision for one in history] == list(range(1, len(history) + 1))
        commits = [int(one.released.commit) for one in history]
        assert commits == sorted(commits)
        pairs = itertools.pairwise(history)
        assert all(one.build != other.build for one, other in pairs)


def contents(store: Store, state: State) -> None:
    """Every revision is a version of its own, of exactly its build."""
    versions, problems = lago.parse(store.get(layout.METADATA).data)
    assert problems == []
    found = {(one.template, one.version): one.handle for one in versions}
    assert len(found) == len(versions) == sum(len(h) for h in state.releases.values())
    sizes = {stat.key: stat.size for stat in store.list(layout.IMAGES)}
    # A publisher that made no release leaves no copy.
    copies = {one.public.folder for history in state.releases.values() for one in history}
    assert {key.rpartition("/")[0] + "/" for key in sizes} == copies
    for history in state.releases.values():
        for one in history:
            made = manifest(one.name, build_id=one.build)
            assert found[one.name, f"1-{one.revision}"] == one.public.handle
            assert sizes[one.public.disk] == made.disk.compressed_size
            disk = store.get(one.public.disk).data
            assert hashlib.sha512(disk).hexdigest() == made.disk.sha512
