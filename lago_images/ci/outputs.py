"""The files through which a step talks to GitHub's runner: outputs and the step summary."""

import secrets
from collections.abc import Mapping
from pathlib import Path

from lago_images.errors import UsageError


def write(environ: Mapping[str, str], outputs: Mapping[str, str]) -> bool:
    """Append to ``GITHUB_OUTPUT``; False if there is none.

    Every value is between delimiters that it cannot know, so that no line of it is an output.
    """
    path = environ.get("GITHUB_OUTPUT")
    if not path:
        return False
    with Path(path).open("a", encoding="utf-8") as file:
        file.writelines(_entry(name, value) for name, value in outputs.items())
    return True


def summarise(environ: Mapping[str, str], markdown: str) -> bool:
    """Append to ``GITHUB_STEP_SUMMARY``; False if there is none."""
    path = environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return False
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(markdown + "\n")
    return True


def _entry(name: str, value: str) -> str:
    delimiter = secrets.token_hex(16)
    if not name.replace("-", "").replace("_", "").isalnum() or delimiter in value:
        raise UsageError(f"{name!r} cannot be the name of an output")
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


def append(environ: Mapping[str, str], lines: str) -> bool:
    """``write`` for lines ``name=value``."""
    return write(environ, dict(line.split("=", 1) for line in lines.splitlines()))
