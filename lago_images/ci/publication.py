"""How a publication ended, as JSON: what the job that publishes tells the one that reports."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from lago_images.ci.publish_job import PublicationOutcome
from lago_images.console import whole
from lago_images.host import files
from lago_images.planning.model import WORK, Plan
from lago_images.repository.manifest import canonical
from lago_images.repository.parsing import parse
from lago_images.repository.releasing import Verdict

FILE = "publication.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of an image that was to be released.

    ``verdict`` is None when that did not happen; ``why`` says why.
    """

    name: str
    verdict: Verdict | None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """How the publication of the plan made at ``head``, at the time ``made``, ended."""

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a record of a publication"

    head: str | None
    made: int
    images: tuple[Fate, ...]


def fates(published: PublicationOutcome) -> list[Fate]:
    """Of every image of a publication."""
    return [
        *(Fate(name=name, verdict=each.verdict) for name, each in published.outcomes.items()),
        *(Fate(name=name, verdict=None, why="it has no build") for name in published.missing),
        *(Fate(name=name, verdict=None, why=why) for name, why in published.failed.items()),
    ]


def stopped(made: Plan, why: str) -> list[Fate]:
    """Of every image of a plan whose publication ended before it could tell."""
    return [
        Fate(name=image.name, verdict=None, why=why)
        for image in made.images
        if image.action in WORK
    ]


def write(folder: Path, made: Plan, told: Iterable[Fate]) -> None:
    """Write how the publication of a plan ended beside the results; makes the folder if needed."""
    plain = [{"name": t.name, "verdict": t.verdict, "why": whole(t.why)} for t in told]
    document = {"schema": Publication.SCHEMA, "head": made.head, "made": made.made, "images": plain}
    files.replace(folder / FILE, canonical(document))


def read(folder: Path, made: Plan) -> Mapping[str, Fate] | None:
    """By name, what the publication of a plan told; None when it did not, or another's did.

    Raises ``RepositoryError`` when the file is not one this version knows.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    document = parse(path.read_bytes(), Publication, FILE, strict=False)
    if (document.head, document.made) != (made.head, made.made):
        return None
    return {fate.name: replace(fate, why=whole(fate.why)) for fate in document.images}
