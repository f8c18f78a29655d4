"""The commands of docs/verifying-an-image.md, run as a reader does."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/verifying-an-image.md"


@dataclass(frozen=True, kw_only=True)
class PublishedRepository:
    """A published repository, with the values that a reader of the document is given."""

    folder: Path
    image: str
    key: str
    name: str = "debian-12"

    def run_commands(self, workdir: Path, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run every command of the document, with values in place of its first block."""
        first, *blocks = re.findall(
            r"^```sh\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
        )
        assert re.findall(r"^\w+", first, re.MULTILINE) == ["REPOSITORY", "KEY", "NAME", "IMAGE"]
        assert len(blocks) == 6
        workdir.mkdir()
        values = {
            "REPOSITORY": f"file://{self.folder}",
            "KEY": self.key,
            "NAME": self.name,
            "IMAGE": self.image,
            **changes,
        }
        return subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", "".join(blocks)],
            cwd=workdir,
            env={"PATH": os.environ["PATH"], "TMPDIR": str(workdir), "LC_ALL": "C.UTF-8", **values},
            capture_output=True,
            text=True,
            check=False,
        )
