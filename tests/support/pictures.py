"""The pictures of the documents: ``python -m tests.support.pictures`` makes them anew.

The catalogue as Chromium shows it, a terminal with what the command line really printed, of small
disks and a build that is planned, and what a build's time goes into.
"""

import io
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from lago_images.repository.rendering.render import render
from lago_images.repository.rendering.site import Site
from tests.support import chart
from tests.support.catalogue import large_state
from tests.support.specs import SpecsRepo

FOLDER = Path(__file__).parents[2] / "docs/pictures"
_SITE = Site(name="example-images", base_url="https://images.example.org")
_IMAGES = 24
_WIDTH = 110
_DISK = 8 << 20
# A picture in a README loads nothing: the reader's own font is good enough.
_SVG = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
_COMMANDS = (
    "lago-images ci plan",
    "lago-images -q build",
    "lago-images repo list",
    "lago-images repo log -n 2",
)


def catalogue(target: Path) -> None:
    """Take a picture of the catalogue of some images."""
    with tempfile.TemporaryDirectory() as name:
        page = Path(name) / "index.html"
        page.write_bytes(render(large_state(_IMAGES), _SITE, []).files["index.html"])
        subprocess.run(
            [
                shutil.which("chromium") or "chromium",
                *("--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1200,640"),
                *(f"--user-data-dir={name}/profile", f"--screenshot={target}", page.as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


def terminal(target: Path) -> None:
    """Draw a terminal with commands and what they printed, in a repository of two images."""
    with tempfile.TemporaryDirectory() as name:
        repo = SpecsRepo.create(Path(name) / "specs", {"COLUMNS": str(_WIDTH), "USER": "ann"})
        for image, seed in (("web-debian-12", 1), ("db-debian-12", 2)):
            repo.write(f"disks/{image}.img", random.Random(seed).randbytes(_DISK))
            repo.spec(image, f"simple:disks/{image}.img")
        repo.commit()
        # One is published already, and has changed since.
        repo.run("-q", "build", "db-debian-12")
        repo.spec("db-debian-12", "simple:disks/db-debian-12.img", "#notes=PostgreSQL 17")
        repo.commit("Take PostgreSQL 17")
        drawn = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
        for command in _COMMANDS:
            ran = repo.run(*shlex.split(command)[1:])
            # Whether this very machine has KVM is no part of the picture.
            said = re.sub(r"^warning: KVM .*\n", "", ran.err, flags=re.MULTILINE)
            shown = (ran.out + said).replace(str(repo.root), "~/specs")
            drawn.print(Text("$ ", style="green") + Text(command, style="bold"))
            drawn.print(Text(re.sub(r"\S+@\S+", "ann@laptop", shown)))
        title = "lago-images"
        target.write_text(
            drawn.export_svg(title=title, theme=MONOKAI, code_format=_SVG, unique_id=title)
        )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    # Chromium keeps what it makes of a profile there.
    os.environ.setdefault("XDG_CONFIG_HOME", tempfile.gettempdir())
    catalogue(FOLDER / "catalogue.png")
    terminal(FOLDER / "terminal.svg")
    chart.draw(FOLDER / "build-times.json", FOLDER / "build-times.svg")
    sys.exit(0)
