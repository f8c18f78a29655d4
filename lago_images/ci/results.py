"""Results as JSON: how one CI job tells another how its builds ended."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lago_images.building.model import Result
from lago_images.console import whole
from lago_images.errors import RepositoryError
from lago_images.host.files import replace
from lago_images.repository.check import manifest_problems
from lago_images.repository.layout import NAME, BuildKey
from lago_images.repository.manifest import Manifest, canonical, refuse_newer
from lago_images.repository.parsing import parse_json

SCHEMA = 1
_KEYS = frozenset(
    {"name", "arch", "manifest", "seconds", "step", "error", "tail", "skipped", "log"}
)
# Longer than any job may take.
_MOST_SECONDS = 2**31


def dump(results: Iterable[Result]) -> bytes:
    """The results as JSON: ``{"schema": 1, "results": [{"name", "arch", "manifest", …}]}``.

    Of a log only the file's name is kept: its folder is another machine's.
    """
    return canonical({"schema": SCHEMA, "results": [_plain(result) for result in results]})


def load(data: bytes, where: str) -> list[Result]:
    """The results in a JSON document, which a pull request's job may have written.

    Raises ``RepositoryError`` naming ``where`` when it is not a document we know.
    """
    try:
        plain = parse_json(data, f"{where} is not a file of results")
        refuse_newer(plain, SCHEMA, where)
        return [_result(entry, where) for entry in plain["results"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RepositoryError(f"{where} is not a file of results: {error}") from error


def read_folder(folder: Path) -> list[Result]:
    """The results in every ``*.results.json`` under a folder, by name; none if it is not there.

    Of several attempts at one image, the one that succeeded. Raises ``RepositoryError`` when a
    file is not a document we know, or two tell of different builds of one image.
    """
    found: dict[tuple[str, str], Result] = {}
    told: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.rglob("*.results.json")):
        where = path.relative_to(folder)
        for result in load(path.read_bytes(), str(where)):
            key = (result.name, result.arch)
            before = found.get(key)
            if before and _differ(before, result):
                raise RepositoryError(
                    f"reading results in {folder}: {told[key]} and {where} tell of different "
                    f"builds of {result.name} ({result.arch})",
                    hint="remove the one that is not of this run",
                )
            if before is None or not before.ok:
                found[key], told[key] = result, where
    return [found[key] for key in sorted(found)]


def _differ(one: Result, other: Result) -> bool:
    """Whether both succeeded, and not with the same build."""
    return one.ok and other.ok and one.manifest != other.manifest


def write_folder(folder: Path, results: Iterable[Result]) -> None:
    """Write each result to ``<name>.results.json`` in a folder, which is made if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        replace(folder / f"{result.name}.results.json", dump([result]))


def _plain(result: Result) -> dict[str, Any]:
    manifest = result.manifest
    return {
        "name": result.name,
        "arch": result.arch,
        "manifest": None if manifest is None else json.loads(manifest.to_json()),
        "seconds": round(result.seconds, 3),
        "step": result.step,
        "error": whole(result.error),
        "tail": [whole(line) for line in result.tail],
        "skipped": result.skipped,
        "log": None if result.log is None else result.log.name,
    }


def _result(entry: Mapping[str, Any], where: str) -> Result:
    if set(entry) != _KEYS:
        raise ValueError(f"unexpected or missing keys: {sorted(set(entry) ^ _KEYS)}")
    name, arch = _name(entry["name"]), _name(entry["arch"])
    manifest, log, skipped = entry["manifest"], entry["log"], entry["skipped"]
    return Result(
        name=name,
        arch=arch,
        manifest=None if manifest is None else _manifest(manifest, name, arch, where),
        seconds=_seconds(entry["seconds"]),
        step=_text(entry["step"]),
        error=_text(entry["error"]),
        tail=tuple(_text(line) for line in entry["tail"]),
        skipped="" if skipped == "" else _name(skipped),
        log=None if log is None else Path(Path(_text(log)).name),
    )


def _manifest(plain: dict[str, Any], name: str, arch: str, where: str) -> Manifest:
    manifest = Manifest.from_plain(plain, where)
    key = BuildKey(name=name, arch=arch, build_id=manifest.build_id)
    if problems := manifest_problems(manifest, key):
        raise ValueError(f"its manifest: {'; '.join(problems)}")
    return manifest


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < _MOST_SECONDS:
        raise ValueError(f"seconds is {value!r}")
    return float(value)


def _name(value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return whole(value)
