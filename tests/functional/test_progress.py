"""What a person sees of three chains: on terminals of 80 and 40 columns, in a log, at the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import pytest

from lago_images.building.chain import build_chains
from lago_images.console import HEARTBEAT_SECONDS, Console, Mode
from lago_images.jobs.timings import Timings
from lago_images.screen import REFRESH_SECONDS
from lago_images.storage.directory.store import DirectoryStore
from tests.functional.test_building import EMULATED, ask, context, disk_file, spec
from tests.support.specs import SpecsRepo
from tests.support.terminal import terminal
from tests.tools import need

need("qemu-img", "git")
__all__ = ["context"]
HANGS = 300
MIB = 2**20
NAMES = [f"debian-12-with-a-long-name-{letter * 10}" for letter in "abc"]


class Ticks:
    """Stands in for the passing of time: ticks come when the test says so."""

    def __init__(self):
        self.calls = {}
        self.now = 1000.0

    @contextmanager
    def ticker(self, seconds, call):
        self.calls[seconds] = call
        yield


def build_and_look(context, console, look):
    """Build three chains, and look when two are in the middle of an upload, and one waits."""
    # A disk of two blocks; a compression at a time.
    halfway, go_on = threading.Event(), threading.Event()

    class Halfway(DirectoryStore):
        def upload(self, key, chunks, **options):
            def slowly():
                for number, chunk in enumerate(chunks):
                    yield chunk
                    if number == 2:
                        halfway.set()
                        assert go_on.wait(HANGS)

            return super().upload(key, slowly(), **options)

    for number, name in enumerate(NAMES):
        disk_file(context.root, f"{name}.img", seed=number, size=80 * MIB)
    chains = [[replace(ask(spec(name, f"simple:{name}.img")), expected=250)] for name in NAMES]
    context = replace(context, store=Halfway(path=context.store.path), console=console)
    context = replace(context, settings=replace(context.settings, compression_level=0))
    ended = []
    thread = threading.Thread(
        target=lambda: ended.extend(build_chains(chains, context, accel=EMULATED, jobs=3))
    )
    thread.start()
    try:
        assert halfway.wait(HANGS)
        look()
    finally:
        go_on.set()
        thread.join()
    assert [result.ok for result in ended] == [True] * 3


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_shows_a_line_for_each_of_three_chains(context, monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    ticks = Ticks()
    with terminal(columns) as screen:
        console = Console(
            stream=screen.stream, mode=Mode.TERMINAL, ticker=ticks.ticker, clock=lambda: ticks.now
        )
        seen = []

        def look():
            ticks.now += 83
            ticks.calls[REFRESH_SECONDS]()
            console.info("a line that stays")
            seen.extend(line for line in screen.lines() if " of 3 " in line)

        build_and_look(replace(context, clock=lambda: ticks.now), console, look)
        after = screen.lines()
    assert len(seen) == 3
    assert sorted(line[:7] for line in seen) == ["1 of 3 ", "2 of 3 ", "3 of 3 "]
    assert all(len(line) <= columns for line in seen)
    assert all("1:23/4:10" in line for line in seen)
    [upload] = [line for line in seen if "upload" in line]
    if columns == 80:
        assert {name for name in NAMES if any(name in line for line in seen)} == set(NAMES)
        assert "MiB" in upload
        assert upload.endswith("/s")
    # Nothing of the lines is left, and what was said meanwhile is.
    assert not [line for line in after if " of 3 " in line]
    assert "a line that stays" in after


def test_a_log_gets_a_heartbeat_for_each_chain(context):
    ticks, seen = Ticks(), []

    def look():
        ticks.now += HEARTBEAT_SECONDS
        ticks.calls[HEARTBEAT_SECONDS]()
        written = context.console.stream.getvalue().splitlines()
        seen.extend(line for line in written if " of 3 " in line)

    console = replace(context.console, ticker=ticks.ticker, clock=lambda: ticks.now)
    build_and_look(replace(context, clock=lambda: ticks.now), console, look)
    assert len(seen) == 3
    assert all("0:30 of about 4:10" in line for line in seen)
    assert [line for line in seen if "upload" in line and " MiB, " in line]


def test_a_run_shows_and_writes_the_time_of_each_phase(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    for name in NAMES[:2]:
        repo.write(f"{name}.img", name.encode() * 1000)
        repo.spec(name, f"simple:{name}.img")
    repo.commit()
    file = tmp_path / "times.json"
    ran = repo.run("build", "--timings", str(file))
    assert ran.code == 0, ran.err
    head = next(
        line for line in ran.err.splitlines() if line.startswith("image ") and "boot" in line
    )
    assert head.split() == ["image", "base", "setup", "disk", "boot", "upload", "total"]
    document = file.read_bytes()
    times = msgspec.json.decode(document, type=Timings)
    assert [image.name for image in times.images] == NAMES[:2]
    assert {step.phase for step in times.images[0].steps} == {"base", "disk", "upload"}
    assert times.images[0].expected is None
    # The next build of an image knows how long the published one took.
    again = repo.run("ci", "rebuild", NAMES[0], "--base-url", "http://x", "--timings", str(file))
    assert again.code == 0, again.err
    [image] = json.loads(file.read_text())["images"]
    release = json.loads(
        next((repo.root / "image-repo/releases" / NAMES[0]).rglob("1.json")).read_text()
    )
    assert image["expected"] == release["image"]["manifest"]["seconds"]


def test_a_timings_file_that_cannot_be_written_does_not_stop_the_publication(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.write("one.img", b"x" * 1000)
    repo.spec("one", "simple:one.img")
    repo.commit()
    # It could be written when the run began.
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/qemu-img"
    folder, real = tmp_path / "file", shutil.which("qemu-img")
    program.write_text(f'#!/bin/sh\nrmdir {folder} && : > {folder}\nexec {real} "$@"\n')
    program.chmod(0o755)
    folder.mkdir()
    environ = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    argv = ["build", "--timings", str(folder / "times.json"), "--format", "json"]
    ran = repo.run(*argv, environ=environ)
    assert ran.code == 1
    assert "cannot write the timings into" in ran.err
    assert [image["outcome"] for image in json.loads(ran.out)["images"]] == ["released"]


def test_ctrl_c_is_answered_below_the_lines_of_a_terminal(tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    repo = SpecsRepo.create(tmp_path / "specs")
    # The copy never ends.
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/qemu-img"
    program.write_text("#!/bin/sh\nexec sleep 3600\n")
    program.chmod(0o755)
    for name in NAMES:
        repo.write(f"{name}.img", name.encode() * 1000)
        repo.spec(name, f"simple:{name}.img")
    repo.commit()
    argv = [sys.executable, "-m", "lago_images", "build", "--jobs", "3"]
    path = f"{program.parent}:{os.environ['PATH']}"
    environ = repo.env({"TERM": "xterm", "PATH": path, "TMPDIR": str(tmp_path / "scratch")})
    with (
        terminal(80) as screen,
        subprocess.Popen(
            argv, cwd=repo.root, env=environ, stdout=subprocess.DEVNULL, stderr=screen.stream
        ) as run,
    ):
        hang = threading.Timer(HANGS, run.kill)
        hang.start()
        while sum(" of 3 " in line for line in screen.lines()) < 3:
            assert run.poll() is None, screen.lines()
        run.send_signal(signal.SIGINT)
        while run.poll() is None:
            screen.lines()
        hang.cancel()
        assert run.returncode == 130
        lines = screen.lines()
    message = lines.index("interrupted: ending what runs; once more ends at once")
    assert all(" of 3 " in line for line in lines[message - 3 : message])
    assert "interrupted" in lines[message + 1 :]
    assert not [line for line in lines[message + 1 :] if " of 3 " in line]
