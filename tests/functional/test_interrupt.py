"""Ctrl-C: how a build ends in the middle of what takes long. The deadlines only catch hangs."""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.running import command_line, left_running
from tests.support.specs import SpecsRepo
from tests.tools import need

need("qemu-img", "git")
MIB = 2**20
HANGS = 300


@pytest.fixture
def repo(tmp_path):
    return SpecsRepo.create(tmp_path / "specs")


def building(repo, *args, **environ):
    """Start the command line, which has a place of its own for temporary files."""
    scratch = repo.root.parent / "scratch"
    return command_line(
        *(args or ("build",)),
        folder=repo.root,
        environ=repo.env({"TMPDIR": str(scratch), "LAGO_IMAGES_JOBS": "3", **environ}),
        longest=HANGS,
        stdout=subprocess.DEVNULL,
    )


def read_until(run, text):
    """Read lines until one has the text."""
    seen = ""
    for line in run.stderr:
        seen += line
        if text in line:
            return seen
    raise AssertionError(seen)


def without_7zip(folder):
    """Return a PATH with all that a build of a disk starts but 7-Zip."""
    folder.mkdir()
    programs = "env git sh qemu-img setpriv prlimit cp gpg gpgconf unshare"
    for program in programs.split():
        if path := shutil.which(program):
            (folder / program).symlink_to(path)
    return str(folder)


@pytest.mark.parametrize("encoder", ["7zip", "liblzma"])
def test_an_interrupt_ends_compressing_chains_and_reports_leftover_folders(repo, tmp_path, encoder):
    need("7zz")
    for name in ("one", "two", "three"):
        repo.write(f"{name}.img", random.Random(name).randbytes(48 * MIB))
        repo.spec(name, f"simple:{name}.img")
    repo.commit()
    environ = {"LAGO_IMAGES_COMPRESSION_LEVEL": "9"}
    if encoder == "liblzma":
        environ["PATH"] = without_7zip(tmp_path / "bin")
    with building(repo, **environ) as run:
        read_until(run, "compressing")
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
        assert run.wait() == 130, rest
    assert "interrupted: ending what runs; once more ends at once" in rest
    assert is_left_as_told(tmp_path / "scratch", rest)
    assert left_running(str(tmp_path)) == []
    # One of them may have been finished before the signal came.
    assert len(list((repo.root / "image-repo").rglob("manifest.json"))) < 3


def test_an_interrupt_that_another_thread_takes_ends_the_build(repo, tmp_path):
    """The system may give a process's signal to any of its threads."""
    need("7zz")
    repo.write("one.img", random.Random("one").randbytes(48 * MIB))
    repo.spec("one", "simple:one.img")
    repo.commit()
    with building(repo, LAGO_IMAGES_COMPRESSION_LEVEL="9") as run:
        read_until(run, "compressing")
        threads = {int(path.name) for path in Path(f"/proc/{run.pid}/task").iterdir()}
        other = min(threads - {run.pid})
        assert ctypes.CDLL(None).tgkill(run.pid, other, signal.SIGINT) == 0
        rest = run.stderr.read()
        assert run.wait() == 130, rest
    assert is_left_as_told(tmp_path / "scratch", rest)
    assert list((repo.root / "image-repo").rglob("manifest.json")) == []


def is_left_as_told(scratch, text):
    """Say whether no work directory is left, or the run told so: its chains had a moment to end."""
    return "a work directory is left, which the next run removes" in text or not any(
        scratch.iterdir()
    )


GOES_ON = "next: the same command goes on from here"
AGAIN = "next: the same command builds again"


def interrupted(repo, until, *args, **environ):
    """Interrupt a build when it has said something; returns what it said after that."""
    with building(repo, *args, LAGO_IMAGES_COMPRESSION_LEVEL="9", **environ) as run:
        read_until(run, until)
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
        assert run.wait() == 130, rest
    return rest


def test_the_same_command_goes_on_as_an_interrupted_build_says(repo):
    need("7zz")
    repo.disk("one.img")
    repo.write("two.img", random.Random("two").randbytes(48 * MIB))
    for name in ("one", "two"):
        repo.spec(name, f"simple:{name}.img")
    repo.commit()
    rest = interrupted(repo, "two: compressing", LAGO_IMAGES_JOBS="1")
    assert GOES_ON in rest
    ran = repo.run("build", environ={"LAGO_IMAGES_COMPRESSION_LEVEL": "0"})
    assert (ran.code, "one: built" in ran.out, "two: built" in ran.out) == (0, False, True), ran.err
    assert "one: released revision 1" in ran.out


@pytest.mark.parametrize(
    ("args", "environ", "is_dirty"),
    [
        (("build", "one"), {}, False),
        (("build", "--force"), {}, False),
        (("build",), {}, True),
        (("build",), {"LAGO_IMAGES_PROMOTE": "never"}, False),
        (("ci", "rebuild", "--all"), {}, False),
        (("ci", "build", "one"), {}, False),
        (("try", "one"), {}, False),
    ],
)
def test_where_finished_images_are_built_again_nothing_else_is_promised(
    repo, args, environ, is_dirty
):
    need("7zz")
    repo.write("one.img", random.Random("one").randbytes(48 * MIB))
    repo.spec("one", "simple:one.img")
    repo.commit()
    if is_dirty:
        repo.spec("one", "simple:one.img", "#notes=not committed")
    rest = interrupted(repo, "one: compressing", *args, **environ)
    assert AGAIN in rest


def test_a_publication_that_is_interrupted_says_that_it_can_be_published_again(repo, tmp_path):
    repo.disk("one.img")
    repo.spec("one", "simple:one.img")
    repo.commit()
    assert repo.run("ci", "build", "one").code == 0
    (repo.root / "key.asc").write_text("a key")
    program = tmp_path / "bin/gpg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 1000\n")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    signing = {"PATH": path, "LAGO_IMAGES_SIGNING_KEY": "file:key.asc"}
    with building(repo, "ci", "publish", **signing) as run:
        limit = time.monotonic() + HANGS
        while not (tmp_path / "started").exists() and time.monotonic() < limit:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
        assert run.wait() == 130, rest
    assert "next: the same command publishes the rest" in rest
    ran = repo.run("ci", "publish")
    assert (ran.code, "one: released revision 1" in ran.out) == (0, True), ran.err


@pytest.fixture
def silent():
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_does_not_wait_for_a_silent_server(repo, tmp_path, silent, number):
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/disk.img"
    repo.spec("one", f"simple:{url}", f"#base-checksum=sha256:{'0' * 64}")
    repo.commit()
    with building(repo) as run:
        connection, _ = silent.accept()
        run.send_signal(number)
        rest = run.stderr.read()
        # The connection is ended by the end of the process, and not by a time limit.
        assert run.wait() == 130, rest
        connection.close()
    assert is_left_as_told(tmp_path / "scratch", rest)
    # The next run removes what is left.
    (repo.root / "image-specs/one").unlink()
    repo.disk("disk.img")
    repo.spec("two", "simple:disk.img")
    repo.commit()
    done = repo.run("build", environ={"TMPDIR": str(tmp_path / "scratch")})
    assert done.code == 0, done.err
    assert list((tmp_path / "scratch").iterdir()) == []


def with_endless_qemu_img(folder):
    """Return a PATH whose qemu-img does not end, also when it is asked to."""
    folder.mkdir()
    program = folder / "qemu-img"
    program.write_text("#!/bin/sh\ntrap '' TERM\necho started >&2\nwhile :; do sleep 1; done\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_an_interrupt_ends_a_reproduction(repo, tmp_path):
    repo.disk("disk.img")
    repo.spec("one", "simple:disk.img")
    repo.commit()
    assert repo.run("ci", "rebuild", "--changed").code == 0
    path = with_endless_qemu_img(tmp_path / "bin")
    with building(repo, "repo", "reproduce", "one", PATH=path) as run:
        read_until(run, "one: preparing")
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
        assert run.wait() == 130, rest
    assert is_left_as_told(tmp_path / "scratch", rest)
    assert left_running(str(tmp_path)) == []


def test_a_second_ctrl_c_ends_at_once(repo, tmp_path):
    """Also where the first is being obeyed: a program that does not end takes a moment."""
    repo.disk("disk.img")
    repo.spec("one", "simple:disk.img")
    repo.commit()
    with building(repo, PATH=with_endless_qemu_img(tmp_path / "bin")) as run:
        read_until(run, "one: preparing")
        run.send_signal(signal.SIGINT)
        read_until(run, "once more ends at once")
        run.send_signal(signal.SIGINT)
        assert run.wait() == 130
    assert left_running(str(tmp_path)) == []


_STARTS = """
import os, sys, threading, time
from lago_images.host.process import Children

children = Children()

def start():
    while True:
        children.start(["sleep", "1000"])

for _ in range(3):
    threading.Thread(target=start, daemon=True).start()
time.sleep(float(sys.argv[1]))
Children.kill_all()
os._exit(0)
"""


@pytest.mark.parametrize("seconds", [0.02, 0.03, 0.05, 0.07, 0.1])
def test_a_program_that_is_just_being_started_ends_too(tmp_path, seconds):
    """Here without the kernel's signal for children whose parent died, which may come too early."""
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", _STARTS, str(seconds)], env=environ, check=True)
    assert left_running(str(tmp_path)) == []
