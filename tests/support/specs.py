"""A specs repository in git, for tests: made, changed and committed in one line each."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import calls

IDENTITY = {
    "GIT_AUTHOR_NAME": "Tester",
    "GIT_AUTHOR_EMAIL": "tester@example.com",
    "GIT_COMMITTER_NAME": "Tester",
    "GIT_COMMITTER_EMAIL": "tester@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
}


def git(folder: Path, *args: str) -> str:
    """Run git in a folder and return what it printed."""
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *args],
        cwd=folder,
        env={**os.environ, **IDENTITY},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecsRepo:
    """A git repository with ``image-specs/``, and the command line called in it.

    ``environ`` is added to every call.
    """

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, root: Path, environ: dict[str, str] | None = None) -> "SpecsRepo":
        root.mkdir(parents=True, exist_ok=True)
        git(root, "init", "-q")
        (root / "image-specs").mkdir(exist_ok=True)
        return cls(root=root, environ=environ or {})

    @classmethod
    def with_one(cls, root: Path) -> "SpecsRepo":
        """Create one whose first commit has the image ``one``, of a disk of its own."""
        repo = cls.create(root)
        repo.disk("one.img")
        repo.spec("one", "simple:one.img")
        repo.commit()
        return repo

    def write(self, path: str, text: str | bytes) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            target.write_bytes(text)
        else:
            target.write_text(text)
        return target

    def spec(self, name: str, base: str, *lines: str) -> Path:
        """A spec that is complete for both clients, without a boot test."""
        text = [
            f"#name={name}",
            f"#base={base}",
            "#osinfo=debian12",
            "#distro=debian",
            "#arch=x86_64",
            "#version=1",
            "#boot-test=no: it is made of nothing",
            *lines,
        ]
        return self.write(f"image-specs/{name}", "\n".join(text) + "\n")

    def disk(self, path: str, seed: int = 1, size: int = 1 << 20) -> Path:
        """A small raw disk with some content, the same for the same seed."""
        block = bytes((seed * 31 + i * i) % 251 for i in range(4096))
        return self.write(path, block * 4 + bytes(size - 4 * 4096))

    def commit(self, message: str = "Change the specs") -> str:
        git(self.root, "add", "-A")
        git(self.root, "commit", "-q", "-m", message)
        return self.head

    @property
    def head(self) -> str:
        return git(self.root, "rev-parse", "HEAD")

    def run(
        self,
        *args: str,
        environ: dict[str, str] | None = None,
        timeout: float = 300,
        folder: Path | None = None,
    ) -> Ran:
        """Call the real command line in the repository, or in another folder."""
        done = calls.run(args, folder or self.root, self.env(environ), timeout)
        return Ran(code=done.returncode, out=done.stdout, err=done.stderr)

    def env(self, environ: dict[str, str] | None = None) -> dict[str, str]:
        base = {
            name: value
            for name, value in os.environ.items()
            # CI: its logs have times. GIT_PYTHON_: this process' own, set by the code under test.
            if not name.startswith(("LAGO_IMAGES_", "GITHUB_", "GIT_PYTHON_"))
            and name not in {"CI", "NO_COLOR"}
        }
        return {
            **base,
            "XDG_CACHE_HOME": str(self.root.parent / "cache"),
            **self.environ,
            **(environ or {}),
        }
