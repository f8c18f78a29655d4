"""Work side by side in threads that an interrupted run does not wait for."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait  # noqa: TID251
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

# The prefix of the names of threads that the command line leaves behind after Ctrl-C. Python's own
# end joins the threads of every pool, and one of them may wait for a server that never answers.
UNAWAITED = "unawaited"
# Seconds after which a signal is obeyed at the latest. Another thread may have got it, or this one
# just before it waited: then nothing but the time wakes it.
POLL = 0.2
# Seconds that ``undo`` has when the program ends.
_MOMENT = 0.7

_P = ParamSpec("_P")
_T = TypeVar("_T")
_V = TypeVar("_V")


class Workers:
    """Threads for the calls of one block; see ``side_by_side``."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._begun: set[Future[Any]] = set()

    def submit(self, call: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> Future[_T]:
        """Let a call begin as soon as a thread is free."""
        future = self._pool.submit(call, *args, **named)
        self._begun.add(future)
        future.add_done_callback(self._begun.discard)
        return future

    def map(self, call: Callable[[_V], _T], values: Iterable[_V]) -> Iterator[_T]:
        """Let a call with each value begin; return an iterator of their results, in that order."""
        futures = deque([self.submit(call, value) for value in values])
        # Each is let go of when it was asked for: results may be large.
        return (result(futures.popleft()) for _ in range(len(futures)))

    def settle(self) -> None:
        """Wait for the end of all calls, and of the threads."""
        while begun := tuple(self._begun):
            wait(begun, POLL)
        self._pool.shutdown()


@contextmanager
def side_by_side(count: int, name: str) -> Generator[Workers]:
    """Yield ``count`` threads; the block ends when all of their calls have ended.

    After an error, too: nothing is written behind the back of whoever handles it; calls that have
    not begun are dropped. Ctrl-C in the main thread waits for none, which is as if the program had
    crashed: the next one makes good what they leave.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix=f"{UNAWAITED}-{name}")
    workers = Workers(pool)
    try:
        yield workers
        workers.settle()
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        if not is_leaving(error):
            workers.settle()
        raise


def result(future: Future[_T]) -> _T:
    """Wait for the end of a call; return or raise what it did."""
    while not future.done():
        wait([future], POLL)
    return future.result()


def is_leaving(error: BaseException) -> bool:
    """Tell whether an error ends the program, or a generator that nobody reads any more.

    In other threads ``KeyboardInterrupt`` ends the work of an image, and the program goes on.
    """
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and isinstance(error, (KeyboardInterrupt, GeneratorExit))


def undo(error: BaseException, work: Callable[[], object]) -> bool:
    """Undo what an error left half done; where it ends the program, for no more than a moment.

    Returns whether the work has ended.
    """
    if not is_leaving(error):
        work()
        return True
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"{UNAWAITED}-undo")
    ended = wait([pool.submit(work)], _MOMENT).done
    pool.shutdown(wait=False)
    return bool(ended)
