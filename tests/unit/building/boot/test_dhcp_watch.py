"""What is heard of a guest through the FIFO that QEMU writes its packets to."""

import os
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from lago_images.building.boot import dhcp_watch
from lago_images.building.boot.dhcp_watch import dhcp_watched
from lago_images.building.boot.monitor import Monitor
from tests.unit.building.boot.test_dhcp_packets import HARDWARE, MAC, capture, dhcp, option, over4


@pytest.fixture
def monitor():
    """One of a QEMU that removes what it is told to."""
    (asked, send), (receive, answers) = os.pipe(), os.pipe()
    os.write(answers, b'{"QMP": {}}\n{"return": {}}\n{"return": {}}\n')
    yield Monitor(send=send, receive=receive)
    assert b'"object-del", "arguments": {"id": "dhcp"}' in os.read(asked, 2**16)
    for end in (asked, send, receive, answers):
        os.close(end)


@contextmanager
def qemu(watch):
    """The file that QEMU writes a capture to."""
    name = re.search(r"file=(.*)$", watch.options[1])[1].replace(",,", ",")
    with Path(name).open("wb", buffering=0) as file:
        yield file


def test_what_a_guest_sends_is_heard(tmp_path, monitor):
    folder = tmp_path / "a, b"
    folder.mkdir()
    named = over4(dhcp(option(61, b"\x01" + MAC)))
    with dhcp_watched(folder) as watch:
        with qemu(watch) as file:
            for piece in (capture()[:9], capture(b"noise", over4(dhcp()))[9:], b""):
                file.write(piece)
            file.write(capture(named)[24:])
        assert watch.end(monitor) == {HARDWARE, "client id 01:52:54:00:12:34:01"}
    assert list(folder.iterdir()) == []


def test_a_flood_is_read_and_no_longer_looked_at(tmp_path, monitor, monkeypatch):
    monkeypatch.setattr(dhcp_watch, "_MOST", 2**16)
    with dhcp_watched(tmp_path) as watch:
        with qemu(watch) as file:
            file.write(capture(over4(dhcp())))
            # More than a FIFO holds.
            for _ in range(40):
                file.write(capture(*[bytes(1000)] * 60)[24:])
            file.write(capture(over4(dhcp(mac=b"\x02" * 6)))[24:])
        assert watch.end(monitor) == {HARDWARE}


def test_a_guest_of_many_names_is_not_listened_to_for_ever(tmp_path, monitor):
    with dhcp_watched(tmp_path) as watch:
        with qemu(watch) as file:
            many = [over4(dhcp(mac=b"\x02" + n.to_bytes(5, "big"))) for n in range(1000)]
            file.write(capture(*many))
        assert len(watch.end(monitor)) == dhcp_watch._MOST_FOUND


def test_what_is_no_capture_is_not_looked_at(tmp_path, monitor):
    with dhcp_watched(tmp_path) as watch:
        with qemu(watch) as file:
            file.write(b"x" * 100)
            file.write(capture(over4(dhcp())))
        assert watch.end(monitor) == frozenset()


def test_a_guest_that_never_starts_is_not_waited_for(tmp_path):
    with dhcp_watched(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
