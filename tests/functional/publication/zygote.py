"""The real command line in processes that start in milliseconds.

    python -m tests.functional.publication.zygote

imports the command line once and forks for each call, so every call is a process of its own,
with nothing but the imports shared. One JSON line in, with ``args``, ``cwd``, ``environ``,
``log``, and perhaps ``below`` and ``die_at``; ``{"pid": …}`` out; after the line ``go`` the
command runs; ``{"status": …}`` out at its end, as ``os.waitpid`` tells it.
"""

import json
import os
import signal
import sys
import traceback


def serve() -> None:
    from lago_images.cli import ci, main, repo  # noqa: F401 -- what is to be shared
    from lago_images.storage.s3 import store  # noqa: F401

    for line in sys.stdin:
        call = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            _child(call, reader)
        os.close(reader)
        print(json.dumps({"pid": pid}), flush=True)
        sys.stdin.readline()
        os.write(writer, b"g")
        os.close(writer)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": status}), flush=True)


def _child(call: dict, reader: int) -> None:
    code = 70
    try:
        os.read(reader, 1)
        os.environ.clear()
        os.environ.update(call["environ"])
        os.chdir(call["cwd"])
        log = os.open(call["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        from lago_images.cli.main import main

        if call.get("below"):
            sys.addaudithook(_Changes(call["below"], call["die_at"], call["log"]).see)
        main(call["args"])
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
    except BaseException:  # noqa: BLE001 -- a child of a fork must not return
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class _Changes:
    """Counts what changes files below a folder, and kills before one of these changes.

    Python tells of each before it makes the system call. The count is left beside the log.
    """

    _EVENTS = (
        "os.link",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.utime",
        "fcntl.flock",
    )

    def __init__(self, below: str, die_at: int, log: str) -> None:
        self.below, self.die_at, self.count = below, die_at, 0
        self.counter = os.open(log + ".count", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def see(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = self.below in str(path) and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
        elif event in self._EVENTS:
            # Some are told with a path, some with an open file's number or a part of a path.
            changes = event in ("os.utime", "fcntl.flock", "os.rmdir", "os.remove") or any(
                self.below in str(argument) for argument in arguments
            )
        else:
            return
        if changes:
            self.count += 1
            if self.count == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            os.pwrite(self.counter, b"%9d" % self.count, 0)


if __name__ == "__main__":
    serve()
