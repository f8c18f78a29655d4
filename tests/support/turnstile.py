"""Let a seed choose whose request goes next: any run of several actors, and the same one again.

Each actor works in a thread of its own, and asks here before every request to its store. A turn is
given only when every actor that is still at work waits for one: then the request before it has
ended, one request is under way at a time, and the order depends on the seed alone.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

# Seconds that nothing happens in: a fault of the test, which is told instead of waiting for ever.
_LIMIT = 300.0
# How often each actor's turn comes, beside the others'; and how often that changes.
_PACES = (1, 8, 64)
_CHANGE_OF_PACE = 0.05
_REQUESTS = frozenset(
    {"list", "head", "get", "read", "download", "put", "upload", "copy", "delete", "unfinished"}
)


class StuckError(AssertionError):
    """An actor neither asked for a turn nor ended."""


class KilledError(BaseException):
    """An actor died before a request; it makes none any more."""


class Turnstile:
    """Gives the turns. ``order`` has the actors whose requests went, in order.

    ``deaths`` has the number of requests after which an actor dies.
    """

    def __init__(self, seed: int, deaths: Mapping[str, int] | None = None) -> None:
        self._deaths = deaths or {}
        self._random = random.Random(seed)
        # One lock, and a condition of its own for each who waits: a turn wakes one thread, not all.
        self._lock = threading.Lock()
        self._all_wait = threading.Condition(self._lock)
        self._turns: dict[str, threading.Condition] = {}
        self._waiting: set[str] = set()
        self._at_work: set[str] = set()
        self._everybody: list[str] = []
        self._pace: dict[str, int] = {}
        self._turn = ""
        self._requests: Counter[str] = Counter()
        self.order: list[str] = []

    def step(self, actor: str) -> None:
        """Wait for the actor's turn; outside ``run`` it goes at once."""
        with self._lock:
            if actor not in self._at_work:
                return
            if self._requests[actor] >= self._deaths.get(actor, len(self.order) + 1):
                raise KilledError(actor)
            assert actor not in self._waiting, f"{actor} asks for two turns at once"
            self._waiting.add(actor)
            self._wake_if_all_wait()
            if not self._turns[actor].wait_for(lambda: self._turn == actor, timeout=_LIMIT):
                raise StuckError(f"{actor} waits for a turn that never comes: {self.order}")
            self._turn = ""

    def run(self, actors: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Run every actor to its end; return what each returned or raised, by name."""
        self._at_work, self._everybody = set(actors), sorted(actors)
        self._turns = {name: threading.Condition(self._lock) for name in actors}
        ended: dict[str, Any] = {}

        def work(name: str, call: Callable[[], Any]) -> None:
            try:
                ended[name] = call()
            except BaseException as error:  # noqa: BLE001 -- judged by the test, not in its thread
                ended[name] = error
            finally:
                with self._lock:
                    self._at_work.discard(name)
                    self._wake_if_all_wait()

        threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in actors.items()]
        for thread in threads:
            thread.start()
        while self._give_turn():
            pass
        for thread in threads:
            thread.join(_LIMIT)
        return ended

    def _wake_if_all_wait(self) -> None:
        if self._waiting >= self._at_work:
            self._all_wait.notify()

    def _give_turn(self) -> bool:
        with self._lock:
            if not self._all_wait.wait_for(lambda: self._waiting >= self._at_work, timeout=_LIMIT):
                raise StuckError(f"{self._at_work - self._waiting} is stuck: {self.order}")
            if not self._at_work:
                return False
            self._turn = self._choose()
            # It works from now on, so that no other turn is given before it asks again or ends.
            self._waiting.discard(self._turn)
            self.order.append(self._turn)
            self._requests[self._turn] += 1
            self._turns[self._turn].notify()
            return True

    def _choose(self) -> str:
        """Let one actor race ahead and another stand still for a while: that is where races are."""
        names = sorted(self._at_work)
        if not self._pace or self._random.random() < _CHANGE_OF_PACE:
            self._pace = {name: self._random.choice(_PACES) for name in self._everybody}
        return self._random.choices(names, [self._pace[name] for name in names])[0]


class GatedStore:
    """A store whose every request waits for its actor's turn."""

    def __init__(self, store: Any, turnstile: Turnstile, actor: str) -> None:
        self._store, self._turnstile, self._actor = store, turnstile, actor

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if name not in _REQUESTS:
            return value

        def call(*args: Any, **named: Any) -> Any:
            if name == "delete":
                keys = list(args[0])
                # A key is a request, as it is in a bucket.
                for key in keys:
                    self._turnstile.step(self._actor)
                    value([key])
                return None
            self._turnstile.step(self._actor)
            answer = value(*args, **named)
            # A listing is one request, not one that goes on while others write.
            return iter(list(answer)) if name in {"list", "unfinished", "read"} else answer

        return call


def gate_requests(store: Any, turnstile: Turnstile, actor: str) -> Any:
    """Make every request of a store in a bucket wait for its actor's turn; return the store."""

    def wait(**_event: Any) -> None:
        turnstile.step(actor)

    for client in (store.bucket.small, store.bucket.bulk, store.bucket.patient):
        client.meta.events.register_first("before-send.s3", wait)
    return store


class OneByOne:
    """Stands in for ``side_by_side``: requests side by side would come in chance's order."""

    def __init__(self, *_args: Any, **_named: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None: ...

    def map(self, call: Callable[..., Any], *values: Iterable[Any]) -> Iterable[Any]:
        return iter([call(*some) for some in zip(*values, strict=False)])
