"""Tell specs from other files in their folder, by name: all that a shell's completion needs."""

import os
import re
import shlex
from fnmatch import translate
from pathlib import Path

_LEFT_OUT_NAMES = (".*", "*~", "*.bak", "*.orig", "*.rej", "*.swp", "#*#", "README*")
_LEFT_OUT = re.compile("|".join(map(translate, _LEFT_OUT_NAMES)))
# What judges images, and is none: the tests of a spec, and those that may fail.
TEST, TESTS = ".test", ".tests"
QUARANTINE = "quarantine.toml"
SETTINGS = "lago-images.toml"
_NAMED = 5


def is_left_out(name: str) -> bool:
    """Return whether a file is hidden, a README, or left behind by an editor or git."""
    return _LEFT_OUT.match(name) is not None


def is_test_name(name: str) -> bool:
    """Return whether a file or folder of this name in the specs' folder holds a spec's tests."""
    return name.endswith((TEST, TESTS)) and not is_left_out(name)


def test_places(spec: str) -> tuple[str, str]:
    """Return where the tests of the spec at a path are, if it has any: a file, and a folder."""
    return spec + TEST, spec + TESTS


def is_spec_name(name: str) -> bool:
    """Return whether a file of this name in the folder is taken for a spec."""
    return not (name == QUARANTINE or name.endswith((TEST, TESTS)) or is_left_out(name))


def spec_names(folder: Path | int) -> list[str]:
    """Return the names of the specs in a folder, sorted; raises ``OSError`` as the system does."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.is_dir(follow_symlinks=False) and is_spec_name(entry.name)
        )


def folders_below(root: Path) -> list[Path]:
    """Return the folders in one that are specs repositories of their own, by their settings."""
    return sorted(path.parent for path in root.glob(f"*/{SETTINGS}"))


def without_specs(root: Path) -> str:
    """Return what to do in a folder without specs: they may be in those below, which have settings.

    Names of folders start at the current one.
    """
    others = folders_below(root)
    if not others:
        return "there are no specs here: lago-images init makes an example; -C names another folder"
    named = [f"-C {shlex.quote(os.path.relpath(each))}" for each in others[:_NAMED]]
    more = ", or another" if len(others) > _NAMED else ""
    return f"there are no specs here, but {SETTINGS} below: say {' or '.join(named)}{more}"
