"""Tells of each change to files before it is made, in the process that makes it."""

import os
import socket
import sys
import threading

_EVENTS = (
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.utime",
    "fcntl.flock",
)


def watch(own: socket.socket, below: str) -> None:
    """Say by a socket that files below a folder are about to be changed, and wait for leave."""
    sys.addaudithook(_Changes(own, below).see)


class _Changes:
    """Python tells of each change before it makes the system call."""

    def __init__(self, own: socket.socket, below: str) -> None:
        self.own, self.below, self.count = own.detach(), below, 0
        self.lock = threading.Lock()

    def see(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = self.below in str(path) and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
        elif event in _EVENTS:
            # Some are told with a path, some with an open file's number or a part of a path.
            changes = event in ("os.utime", "fcntl.flock", "os.rmdir", "os.remove") or any(
                self.below in str(argument) for argument in arguments
            )
        else:
            return
        if changes:
            with self.lock:
                self.count += 1
                os.write(self.own, b'{"change": %d}\n' % self.count)
                os.read(self.own, 1)
