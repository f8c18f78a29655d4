"""Attempts and pauses as numbers."""

import pytest

from lago_images.errors import StorageError
from lago_images.host.retry import RetryPolicy


def pauses_of(asked=0.0, **more):
    pauses = []
    policy = RetryPolicy(sleep=pauses.append, chance=lambda: 0, **more)
    for attempt in range(1, 6):
        policy.wait(attempt, asked=asked)
    return pauses


def test_pauses_grow_up_to_the_longest():
    assert pauses_of(delay=1, longest=6, jitter=0) == [1, 2, 4, 6, 6]
    assert pauses_of(delay=1, factor=3, longest=100, jitter=0) == [1, 3, 9, 27, 81]


@pytest.mark.parametrize(("jitter", "least"), [(0, 8), (0.5, 4), (1, 0)])
def test_jitter_shortens_a_pause_by_its_share_at_most(jitter, least):
    assert pauses_of(delay=8, longest=8, jitter=jitter) == [least] * 5


@pytest.mark.parametrize(("asked", "waited"), [(0.0, 1.0), (0.5, 1.0), (30.0, 30.0), (9e9, 60.0)])
def test_a_requested_pause_is_kept_up_to_a_limit(asked, waited):
    assert set(pauses_of(asked, delay=1, longest=1, jitter=0)) == {waited}


def failing(times, calls):
    def call():
        calls.append(1)
        if len(calls) <= times:
            raise StorageError(f"failure {len(calls)}")
        return "done"

    return call


def test_a_failing_call_is_made_as_often_as_allowed():
    policy, calls = RetryPolicy(attempts=3, sleep=lambda _: None), []
    assert policy.call(failing(2, calls), lambda _: 0) == "done"
    calls.clear()
    with pytest.raises(StorageError, match="failure 3"):
        policy.call(failing(9, calls), lambda _: 0)
    assert len(calls) == 3


def test_a_permanent_failure_is_not_retried():
    calls = []
    with pytest.raises(StorageError, match="failure 1"):
        RetryPolicy().call(failing(9, calls), lambda _: None)


def test_a_long_failure_is_reported_once():
    told = []
    policy = RetryPolicy(attempts=9, sleep=lambda _: None, tell=told.append)
    policy.call(failing(8, []), lambda _: 0)
    assert told == ["failure 6: trying again for some minutes"]
