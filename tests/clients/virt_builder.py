"""The real virt-builder, which sees nothing of this machine's configuration, keys or cache."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.pages import SOURCE, blocks


class VirtBuilderError(Exception):
    """virt-builder's own words on why it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtBuilder:
    """A user with a home of their own.

    Attributes:
        home: Where their configuration, keyring and cache are.
        appliance: Environment variables for the appliance, such as how it is accelerated.
    """

    home: Path
    appliance: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.home)
        for name in ("gnupg", "config", "cache"):
            (self.home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
            "LC_ALL": "C.UTF-8",
            "GNUPGHOME": f"{home}/gnupg",
            "XDG_CONFIG_HOME": f"{home}/config",
            "XDG_CACHE_HOME": f"{home}/cache",
            # Instead of /etc, or the default sources are asked too.
            "VIRT_BUILDER_DIRS": f"{home}/etc",
            **self.appliance,
        }

    def add_source(self, name: str, uri: str, key: Path | None = None) -> None:
        """A source in ``repos.d`` that no page names; without a key it may be unsigned."""
        folder = self.home / "config" / "virt-builder" / "repos.d"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"[{name}]", f"uri={uri}", *([f"gpgkey=file://{key}"] if key else [])]
        (folder / f"{name}.conf").write_text("\n".join(lines) + "\n")

    def add(self, page: Path, call: str = "true") -> str:
        """Paste a catalogue's block that adds a source, with another call at its end.

        Returns what that wrote. Raises ``VirtBuilderError``.
        """
        lines, _, last = blocks(page)[SOURCE].rpartition("\n")
        assert last == "virt-builder --list"
        return self.paste(f"{lines}\n{call}")

    def paste(self, script: str) -> str:
        """Run shell lines as this user, as someone would who pastes them; return their output.

        Raises ``VirtBuilderError``.
        """
        return self._run("sh", "-ec", script)

    def list(self, *options: str) -> list[dict[str, Any]]:
        """Raises ``VirtBuilderError``."""
        out = self._run("virt-builder", *options, "--list", "--list-format", "json")
        templates: list[dict[str, Any]] = json.loads(out)["templates"]
        return templates

    def build(self, template: str, output: Path, *options: str) -> str:
        """A machine from a template, as a raw disk; what virt-builder said of it.

        Raises ``VirtBuilderError``.
        """
        return self._run("virt-builder", template, "--output", str(output), *options)

    def fetch(self) -> None:
        """Download every template into the cache. Raises ``VirtBuilderError``."""
        self._run("virt-builder", "--cache-all-templates")

    def _run(self, *argv: str) -> str:
        done = subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, timeout=1500, check=False
        )
        if done.returncode != 0:
            raise VirtBuilderError(done.stderr or done.stdout)
        return done.stdout


def validate(index: Path) -> None:
    """libguestfs's own validator accepts the index, or raise ``VirtBuilderError``."""
    argv = ["virt-index-validate", str(index)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise VirtBuilderError(done.stdout + done.stderr)
