import hashlib
import io
from dataclasses import replace
from pathlib import Path

import click
import pytest

from lago_images.building.model import Phase, PhaseTime, Result
from lago_images.cli import doctor, repo
from lago_images.cli.output import show_first_failure, show_results, show_summary, show_timings
from lago_images.cli.run_report import image_reports
from lago_images.console import Console
from lago_images.host.doctor import Check
from lago_images.host.doctor import State as CheckState
from lago_images.jobs.publish import PublicationOutcome
from lago_images.repository.publishing.releasing import ReleaseOutcome, Verdict
from lago_images.repository.records.layout import PACKAGES
from lago_images.repository.records.release import ObjectDigest
from lago_images.repository.records.state import State, histories
from lago_images.repository.verifying.findings import Report, problem
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import copy_of, manifest, overwrite, put_copy, release, released_image
from tests.support.ci import plan


def failed(name, error="E: Unable to locate package nfs-kernel-sever"):
    return Result(
        name=name,
        arch="x86_64",
        manifest=None,
        seconds=12.3,
        step="customising",
        error=error,
        tail=("the last line",),
        log=Path("logs") / f"{name}.log",
    )


def built(name):
    return Result(name=name, arch="x86_64", manifest=manifest(name), seconds=61.0)


def skipped(name, base):
    return Result(name=name, arch="x86_64", manifest=None, seconds=0.0, skipped=base)


def published(*releases, **more):
    outcomes = {
        each.name: ReleaseOutcome(verdict=Verdict.RELEASED, release=each) for each in releases
    }
    return PublicationOutcome(**{"outcomes": outcomes, "missing": (), "written": (), **more})


@pytest.fixture
def console():
    return Console(stream=io.StringIO())


def lines(console):
    return console.stream.getvalue().splitlines()


def show_end(console, store, results, publication, before):
    images = image_reports(store, plan(), results, publication, before)
    show_summary(console, images)
    show_first_failure(console, images, results, publication.findings)


def test_failures_are_printed_first(console, capsys):
    results = [built("a"), skipped("c", "b"), failed("b"), failed("d")]
    show_results(console, results, click.echo)
    assert lines(console) == [
        "b: failed while customising: E: Unable to locate package nfs-kernel-sever",
        "  | the last line",
        "b: log: logs/b.log",
        "d: failed while customising: E: Unable to locate package nfs-kernel-sever",
        "  | the last line",
        "d: log: logs/d.log",
    ]
    assert capsys.readouterr().out.startswith("a: built in 61 s")


def test_a_single_failure_was_told_when_it_failed_and_its_last_lines_follow(console):
    show_results(console, [skipped("c", "b"), failed("b")], click.echo)
    assert lines(console) == [
        "b: the last lines before it failed:",
        "  | the last line",
    ]


def test_a_run_ends_with_one_row_per_image_and_the_first_failure(console, tmp_path):
    store = DirectoryStore(path=tmp_path)
    results = [built("a"), skipped("c", "b"), failed("b")]
    publication = published(release(1, manifest("a")), missing=("b", "c"))
    show_end(console, store, results, publication, State(releases={}, objects={}, published=None))
    head, *rows, again, log = lines(console)
    assert head.split() == ["image", "verdict", "revision", "size", "time", "changes"]
    assert [row.split() for row in rows] == [
        ["a", "released", "1", "16", "B", "61", "s", "new"],
        ["c", "not", "built:", "b", "failed", "0", "s"],
        ["b", "failed", "12", "s"],
    ]
    assert again.startswith("first failure: b: failed while customising: E: Unable to locate")
    assert log == "b: log: logs/b.log"


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("name", ["a", "debian-12-with-a-long-name-of-37-chars"])
def test_at_every_width_the_end_of_a_run_has_all_columns(
    console, tmp_path, monkeypatch, width, name
):
    monkeypatch.setattr("lago_images.cli.output.terminal_width", lambda _stream: width)
    store = DirectoryStore(path=tmp_path)
    empty = State(releases={}, objects={}, published=None)
    show_end(console, store, [built(name)], published(release(1, manifest(name))), empty)
    shown = lines(console)
    assert max(map(len, shown)) <= width
    words = " ".join(shown).replace(":", "").split()
    assert {"verdict", "revision", "size", "time", "changes"} <= set(words)
    assert {name, "released", "1", "B", "61", "new"} <= set(words)


@pytest.mark.parametrize("width", [40, 80])
def test_at_every_width_each_phase_has_its_time(console, monkeypatch, width):
    monkeypatch.setattr("lago_images.cli.output.terminal_width", lambda _stream: width)
    times = [
        PhaseTime(phase=phase, start_time=1.0, seconds=3600.0 + number)
        for number, phase in enumerate(Phase)
    ]
    show_timings(console, [replace(built("debian-12"), times=tuple(times))])
    shown = lines(console)
    assert max(map(len, shown)) <= width
    words = set(" ".join(shown).replace(": ", " ").split())
    assert {*Phase, "total", *(f"1:00:0{number}" for number in range(len(times)))} <= words


def test_the_only_failure_is_printed_again_below_the_table(console, tmp_path):
    empty = State(releases={}, objects={}, published=None)
    publication = published(missing=("b",))
    show_end(console, DirectoryStore(path=tmp_path), [failed("b")], publication, empty)
    assert lines(console)[-2].startswith("first failure: b: failed while customising: ")
    assert lines(console)[-1] == "b: log: logs/b.log"


def test_an_image_that_could_not_be_published_is_named_again_below_the_table(console, tmp_path):
    empty = State(releases={}, objects={}, published=None)
    publication = published(failed={"a": "the store is full"})
    show_end(console, DirectoryStore(path=tmp_path), [built("a")], publication, empty)
    assert lines(console)[-1] == "first failure: a: not published: the store is full"


def test_what_is_wrong_with_the_published_files_is_told_again_below_the_table(console, tmp_path):
    """Every image is released, and the run fails all the same."""
    store = DirectoryStore(path=tmp_path)
    empty = State(releases={}, objects={}, published=None)
    found = problem("https://images.example", "nobody can read it", "set its policy")
    made = published(release(1, manifest("a")), findings=(found, problem("index", "x", "y")))
    assert made.ok is False
    show_end(console, store, [built("a")], made, empty)
    again = "https://images.example: nobody can read it; repair: set its policy"
    assert lines(console)[-1] == f"first failure: {again}"


def test_changes_are_relative_to_the_previously_offered_release(console, tmp_path):
    store = DirectoryStore(path=tmp_path)
    releases = []
    for number, packages in enumerate((b"bash 1 amd64\nold 1 amd64\n", b"bash 2 amd64\n"), 1):
        made = manifest("a", f"b{number}", packages=None)
        put_copy(store, made)
        releases.append(released_with(store, number, made, packages))
    before = State(releases=histories(releases[:1]), objects={}, published=None)
    show_end(console, store, [], published(releases[1]), before)
    assert lines(console)[1].endswith("packages +0 -1 ~1, same size")


@pytest.mark.parametrize("width", [40, 80])
def test_what_the_doctor_found_fits_the_terminal_and_loses_no_word(width):
    what = "it does not work: " + "guests are emulated, which takes longer " * 4
    check = Check(name="kvm", state=CheckState.WARNING, found=what, do="use a host that has it")
    lines = doctor._lines((check,), width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert {"warning", "kvm", *what.split(), "->", *check.do.split()} <= set(words)


@pytest.mark.parametrize("width", [40, 80])
def test_findings_are_wrapped_at_words(width, capsys, monkeypatch):
    monkeypatch.setattr("lago_images.cli.tables.terminal_width", lambda _stream: width)
    found = problem("index", "its lines are " + "not what they must be " * 8, "lago-images refresh")
    repo._show_report(Report(url="x", images=1, versions=1, read=0, findings=(found,)))
    lines = capsys.readouterr().out.splitlines()[:-1]
    assert max(map(len, lines)) <= width
    assert " ".join(" ".join(lines).split()).startswith(f"problem: index: {found.what.strip()}")


def released_with(store, number, made, packages):
    """Release a build with a list of packages that the release binds."""
    overwrite(store, copy_of(made).packages, packages)
    digest = ObjectDigest(sha256=hashlib.sha256(packages).hexdigest(), size=len(packages))
    image = released_image(made)
    return release(number, made, image=replace(image, objects={**image.objects, PACKAGES: digest}))
