"""Write and read, as JSON, how builds and publications ended: one CI job's word to another."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from lago_images.building.model import Result
from lago_images.console import whole
from lago_images.errors import RepositoryError
from lago_images.host import files
from lago_images.jobs.publish import PublicationOutcome
from lago_images.planning.model import WORK, Plan
from lago_images.repository.publishing.releasing import Verdict
from lago_images.repository.records.fields import Name, Sha256
from lago_images.repository.records.guest_tests import GuestTestRecord
from lago_images.repository.records.layout import NAME, BuildKey, ImageId
from lago_images.repository.records.manifest import Manifest, canonical
from lago_images.repository.records.parsing import DocumentError, Seconds, matching, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Hold one image's result as JSON has it; ``Result`` says what the fields are."""

    name: Name
    arch: Name
    manifest: Manifest | None
    manifest_sha256: Sha256 | None
    seconds: Seconds
    step: str
    error: str
    tail: tuple[str, ...]
    skipped: Annotated[str, matching(f"(?:{NAME.pattern})?", "an image's name, or empty")]
    log: str | None
    tests: tuple[GuestTestRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of builds, as one run of ``ci build`` had them."""

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a file of results"

    results: tuple[Entry, ...]


def dump(results: Iterable[Result]) -> bytes:
    """Write the results as JSON: ``{"schema": 1, "results": [{"name", "arch", "manifest", …}]}``.

    Of a log only the file's name is kept: its folder is another machine's.
    """
    return canonical({"schema": Results.SCHEMA, "results": [_plain(result) for result in results]})


def load(data: bytes, where: str) -> list[Result]:
    """Read the results in a JSON document, which a pull request's job may have written.

    Raises ``RepositoryError`` naming ``where`` when it is not a document we know.
    """
    entries = parse(data, Results, where).results
    results = [_result(entry) for entry in entries]
    if problems := [
        problem for pair in zip(entries, results, strict=True) for problem in _wrong(*pair)
    ]:
        raise DocumentError(where, Results.WHAT, problems)
    return results


def _wrong(entry: Entry, result: Result) -> Iterator[str]:
    """Yield why an entry's manifest is another image's, or not the one that its digest names."""
    if entry.manifest is not None:
        key = BuildKey(name=entry.name, arch=entry.arch, build_id=entry.manifest.build_id)
        yield from entry.manifest.problems(key)
    if entry.manifest_sha256 != result.manifest_sha256:
        yield f"manifest_sha256 of {entry.name} is not that of its manifest"


def read_folder(folder: Path) -> list[Result]:
    """Read the results in every ``*.results.json`` under a folder, by name; none if it is missing.

    Of several attempts at one image, the one that succeeded. Raises ``RepositoryError`` when a
    file is not a document we know, or two describe different builds of one image.
    """
    ended: dict[ImageId, Result] = {}
    sources: dict[ImageId, Path] = {}
    # A build's folder has the image's name, which may end so, too.
    for path in sorted(path for path in folder.rglob("*.results.json") if path.is_file()):
        where = path.relative_to(folder)
        for result in load(path.read_bytes(), str(where)):
            key = ImageId(result.name, result.arch)
            before = ended.get(key)
            if before and _differ(before, result):
                raise RepositoryError(
                    f"reading results in {folder}: {sources[key]} and {where} tell of different "
                    f"builds of {key}",
                    hint="remove the one that is not of this run",
                )
            if before is None or not before.ok:
                ended[key], sources[key] = result, where
    return [ended[key] for key in sorted(ended)]


def _differ(first: Result, second: Result) -> bool:
    """Return whether both succeeded, and not with the same build."""
    return first.ok and second.ok and first.manifest != second.manifest


def write_folder(folder: Path, results: Iterable[Result]) -> None:
    """Write each result to ``<name>.results.json`` in a folder, which is made if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        files.replace(folder / f"{result.name}.results.json", dump([result]))


# A guest may write one line without an end: reports show the last lines of a failure, logs all.
_LONGEST_LINE = 1000
_LARGEST_TAIL = 16 * 1024


def bounded(tail: Sequence[str]) -> list[str]:
    """Return the last lines of a tail that make at most 16 KiB, each of at most 1000 characters."""
    lines: list[str] = []
    remaining = _LARGEST_TAIL
    for line in reversed(tail):
        text = whole(line)
        short = text if len(text) <= _LONGEST_LINE else text[: _LONGEST_LINE - 1] + "…"
        remaining -= len(short.encode()) + 1
        if remaining < 0:
            break
        lines.append(short)
    return lines[::-1]


def _plain(result: Result) -> dict[str, Any]:
    manifest = result.manifest
    return {
        "name": result.name,
        "arch": result.arch,
        "manifest": None if manifest is None else json.loads(manifest.to_json()),
        "manifest_sha256": result.manifest_sha256,
        "seconds": round(result.seconds, 3),
        "step": result.step,
        "error": whole(result.error)[:_LARGEST_TAIL],
        "tail": bounded(result.tail),
        "skipped": result.skipped,
        "log": None if result.log is None else result.log.name,
        "tests": msgspec.to_builtins(result.tests),
    }


def _result(entry: Entry) -> Result:
    return Result(
        name=entry.name,
        arch=entry.arch,
        manifest=entry.manifest,
        seconds=entry.seconds,
        step=whole(entry.step),
        error=whole(entry.error),
        tail=tuple(map(whole, entry.tail)),
        skipped=entry.skipped,
        # A name alone: a path of another machine's could lead anywhere on this one.
        log=None if entry.log is None else Path(Path(whole(entry.log)).name),
        tests=entry.tests,
    )


FILE = "publication.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """The outcome of the release of one image.

    ``verdict`` is None when that did not happen; ``why`` says why.
    """

    name: str
    verdict: Verdict | None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The outcome of publishing the plan made at ``head``, at the time ``made``."""

    SCHEMA: ClassVar[int] = 1
    WHAT: ClassVar[str] = "a record of a publication"

    head: str | None
    made: int
    images: tuple[Fate, ...]


def fates(published: PublicationOutcome) -> list[Fate]:
    """Return what became of every image of a publication."""
    return [
        *(Fate(name=name, verdict=each.verdict) for name, each in published.outcomes.items()),
        *(
            Fate(name=name, verdict=None, why=published.why_missing(name))
            for name in published.missing
        ),
        *(Fate(name=name, verdict=None, why=why) for name, why in published.failed.items()),
    ]


def stopped(plan: Plan, why: str) -> list[Fate]:
    """Return ``why`` for every image of a plan whose publication ended before it could say."""
    return [
        Fate(name=image.name, verdict=None, why=why)
        for image in plan.images
        if image.action in WORK
    ]


def write_fates(folder: Path, plan: Plan, fates: Iterable[Fate]) -> None:
    """Write how the publication of a plan ended beside the results; makes the folder if needed."""
    files.replace(folder / FILE, canonical(publication_document(plan, fates)))


def publication_document(plan: Plan, fates: Iterable[Fate]) -> dict[str, Any]:
    """Return a ``Publication`` as plain values."""
    plain = [{"name": f.name, "verdict": f.verdict, "why": whole(f.why)} for f in fates]
    return {"schema": Publication.SCHEMA, "head": plan.head, "made": plan.made, "images": plain}


def read_fates(folder: Path, plan: Plan) -> Mapping[str, Fate] | None:
    """Read, by name, how a plan's publication ended; None when no file of that plan says.

    Raises ``RepositoryError`` when the file is not one this version knows.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    document = parse(path.read_bytes(), Publication, FILE, strict=False)
    # A folder of results that is used again may have that of an earlier run.
    if (document.head, document.made) != (plan.head, plan.made):
        return None
    return {fate.name: replace(fate, why=whole(fate.why)) for fate in document.images}
