"""Listen to how a guest's DHCP clients make themselves known, as a server on its network would.

QEMU writes the packets of its network card into a FIFO, and a thread reads it: nothing is stored,
and a guest that never stops sending fills no disk, and does not stand still because nobody reads.
"""

import os
import select
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from lago_images.building.boot.dhcp_packets import LONGEST, Capture, CaptureError, identities
from lago_images.building.boot.monitor import Monitor
from lago_images.building.boot.running import NETDEV, quoted
from lago_images.errors import BootError

_ID = "dhcp"
# Bytes that are looked at, and identities that are kept: an honest guest has a thousandth of them.
_MOST, _MOST_FOUND = 16 * 2**20, 64
_PIECE = 2**16
# Seconds.
_POLL, _PATIENCE = 0.1, 10.0


class DhcpWatch:
    """Read a guest's packets from a file descriptor, in a thread of its own.

    Attributes:
        options: What QEMU hands the packets on by.
    """

    def __init__(self, options: tuple[str, ...], receive: int) -> None:
        self.options = options
        self._receive = receive
        self._found: set[str] = set()
        self._ended = Event()
        self._thread = Thread(target=self._read, name=_ID, daemon=True)
        self._thread.start()

    def end(self, monitor: Monitor) -> frozenset[str]:
        """Have QEMU hand on no more; return by what the guest's clients made themselves known.

        The names are those of ``dhcp_packets.identities``.
        """
        with suppress(BootError):
            monitor.ask("object-del", id=_ID)
        self.close()
        return frozenset(self._found)

    def close(self) -> None:
        """Read what has been written, and no more."""
        self._ended.set()
        self._thread.join(_PATIENCE)

    def _read(self) -> None:
        capture, left = Capture(), _MOST
        while True:
            if not select.select([self._receive], [], [], _POLL)[0]:
                if self._ended.is_set():
                    return
                continue
            data = os.read(self._receive, _PIECE)
            left -= len(data)
            if left > 0:
                left = left if self._take(capture, data) else 0

    def _take(self, capture: Capture, data: bytes) -> bool:
        """Look at the next packets; return whether there is any use in looking at more."""
        with suppress(CaptureError):
            for packet in capture.packets(data):
                self._found |= identities(packet)
                if len(self._found) >= _MOST_FOUND:
                    return False
            return True
        return False


@contextmanager
def dhcp_watched(folder: Path) -> Generator[DhcpWatch]:
    """Yield the watch of a guest that is started, and ends, within the block.

    A FIFO, and no socket, whose path would be too long somewhere.
    """
    path = folder / "boot-test.dhcp"
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    # For both directions: else QEMU's opening waits for a reader, or its first byte finds none.
    receive = os.open(path, os.O_RDWR)
    dump = f"filter-dump,id={_ID},netdev={NETDEV},maxlen={LONGEST},file={quoted(path)}"
    watch = DhcpWatch(("-object", dump), receive)
    try:
        yield watch
    finally:
        watch.close()
        os.close(receive)
        path.unlink(missing_ok=True)
