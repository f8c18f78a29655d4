"""Tell specs from other files in their folder, by name: all that a shell's completion needs."""

import os
import re
from fnmatch import translate
from pathlib import Path

_NO_SPEC_NAMES = (".*", "*~", "*.bak", "*.orig", "*.rej", "*.swp", "#*#", "README*")
_NO_SPEC = re.compile("|".join(map(translate, _NO_SPEC_NAMES)))


def is_spec_name(name: str) -> bool:
    """Return whether a file of this name in the folder is taken for a spec."""
    return _NO_SPEC.match(name) is None


def spec_names(folder: Path | int) -> list[str]:
    """Return the names of the specs in a folder, sorted; raises ``OSError`` as the system does."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.is_dir(follow_symlinks=False) and is_spec_name(entry.name)
        )
