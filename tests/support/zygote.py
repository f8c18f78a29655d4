"""The real command line in processes that start in milliseconds.

    python -P tests/support/zygote.py NUMBER PROGRAM

imports the command line once and forks for each call, so every call is a process of its own, with
nothing but the imports and the compiled templates of pages shared. It refuses another command line
than ``PROGRAM``, the package's file: it is started without this folder in front of what
``PYTHONPATH`` says.

``tests.support.calls`` speaks to it by the socket of that number, which keeps messages apart: a
call is one message, which arrives whole or not at all. It is JSON with ``args``, ``cwd`` and
``environ``, and perhaps ``first``: a function that is called with the call's socket and ``with``
before the command. With it come four open files: a socket of the call's own, stdin, stdout and
stderr. By that socket ``{"pid": …}`` is answered; after one byte the command runs, or, if it is
closed, never; ``{"status": …}`` comes at its end, as ``os.waitpid`` tells it. Of any other message
the files are closed, and that is all.
"""

import atexit
import gc
import json
import os
import selectors
import signal
import socket
import stat
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
# A socket that keeps messages apart holds no larger ones, whatever the system's settings.
_LARGEST = 1 << 24

# What commands import when they need it.
_LATER = (
    "lago_images.building.image",
    "lago_images.ci.attestations",
    "lago_images.ci.report.notices",
    "lago_images.jobs.rebuild",
    "lago_images.planning.upstream",
    "lago_images.repository.statements.sbom",
    "lago_images.storage.s3.store",
)
# What rendering compiles.
_TEMPLATES = ("catalogue.html", "feed.xml", "image.html")


def share_imports() -> None:
    from lago_images.cli.main import LazyGroup, main

    def load(group: LazyGroup) -> None:
        for name in group.lazy:
            command = group.real_command(name)
            if isinstance(command, LazyGroup):
                load(command)

    load(main)
    for module in _LATER:
        import_module(module)
    from lago_images.repository.rendering import html

    for template in _TEMPLATES:
        html._environment().get_template(template)


def serve(door: socket.socket) -> None:
    # Ctrl-C in a terminal is for the commands, and for whoever calls them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    share_imports()
    gc.freeze()
    running: dict[int, tuple[int, socket.socket]] = {}
    waiting = selectors.DefaultSelector()
    waiting.register(door, selectors.EVENT_READ)
    while True:
        for ready, _ in waiting.select():
            if ready.fd != door.fileno():
                pid, own = running.pop(ready.fd)
                waiting.unregister(ready.fd)
                os.close(ready.fd)
                _, status = os.waitpid(pid, 0)
                _answer(own, status=status)
                own.close()
                continue
            message, files, flags, _ = socket.recv_fds(door, _LARGEST, 4)
            if not message:
                return
            call = _parsed(message, files, flags)
            if call is None:
                for file in files:
                    os.close(file)
                continue
            own = socket.socket(fileno=files[0])
            pid = os.fork()
            if pid == 0:
                for number, (_, other) in running.items():
                    os.close(number)
                    other.close()
                waiting.close()
                door.close()
                _child(call, own, files[1:])
            for file in files[1:]:
                os.close(file)
            end = os.pidfd_open(pid)
            running[end] = (pid, own)
            waiting.register(end, selectors.EVENT_READ)
            _answer(own, pid=pid)


def _parsed(message: bytes, files: list[int], flags: int) -> dict[str, Any] | None:
    """The call in a message; None for one that nobody could answer."""
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(files) != 4:
        return None
    try:
        call = json.loads(message)
    except ValueError:
        return None
    is_call = isinstance(call, dict) and call.keys() >= {"args", "cwd", "environ"}
    return call if is_call and stat.S_ISSOCK(os.fstat(files[0]).st_mode) else None


def _answer(own: socket.socket, **answer: int) -> None:
    try:
        own.sendall(json.dumps(answer).encode() + b"\n")
    except OSError:
        # Whoever called has ended.
        return


def _child(call: dict, own: socket.socket, files: list[int]) -> NoReturn:
    code = 1
    try:
        if not own.recv(1):
            # Whoever called was interrupted.
            sys.exit(1)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(call["environ"])
        time.tzset()
        os.chdir(call["cwd"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv[1:] = call["args"]
        if first := call.get("first"):
            module, _, name = first.partition(":")
            getattr(import_module(module), name)(own, **call["with"])
        from lago_images.cli.main import main

        main()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
    except BaseException:  # noqa: BLE001 -- a child of a fork must not return
        traceback.print_exc()
    finally:
        _end(code)


def _end(code: int) -> NoReturn:
    """End as Python does: threads first, then what was registered, then the streams."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _refuse_other_program(wanted: str) -> None:
    import lago_images

    if not Path(lago_images.__file__).samefile(wanted):
        sys.exit(f"the tests are of {wanted}, and Python finds {lago_images.__file__}")


if __name__ == "__main__":
    _refuse_other_program(sys.argv.pop())
    # For functions that are called before a command.
    sys.path.insert(0, str(ROOT))
    serve(socket.socket(fileno=int(sys.argv.pop())))
