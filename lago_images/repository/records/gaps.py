"""Find what a history lost: a revision is taken only when all before it are."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lago_images.console import first_of
from lago_images.repository.records.layout import RELEASES, ImageId, ReleaseKey

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Gap:
    """Name revisions of an image that are lost, all from ``first`` to ``last``."""

    name: str
    arch: str
    first: int
    last: int

    @property
    def image(self) -> ImageId:
        return ImageId(self.name, self.arch)

    @property
    def key(self) -> ReleaseKey:
        """Return the first release that is lost."""
        return ReleaseKey(name=self.name, arch=self.arch, revision=self.first)

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def gaps(image: ImageId, taken: Iterable[int]) -> Iterator[Gap]:
    """Yield what is lost between the numbers that are taken, ascending.

    Whoever writes to a bucket may give a record any number: these are as many as there are records.
    """
    before = 0
    for number in sorted(taken):
        if number > before + 1:
            yield Gap(name=image.name, arch=image.arch, first=before + 1, last=number - 1)
        before = number


def by_image(missing: Iterable[Gap]) -> dict[ImageId, str]:
    """Name what is missing of each image, in one line."""
    sorted_out: dict[ImageId, list[Gap]] = {}
    for gap in missing:
        sorted_out.setdefault(gap.image, []).append(gap)
    return {image: _line(image, its) for image, its in sorted_out.items()}


def warnings(missing: Iterable[Gap]) -> list[str]:
    """Return what a person is told of lost releases, a line an image."""
    return [f"{lost} is missing; restore it from a copy" for lost in by_image(missing).values()]


def _line(image: ImageId, its: list[Gap]) -> str:
    if len(its) == 1 and its[0].first == its[0].last:
        return str(its[0].key)
    numbers = first_of([str(gap) for gap in its], _SHOWN)
    return f"a part of {RELEASES}{image.name}/{image.arch}/ (revisions {numbers})"
