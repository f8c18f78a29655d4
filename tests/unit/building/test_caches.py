"""What builds keep to use again: listed, bounded, cleared, and never half of a file."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from lago_images.building import caches, downloads, kept_logs
from lago_images.building.caches import (
    Kind,
    clear,
    entries,
    new_file,
)
from lago_images.building.kept_logs import RUNS, new_logs, unfinished

NOW = 1_700_000_000


def put(cache, kind, name, size=10, used=NOW):
    path = cache / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (used, used))
    return path


def test_entries_are_listed_by_kind_the_last_used_first(tmp_path):
    put(tmp_path, Kind.TREES, "b.tar", used=NOW - 5)
    put(tmp_path, Kind.TREES, "a.tar", size=3)
    put(tmp_path, Kind.DOWNLOADS, "sha256-1")
    put(tmp_path, Kind.DOWNLOADS, "sha256-1.lock", size=0)
    put(tmp_path, "another", "x.log")
    put(tmp_path, Kind.LOGS, "20260101T000000Z-0a/x.log", size=4)
    found = [(each.kind, each.name, each.size) for each in entries(tmp_path)]
    assert found == [
        ("downloads", "sha256-1", 10),
        ("logs", "20260101T000000Z-0a/x.log", 4),
        ("trees", "a.tar", 3),
        ("trees", "b.tar", 10),
    ]
    assert list(entries(tmp_path / "nowhere")) == []


def test_clearing_removes_the_kinds_that_are_named(tmp_path):
    kept = put(tmp_path, Kind.LAYERS, "sha256-1")
    gone = put(tmp_path, Kind.PACKAGES, "sha256-2.deb")
    removed, left = clear(tmp_path, [Kind.PACKAGES, Kind.TREES], NOW)
    assert ([each.name for each in removed], left) == (["sha256-2.deb"], ())
    assert (kept.exists(), gone.exists()) == (True, False)


def test_what_another_run_is_about_to_write_is_left(tmp_path):
    part = put(tmp_path, Kind.DOWNLOADS, "sha256-1.part")
    validator = put(tmp_path, Kind.DOWNLOADS, "sha256-1.part.validator")
    new = put(tmp_path, Kind.TREES, ".new-1", used=NOW - 10)
    with downloads.locked(part.with_name("sha256-1")):
        removed, left = clear(tmp_path, list(Kind), NOW)
    assert (removed, len(left)) == ((), 3)
    # The run has ended; the other was killed long ago.
    removed, left = clear(tmp_path, list(Kind), NOW + 7200)
    assert (len(removed), left) == (3, ())
    assert not any(path.exists() for path in (part, validator, new))


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    with new_file(tmp_path, Kind.TREES) as new:
        new.write_bytes(b"whole")
        assert [path.name for path in (tmp_path / Kind.TREES).iterdir()] == [new.name]
        new.replace(tmp_path / Kind.TREES / "x.tar")
    with suppress(KeyboardInterrupt), new_file(tmp_path, Kind.TREES) as new:
        new.write_bytes(b"half")
        raise KeyboardInterrupt
    assert [each.name for each in entries(tmp_path)] == ["x.tar"]


def test_of_more_than_the_limit_what_was_used_longest_ago_goes(tmp_path, monkeypatch):
    monkeypatch.setitem(caches.LIMITS, Kind.TREES, 25)
    put(tmp_path, Kind.TREES, "old", used=NOW - 100)
    put(tmp_path, Kind.TREES, "older", used=NOW - 200)
    with new_file(tmp_path, Kind.TREES) as new:
        new.write_bytes(b"x" * 10)
        new.replace(tmp_path / Kind.TREES / "new")
    assert {each.name for each in entries(tmp_path)} == {"new", "old"}


def test_two_runs_keep_files_at_once(tmp_path):
    for number in range(100):
        put(tmp_path, Kind.PACKAGES, f"{number}.deb")

    def keep(run):
        for number in range(60):
            with new_file(tmp_path, Kind.PACKAGES) as new:
                new.replace(tmp_path / Kind.PACKAGES / f"{run}-{number}.deb")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(keep, "ab"))
    assert len(list(entries(tmp_path))) == 220


def test_logs_are_cleared_but_one_that_is_being_moved_to_its_place(tmp_path):
    log = put(tmp_path, Kind.LOGS, "run/one.log")
    for name, used in ((unfinished(log).name, NOW), (unfinished(log).name, NOW - 9_000)):
        put(tmp_path, Kind.LOGS, f"run/{name}", used=used)
    removed, left = clear(tmp_path, [Kind.LOGS], NOW)
    assert (len(removed), [each.used for each in left]) == (2, [NOW])
    assert not log.exists()


def test_as_many_runs_keep_their_logs_as_the_limits_let(tmp_path, monkeypatch):
    names = [f"20260101T0000{second:02}Z-0a" for second in range(RUNS + 2)]
    for name in names:
        put(tmp_path, Kind.LOGS, f"{name}/one.log")
    new = new_logs(tmp_path)
    assert new.name > names[-1]
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == names[-RUNS + 1 :]
    monkeypatch.setattr(kept_logs, "LIMIT", 25)
    new_logs(tmp_path)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == names[-2:]
    monkeypatch.setattr(kept_logs, "LIMIT", 1)
    new_logs(tmp_path)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == names[-1:]
