"""The files of a new specs repository."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from lago_images.settings import DEFAULT_REPOSITORY, FILE

# Where this project lives, for an installation that does not say where it came from.
HOME = "lago-project/lago-images"
_GITHUB = re.compile(r"(?:https://github\.com/|git@github\.com:)([\w.-]+/[\w.-]+?)(?:\.git)?/?")
_WORDS = re.compile(r"@(name|branch|repository|tools|ref)@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is found out about a specs repository and about the tools it will use.

    Attributes:
        name: The repository's name, as lago shows it.
        branch: The branch that is published.
        tools: ``owner/name`` of this project on GitHub.
        ref: Its commit, or a branch where that is not known.
        repository: Where the images are published.
    """

    name: str
    branch: str
    tools: str
    ref: str
    repository: str = DEFAULT_REPOSITORY


def files(facts: Facts) -> Mapping[str, str]:
    """The text of each file, by its path in the specs repository."""
    words = {"name": facts.name, "branch": facts.branch, "tools": facts.tools, "ref": facts.ref}
    # TOML's strings are JSON's, as far as paths and URLs go.
    words["repository"] = json.dumps(facts.repository, ensure_ascii=False)
    places = {
        "image-specs/my-debian-12": "debian-12",
        FILE: "lago-images.toml",
        ".gitignore": "gitignore",
        ".github/workflows/images.yml": "workflow.yml",
        "Jenkinsfile": "Jenkinsfile",
    }
    return {place: _filled(template, words) for place, template in places.items()}


def write(root: Path, wanted: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Write the files that are not there; returns the paths written, and those left alone."""
    written, kept = [], []
    for place, text in wanted.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            kept.append(place)
        else:
            written.append(place)
    return written, kept


def tools() -> tuple[str, str]:
    """This project's ``owner/name`` and commit, as pip recorded them when it installed it.

    https://packaging.python.org/en/latest/specifications/direct-url/
    """
    try:
        text = metadata.distribution("lago-images").read_text("direct_url.json")
        plain = json.loads(text or "{}")
        match = _GITHUB.fullmatch(plain.get("url", ""))
        commit = plain.get("vcs_info", {}).get("commit_id", "")
    except (metadata.PackageNotFoundError, ValueError):
        return HOME, "main"
    return (match[1], commit) if match and commit else (HOME, "main")


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (resources.files("lago_images.ci") / "templates" / template).read_text(encoding="utf-8")
    return _WORDS.sub(lambda match: words[match[1]], text)
