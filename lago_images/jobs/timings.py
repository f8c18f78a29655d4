"""Write, as JSON, how long each phase of each image took in a run."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import msgspec

from lago_images.building.model import Phase, Result
from lago_images.repository.records.fields import Name
from lago_images.repository.records.manifest import canonical
from lago_images.repository.records.parsing import Count, Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of a phase: when it began, in seconds since the run did, and how long it took."""

    phase: Phase
    start: Seconds
    seconds: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTimings:
    """An image's time.

    Attributes:
        outcome: ``skipped`` when its base failed before it was finished.
        start: When it began, in seconds since the run did; null when it did not.
        seconds: From there to its end, waiting included.
        expected: Seconds that its published build took; null without one.
        size: Bytes of the finished disk; null when there is none.
        compressed_size: Bytes of what was uploaded.
    """

    name: Name
    arch: Name
    outcome: Literal["built", "failed", "skipped"]
    start: Seconds | None
    seconds: Seconds
    expected: Seconds | None
    size: Count | None
    compressed_size: Count | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """The times of a run, which began ``started`` seconds after the epoch."""

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a file of timings"

    started: Seconds
    seconds: Seconds
    images: tuple[ImageTimings, ...]


def timings(results: Iterable[Result]) -> Timings:
    """Return the times of a run's builds, from the first one's start to the last one's end."""
    ended = list(results)
    begun = [each for each in ended if each.start_time is not None]
    started = min((each.start_time or 0 for each in begun), default=0.0)
    last = max(((each.start_time or 0) + each.seconds for each in begun), default=started)
    return Timings(
        started=round(started, 3),
        seconds=round(last - started, 3),
        images=tuple(_image(each, started) for each in ended),
    )


def to_json(results: Iterable[Result]) -> bytes:
    """Write the times of a run's builds as JSON."""
    return canonical({"schema": Timings.SCHEMA, **msgspec.to_builtins(timings(results))})


def _image(result: Result, started: float) -> ImageTimings:
    disk = result.manifest.disk if result.manifest else None
    return ImageTimings(
        name=result.name,
        arch=result.arch,
        outcome="built" if result.ok else "skipped" if result.skipped else "failed",
        start=None if result.start_time is None else round(result.start_time - started, 3),
        seconds=round(result.seconds, 3),
        expected=result.expected,
        size=disk.size if disk else None,
        compressed_size=disk.compressed_size if disk else None,
        steps=tuple(
            Step(
                phase=each.phase,
                start=round(each.start_time - started, 3),
                seconds=round(each.seconds, 3),
            )
            for each in sorted(result.times, key=lambda each: each.start_time)
        ),
    )
