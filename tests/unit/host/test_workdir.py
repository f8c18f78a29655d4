"""Work directories, their leftovers, and the room for them."""

import io
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lago_images.console import Console
from lago_images.errors import HostError
from lago_images.host import space
from lago_images.host.files import abandoned
from lago_images.host.process import Children, Runner
from lago_images.host.threads import UNAWAITED
from lago_images.host.workdir import default_scratch, remove_leftovers, workdir

# Seconds: far more than anything here takes, on a machine that does much else, too.
ENOUGH = 300
_HOLD = """
import sys, time
from pathlib import Path
from lago_images.console import Console
from lago_images.host.workdir import workdir
with workdir(Path(sys.argv[1]), Console(quiet=True)) as folder:
    (folder / "half").write_text("made")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def console():
    return Console(stream=io.StringIO())


def test_the_work_directory_is_private_and_removed_after_the_block(tmp_path, console):
    with workdir(tmp_path / "new", console) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "deep").mkdir()
        (folder / "deep/file").write_text("x")
        (folder / "deep").chmod(0)
    assert list((tmp_path / "new").iterdir()) == []


def fail_in(folder, error):
    (folder / "file").write_text("x")
    raise error


def test_the_work_directory_is_removed_on_failure_and_ctrl_c(tmp_path, console):
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), workdir(tmp_path, console) as folder:
            fail_in(folder, error)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def slow(monkeypatch):
    """Let removals wait for what is returned, and a moment be short."""
    go = threading.Event()
    remove = shutil.rmtree

    def wait_and_remove(*args, **named):
        assert go.wait(ENOUGH)
        remove(*args, **named)

    monkeypatch.setattr("shutil.rmtree", wait_and_remove)
    monkeypatch.setattr("lago_images.host.threads._MOMENT", 0.05)
    yield go
    go.set()
    for thread in threading.enumerate():
        if thread.name.startswith(UNAWAITED):
            thread.join()


def test_ctrl_c_does_not_wait_for_a_removal_that_takes_long(tmp_path, console, slow):
    with pytest.raises(KeyboardInterrupt), workdir(tmp_path, console) as folder:
        fail_in(folder, KeyboardInterrupt)
    assert folder.exists()
    assert list(abandoned(tmp_path, "lago-images-")) == []
    assert "a work directory is left, which the next run removes" in console.stream.getvalue()


def test_ctrl_c_while_it_is_removed_leaves_nothing(tmp_path, console, monkeypatch):
    remove, calls = shutil.rmtree, []

    def interrupted_once(*args, **named):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(*args, **named)

    monkeypatch.setattr("shutil.rmtree", interrupted_once)
    with pytest.raises(KeyboardInterrupt), workdir(tmp_path, console):
        pass
    assert list(tmp_path.iterdir()) == []


def test_directories_of_killed_runs_are_removed_and_those_of_live_runs_kept(tmp_path, console):
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as other:
        left = Path(other.stdout.readline().strip())
        try:
            with workdir(tmp_path, console) as folder:
                assert (left / "half").exists()
                assert folder != left
        finally:
            other.send_signal(signal.SIGKILL)
    assert (left / "half").exists()
    with workdir(tmp_path, console):
        assert not left.exists()
    assert str(left) in console.stream.getvalue()
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_left_alone(tmp_path, console):
    (tmp_path / "lago-images-x").mkdir()
    (tmp_path / "keep").mkdir()
    (tmp_path / "lago-images-y.lock").symlink_to("keep")
    (tmp_path / "lago-images-z").symlink_to("keep")
    (tmp_path / "lago-images-z.lock").touch()
    remove_leftovers(tmp_path, console)
    assert {p.name for p in tmp_path.iterdir()} == {
        "lago-images-x",
        "keep",
        "lago-images-y.lock",
        "lago-images-z",
    }


def test_an_unusable_folder_for_work_directories_is_reported(tmp_path, console):
    (tmp_path / "file").touch()
    with (
        pytest.raises(HostError, match="no work directory can be made"),
        workdir(tmp_path / "file", console),
    ):
        pass


def test_the_folder_of_work_directories_can_be_set():
    assert str(default_scratch({"TMPDIR": "/somewhere"})) == "/somewhere"
    assert default_scratch({}).is_dir()


def test_demanded_disk_space_is_in_bytes(tmp_path):
    there = space.free(tmp_path / "not" / "there" / "yet")
    assert there > 0
    space.demand(tmp_path, 1, "nothing much")
    with pytest.raises(HostError) as caught:
        space.demand(tmp_path, 2**60, "the moon")
    assert str(2**60) in caught.value.message
    assert str(tmp_path) in caught.value.message


def test_all_child_processes_can_be_stopped_from_another_thread():
    children = Children()
    begun = threading.Event()
    raised = []

    def work():
        try:
            with Runner(children=children).started(["sleep", "infinity"]) as child:
                begun.set()
                child.wait()
        except KeyboardInterrupt as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(ENOUGH)
    children.end()
    thread.join(ENOUGH)
    assert not thread.is_alive()
    assert raised
    with pytest.raises(KeyboardInterrupt):
        Runner(children=children).run(["true"])


def test_a_program_that_ignores_sigterm_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr("lago_images.host.process._GRACE", 0.2)
    children = Children()
    log = tmp_path / "log"
    argv = [sys.executable, "-uc"]
    argv.append("import signal,time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(600)")

    def work():
        with pytest.raises(KeyboardInterrupt):
            Runner(children=children, log=log).run(argv)

    thread = threading.Thread(target=work)
    thread.start()
    while not (log.exists() and "\n1\n" in log.read_text()):
        time.sleep(0.02)
    children.end()
    thread.join(ENOUGH)
    assert not thread.is_alive()
