"""How a publication ended, as JSON: what the job that publishes tells the one that reports."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lago_images.ci.publish_job import PublicationOutcome
from lago_images.console import whole
from lago_images.errors import RepositoryError
from lago_images.host.files import replace
from lago_images.planning.model import WORK, Plan
from lago_images.repository.manifest import canonical, refuse_newer
from lago_images.repository.parsing import parse_json
from lago_images.repository.releasing import Verdict

FILE = "publication.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of an image that was to be released.

    ``verdict`` is None when that did not happen; ``why`` says why.
    """

    name: str
    verdict: Verdict | None
    why: str = ""


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
    document = {"schema": SCHEMA, "head": made.head, "made": made.made, "images": plain}
    replace(folder / FILE, canonical(document))


def read(folder: Path, made: Plan) -> Mapping[str, Fate] | None:
    """By name, what the publication of a plan told; None when it did not, or another's did.

    Raises ``RepositoryError`` when the file is not one we know.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        plain = parse_json(path.read_bytes(), f"{FILE} does not tell of a publication")
        refuse_newer(plain, SCHEMA, FILE)
        if (plain["head"], plain["made"]) != (made.head, made.made):
            return None
        return {told.name: told for told in map(_fate, plain["images"])}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RepositoryError(f"{FILE} does not tell of a publication: {error}") from error


def _fate(plain: Mapping[str, Any]) -> Fate:
    verdict = plain["verdict"]
    return Fate(
        name=str(plain["name"]),
        verdict=None if verdict is None else Verdict(verdict),
        why=whole(str(plain["why"])),
    )
