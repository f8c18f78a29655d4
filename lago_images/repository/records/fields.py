"""Validate the fields of manifests and releases, to be trusted with the published files.

What a pull request's builder wrote is read like anything else from outside: every type and every
character is checked before it can reach an index, JSON or HTML.
"""

import re
from collections.abc import Mapping
from typing import Annotated

from lago_images.console import whole
from lago_images.repository.records.layout import NAME
from lago_images.repository.records.parsing import matching
from lago_images.settings import FORMS

# As virt-builder and `uname -m` spell architectures; a letter keeps lago's version names unique.
ARCH = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
BUILD_ID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*")
FORMATS = ("qcow2", "raw")
# Control characters, and what some readers take for the end of a line.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# virt-builder takes the language that fits the user's locale: `notes`, `notes[fr]`, `notes[pt_BR]`.
_NOTES = re.compile(r"notes(?:\[[A-Za-z0-9_,.]+\])?")
_LINES = ("name", "osinfo", "expand", "lvexpand", "version", "aliases")

Name = Annotated[str, matching(NAME.pattern, "an image's name")]
Arch = Annotated[str, matching(ARCH.pattern, "an architecture")]
BuildId = Annotated[str, matching(BUILD_ID.pattern, "a build id")]
Form = Annotated[str, matching("|".join(FORMS), " or ".join(FORMS))]
Format = Annotated[str, matching("|".join(FORMATS), " or ".join(FORMATS))]
Sha1 = Annotated[str, matching("[0-9a-f]{40}", "40 hexadecimal digits")]
Sha256 = Annotated[str, matching("[0-9a-f]{64}", "64 hexadecimal digits")]
Sha512 = Annotated[str, matching("[0-9a-f]{128}", "128 hexadecimal digits")]


def is_line(text: str) -> bool:
    """Return whether a text can stand in one line of an index, a page or a terminal."""
    return not _UNPRINTABLE.search(text)


def line(text: str) -> str:
    """Make a text fit for one line; no blanks at its ends, which a clearsigned text loses."""
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def is_notes(key: str) -> bool:
    """Return whether a property is the index's ``notes`` or ``notes[language]``."""
    return bool(_NOTES.fullmatch(key))


def property_problems(properties: Mapping[str, str]) -> list[str]:
    """Return all that keeps a spec's properties from the index and the pages."""
    problems = []
    for key, value in properties.items():
        if (key in _LINES or is_notes(key)) and not is_line(value):
            problems.append(f"property {key} is not one printable line: {value!r}")
        elif key != whole(key) or value != whole(value):
            problems.append(f"property {key!r} is not UTF-8: {value!r}")
    if properties.get("hidden", "false") not in ("true", "false"):
        problems.append(f"property hidden is {properties['hidden']!r}, not true or false")
    problems.extend(
        f"property aliases has {alias!r}, which is not a name"
        for alias in aliases(properties.get("aliases", ""))
        if not NAME.fullmatch(alias)
    )
    return problems


def aliases(text: str) -> list[str]:
    """Return the names in an ``aliases`` property, parted by blanks or commas."""
    return text.replace(",", " ").split()
