"""The files of a new specs repository."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lago_images.errors import GitError, ToolMissingError
from lago_images.planning.git import Git
from lago_images.settings import DEFAULT_REPOSITORY, FILE

# Where this project lives, for an installation that does not say where it came from.
HOME = "lago-project/lago-images"
WORKFLOW = ".github/workflows/images.yml"
# What only CI reads; these files name this project's commit.
PINNED = (WORKFLOW, "Jenkinsfile")
EXAMPLE = "my-debian-12"
_SPEC = f"image-specs/{EXAMPLE}"
_GITHUB = re.compile(
    r"(?:https://(?:[^/@\s]+@)?github\.com/|(?:ssh://)?git@github\.com[:/])"
    r"([\w.-]+/[\w.-]+?)(?:\.git)?/?"
)
# What a workflow says of who builds: without an environment, pull requests have the builder's key.
_BUILDERS = {
    "same-repository": "",
    "attested": "      attest: true\n",
    "never": "      builder-environment: builders\n",
}
PROMOTE = tuple(_BUILDERS)
_NO_ENDPOINT = "# endpoint-url: https://s3.example.org"
_NO_REGION = "# region: us-east-1"
# What GitHub takes for a pattern in a branch's name and git does not refuse:
# https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax
_PATTERN = re.compile(r"[+!]")
_WORDS = re.compile(r"@(name|branch|repository|tools|url|ref|promote|builders|store)@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A specs repository, and the tools it will use, as far as that is found out.

    Attributes:
        name: The repository's name, as lago shows it.
        branch: The branch that is published.
        tools: ``owner/name`` of this project on GitHub; empty in this project itself, whose
            Jenkinsfile is made by the same template.
        ref: Its commit, or a branch where that is not known.
        repository: Where the images are published.
        promote: Whose builds are released, one of ``PROMOTE``.
        endpoint: The S3 endpoint's URL; empty where it is AWS's or not known.
        region: The S3 region; empty where it is not known.
    """

    name: str
    branch: str
    tools: str
    ref: str
    repository: str = DEFAULT_REPOSITORY
    promote: str = PROMOTE[0]
    endpoint: str = ""
    region: str = ""


def files(facts: Facts, *, example: bool = True, ci: bool = True) -> Mapping[str, str]:
    """Return the text of each file, by its path in the specs repository.

    Args:
        facts: What is put in.
        example: Whether the example of a spec is among them.
        ci: Whether those are that only CI reads.
    """
    words = {
        "name": _quoted(facts.name),
        "branch": _quoted(_PATTERN.sub(r"\\\g<0>", facts.branch)),
        "repository": _quoted(facts.repository),
        "tools": facts.tools,
        "url": f"https://github.com/{facts.tools}" if facts.tools else "",
        "ref": facts.ref,
        "promote": facts.promote,
        "builders": _BUILDERS[facts.promote],
        "store": _store(facts),
    }
    places = {
        _SPEC: "debian-12",
        FILE: "lago-images.toml",
        ".gitignore": "gitignore",
        WORKFLOW: "workflow.yml",
        "Jenkinsfile": "Jenkinsfile",
    }
    left_out = {*(() if example else (_SPEC,)), *(() if ci else PINNED)}
    templates = resources.files("lago_images.ci") / "templates"
    return {
        place: _WORDS.sub(
            lambda match: words[match[1]], (templates / name).read_text(encoding="utf-8")
        )
        for place, name in places.items()
        if place not in left_out
    }


def write(root: Path, wanted: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Write the files that are missing; returns the paths written, and those left alone."""
    written, kept = [], []
    for place, text in wanted.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Made by the system or refused by it: a file that just came is not replaced either.
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            kept.append(place)
        else:
            written.append(place)
    return written, kept


def workflow_wants(text: str, promote: str) -> str:
    """Say what to change in a workflow for a choice of ``promote``; empty if nothing is.

    Its input is put in, and that of another choice is taken out.
    """
    found = {line.strip() for line in text.splitlines()}
    wanted = _BUILDERS[promote].strip()
    others = [each.strip() for each in _BUILDERS.values() if each.strip() not in {"", wanted}]
    changes = [f"no {each}" for each in others if each in found]
    if wanted and wanted not in found:
        changes.insert(0, wanted)
    return " and ".join(changes)


def recorded() -> str:
    """Return pip's record, as JSON, of where it installed this project from; empty without one."""
    try:
        return metadata.distribution("lago-images").read_text("direct_url.json") or ""
    except metadata.PackageNotFoundError:
        return ""


def tools(text: str) -> tuple[str, str]:
    """Return this project's ``owner/name`` and commit, from what pip ``recorded``.

    An installation from a folder is that folder's commit. Where nothing is found out, it is the
    branch ``main`` of ``HOME``.
    https://packaging.python.org/en/latest/specifications/direct-url/
    """
    try:
        url, commit = _source(json.loads(text or "{}"))
    except (ValueError, GitError, ToolMissingError):
        return HOME, "main"
    match = _GITHUB.fullmatch(url)
    return (match[1], commit) if match and commit else (HOME, "main")


def _source(plain: Mapping[str, Any]) -> tuple[str, str]:
    url = plain.get("url", "")
    if "dir_info" not in plain:
        return url, plain.get("vcs_info", {}).get("commit_id", "")
    git = Git.find(Path(unquote(urlsplit(url).path)))
    if git is None:
        return "", ""
    with git:
        # Below the root of a repository, that is somebody else's.
        return ("", "") if git.prefix else (git.url() or "", git.head() or "")


def _store(facts: Facts) -> str:
    endpoint, region = facts.endpoint, facts.region
    return (
        "      # For a store that is not AWS's, or not in us-east-1:\n"
        f"      {f'endpoint-url: {_quoted(endpoint)}' if endpoint else _NO_ENDPOINT}\n"
        f"      {f'region: {_quoted(region)}' if region else _NO_REGION}\n"
    )


def _quoted(text: str) -> str:
    """Quote a string as TOML and YAML both read it."""
    known = text.encode(errors="replace").decode()
    # TOML takes no DEL as it is, and JSON's quoting leaves it.
    return json.dumps(known, ensure_ascii=False).replace("\x7f", "\\u007f")
