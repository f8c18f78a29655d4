import json

from lago_images.building.model import Phase, PhaseTime, Result
from lago_images.jobs import timings
from tests.support.builders import manifest


def test_times_are_since_the_start_of_the_run_and_in_order():
    results = [
        Result(
            name="one",
            arch="x86_64",
            manifest=manifest("one"),
            seconds=30.0,
            start_time=1000.0,
            expected=25,
            times=(
                PhaseTime(phase=Phase.BOOT, start_time=1010.0, seconds=5.0),
                PhaseTime(phase=Phase.BASE, start_time=1000.5, seconds=9.5),
            ),
        ),
        Result(name="two", arch="x86_64", manifest=None, seconds=4.0, start_time=1050.0, error="x"),
        Result(name="three", arch="x86_64", manifest=None, seconds=0, skipped="two"),
    ]
    written = json.loads(timings.to_json(results))
    assert (written["schema"], written["started"], written["seconds"]) == (1, 1000.0, 54.0)
    one, two, three = written["images"]
    assert one["steps"] == [
        {"phase": "base", "start": 0.5, "seconds": 9.5},
        {"phase": "boot", "start": 10.0, "seconds": 5.0},
    ]
    assert one["compressed_size"] == manifest("one").disk.compressed_size
    assert [each["outcome"] for each in (one, two, three)] == ["built", "failed", "skipped"]
    assert (two["start"], three["start"], two["size"]) == (50.0, None, None)
