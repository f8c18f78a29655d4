"""Threads side by side: who waits for them, and who does not."""

import signal
import threading
from concurrent.futures import wait
from contextlib import suppress

import pytest

from lago_images.host import threads
from lago_images.host.threads import UNAWAITED, result, side_by_side, undo


@pytest.fixture
def interruptible():
    """Ctrl-C raises, whatever a command of another test left as its handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def go():
    """What calls wait for; none is left when a test has ended."""
    event = threading.Event()
    yield event
    event.set()
    for thread in threading.enumerate():
        if thread.name.startswith(UNAWAITED):
            thread.join()


@pytest.fixture
def go_when_awaited(go, monkeypatch):
    """Let calls go on as soon as somebody waits for them, and no earlier."""

    def awaited(*args):
        go.set()
        return wait(*args)

    monkeypatch.setattr(threads, "wait", awaited)
    return go


def test_results_come_in_the_order_of_the_values():
    with side_by_side(3, "test") as workers:
        assert list(workers.map(str, range(100))) == [str(number) for number in range(100)]


@pytest.mark.usefixtures("go_when_awaited")
def test_a_block_ends_after_its_calls(go):
    with side_by_side(1, "test") as workers:
        future = workers.submit(go.wait)
    assert future.done()


@pytest.mark.usefixtures("go_when_awaited")
def test_an_error_ends_it_after_the_calls_that_were_begun(go):
    begun = threading.Event()

    def write():
        begun.set()
        return go.wait()

    def fail(workers):
        futures.extend([workers.submit(write), workers.submit(write)])
        begun.wait()
        raise ValueError

    futures = []
    with pytest.raises(ValueError), side_by_side(1, "test") as workers:
        fail(workers)
    assert futures[0].result()
    assert futures[1].cancelled()


def test_ctrl_c_waits_for_no_call(go):
    def interrupt(workers):
        futures.extend([workers.submit(go.wait), workers.submit(go.wait)])
        raise KeyboardInterrupt

    futures = []
    with pytest.raises(KeyboardInterrupt), side_by_side(1, "test") as workers:
        interrupt(workers)
    assert not futures[0].done()
    assert futures[1].cancelled()
    # By which the command line knows whom it leaves behind.
    assert any(each.name.startswith(f"{UNAWAITED}-test") for each in threading.enumerate())


@pytest.mark.usefixtures("go_when_awaited")
def test_the_end_of_an_image_in_a_thread_of_its_own_waits(go):
    """The program goes on, and what is still sent of it would be in the way of its removal."""
    futures = []

    def end(workers):
        futures.append(workers.submit(go.wait))
        raise KeyboardInterrupt

    def work():
        with suppress(KeyboardInterrupt), side_by_side(1, "test") as workers:
            end(workers)
        futures.append(futures[0].done())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert futures[1]


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("ask", [result, lambda _future: None], ids=["result", "end"])
def test_a_signal_that_a_worker_takes_wakes_who_waits(go, ask):
    """The system may give a process's signal to any of its threads."""

    def take():
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        go.wait()

    with pytest.raises(KeyboardInterrupt), side_by_side(1, "test") as workers:
        ask(workers.submit(take))


def test_what_an_error_left_is_undone_and_ctrl_c_gives_it_a_moment(go):
    done = []
    for error in (ValueError(), KeyboardInterrupt()):
        undo(error, lambda: done.append(threading.current_thread()))
    assert len(done) == 2
    undo(KeyboardInterrupt(), lambda: done.append(go.wait()))
    assert len(done) == 2
    with pytest.raises(ZeroDivisionError):
        undo(ValueError(), lambda: 1 // 0)
