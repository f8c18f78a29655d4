"""How long a finished build waits for its store, as numbers."""

import io
import threading
from dataclasses import replace

import pytest

from lago_images.building.upload import retry_policy
from lago_images.console import Console
from lago_images.host.process import Children


def test_a_failed_upload_is_retried_for_three_minutes_and_reported_once():
    said, pauses = io.StringIO(), []
    made = retry_policy(Children(), Console(stream=said))
    quick = replace(made, sleep=pauses.append, chance=lambda: 0)
    assert quick.first == quick.attempts
    for attempt in range(1, quick.attempts):
        quick.wait(attempt, "uploading part 7: the store answered 503")
    assert 180 <= sum(pauses) < 300
    assert said.getvalue().count("part 7: the store answered 503: trying again") == 1


def test_ctrl_c_ends_the_wait_between_attempts():
    children = Children()
    timer = threading.Timer(0.1, children.end)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        replace(retry_policy(children, Console(quiet=True)), delay=60, longest=60).wait(1, "")
    timer.join()
