"""A guest that comes to an end while something is waited for: here, one that never answers."""

import itertools
import os
from dataclasses import replace

import pytest

from lago_images.building.boot.guest_agent import Agent
from lago_images.building.boot.monitor import Monitor
from lago_images.building.boot.running import Guest, Watch
from lago_images.errors import BootError


@pytest.fixture
def guest(tmp_path):
    """Its clock tells a second more each time; its console has a panic."""
    (tmp_path / "console").write_text("[    9.1] Kernel panic - not syncing: on purpose\n")
    seconds = itertools.count(0.0, 1.0)
    watch = Watch(
        console=tmp_path / "console",
        errors=tmp_path / "errors",
        limit=3600.0,
        clock=lambda: next(seconds),
    )
    (unread, send), (receive, silent), (answers, qemu) = os.pipe(), os.pipe(), os.pipe()
    os.write(qemu, b'{"QMP": {}}\n{"return": {}}\n{"return": {}}\n')
    yield Guest(
        agent=Agent(send=send, receive=receive, clock=watch.clock),
        monitor=Monitor(send=send, receive=answers),
        ended=lambda: None,
        watch=watch,
        mac="",
        is_emulated=False,
    )
    for end in (unread, send, receive, silent, answers, qemu):
        os.close(end)


def ends(guest, code, reason):
    """Have QEMU end when the guest is told to shut down, and tell why."""
    event = f'{{"event": "SHUTDOWN", "data": {{"guest": true, "reason": "{reason}"}}}}\n'
    answers, qemu = os.pipe()
    os.write(qemu, b'{"return": {}}\n' * 2 + (event.encode() if reason else b""))
    os.close(qemu)
    guest.monitor = Monitor(send=guest.agent.send, receive=answers)
    guest.ended = lambda: code


@pytest.mark.parametrize("reason", ["guest-shutdown", ""])
def test_a_guest_that_shuts_down(guest, reason):
    ends(guest, 0, reason)
    assert guest.power_off(60)


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        (-11, "", "QEMU ended with exit code -11 while the guest shut down"),
        (0, "guest-reset", "did not end by that, but by guest-reset"),
        (0, "guest-panic", "did not end by that, but by guest-panic"),
    ],
)
def test_a_guest_that_ends_otherwise_was_not_shut_down(guest, code, reason, told):
    ends(guest, code, reason)
    with pytest.raises(BootError, match=told):
        guest.power_off(60)


WAITS = {
    "start": Guest.wait,
    "agent": lambda guest: guest.agent.settle(timeout=3600),
    "program": lambda guest: guest.agent.run(("/bin/true",), timeout=3600),
    "units": lambda guest: guest.agent.wait_for_units(3600),
    "anything": lambda guest: guest.agent.until(lambda: False, 3600),
    "shutdown": lambda guest: guest.power_off(3600),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_panic_ends_every_wait_at_once_and_is_what_is_reported(guest, wait):
    with pytest.raises(BootError, match="the guest gave up: Kernel panic - not syncing: on pur"):
        wait(guest)
    # Far less than any limit.
    assert guest.watch.clock() < 60


def test_a_guest_that_qemu_lost_is_not_waited_for(guest):
    guest.ended = lambda: 3
    with pytest.raises(BootError, match="QEMU ended by itself with exit code 3"):
        guest.agent.settle(timeout=3600)


def test_a_console_that_has_shown_its_text_is_enough_where_qemu_has_ended(guest):
    guest.watch = replace(guest.watch, pattern="on purpose")
    guest.ended = lambda: 0
    assert guest.wait() < 60
