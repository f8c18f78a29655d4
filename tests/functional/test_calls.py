"""The forking server of the tests: it runs the program that is tested, and outlives its callers."""

import os
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import lago_images
from tests.support import calls, zygote
from tests.support.calls import Zygote

HELP = "Turn VM image specs in git"
# Python's own folders first: what is imported here is what a new interpreter would import.
CALLS_HELP = """
import os, sys, lago_images
sys.path.insert(0, sys.argv[1])
from tests.support import calls
print(calls.run(["--help"], os.curdir, os.environ, 300).stdout)
"""


@pytest.fixture
def server():
    made = Zygote()
    yield made
    made.end()


@pytest.fixture
def start(server, tmp_path):
    """Start a call; what it prints is in ``out``."""
    environ = {"PATH": os.environ["PATH"]}

    def of(*args):
        with (tmp_path / "out").open("wb") as out:
            return server.start(args, tmp_path, environ, out.fileno(), out.fileno())

    return of


@pytest.fixture
def copy(tmp_path):
    """The package, with other words in its help."""
    root = tmp_path / "copy"
    shutil.copytree(Path(lago_images.__file__).parent, root / "lago_images")
    main = root / "lago_images/cli/main.py"
    main.write_text(main.read_text().replace(HELP, "This is a copy that turns specs"))
    return root


@pytest.mark.parametrize(
    ("message", "files"),
    [(b'{"args": [', 4), (b"[]", 4), (b"\xff", 4), (b'{"args": []}', 4), (b"{}", 1), (b"g", 0)],
)
def test_a_broken_call_is_dropped_and_others_are_served(server, start, tmp_path, message, files):
    own, other = socket.socketpair()
    with own:
        with other:
            socket.send_fds(server._door, [message], [other.fileno()] * files)
        assert own.recv(1) == b""
    call = start("--help")
    call.begin()
    assert call.wait() == 0
    assert HELP in (tmp_path / "out").read_text()


def test_what_is_no_socket_gets_no_answer(server, start, tmp_path):
    whole = b'{"args": [], "cwd": "/", "environ": {}}'
    with (tmp_path / "file").open("wb") as file:
        socket.send_fds(server._door, [whole], [file.fileno()] * 4)
    call = start("--help")
    call.begin()
    assert call.wait() == 0


def test_a_call_whose_caller_was_interrupted_never_begins(start, tmp_path):
    call = start("man", "pages")
    end = os.pidfd_open(call.pid)
    call.answers.close()
    call.own.close()
    assert select.select([end], [], [], 300)[0]
    os.close(end)
    assert not (tmp_path / "pages").exists()
    again = start("man", "pages")
    again.begin()
    assert again.wait() == 0
    assert any((tmp_path / "pages").iterdir())


def test_the_program_is_the_one_that_pythonpath_leads_to(copy):
    environ = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, "-P", "-c", CALLS_HELP, str(zygote.ROOT)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "This is a copy" in ran.stdout


def test_another_program_than_that_of_the_tests_is_refused(copy, monkeypatch, tmp_path, capfd):
    monkeypatch.setitem(calls._ENVIRON, "PYTHONPATH", str(copy))
    server = Zygote()
    with pytest.raises(RuntimeError, match="forking server has ended"):
        server.start(["--help"], tmp_path, {}, 1, 2)
    server.end()
    assert f"and Python finds {copy}/lago_images/" in capfd.readouterr().err


def test_a_call_with_another_pythonpath_is_refused(server, copy, tmp_path):
    with pytest.raises(ValueError, match=r"need a Python that is started with them: .*PYTHONPATH"):
        server.start(["--help"], tmp_path, {"PYTHONPATH": str(copy)}, 1, 2)
