"""A Debian archive of the tests' own: signed suites of whatever packages, over HTTP."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from tests.support.files import Files
from tests.support.keys import TestKey, home

SUITES = {
    "bookworm": "/debian",
    "bookworm-updates": "/debian",
    "bookworm-security": "/debian-security",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stanza:
    """A package in an archive.

    Attributes:
        more: Lines of its entry, such as ``Depends: libc6``.
        file: The lines about its file; without, there is none.
    """

    name: str
    version: str
    arch: str = "amd64"
    more: tuple[str, ...] = ()
    file: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = (
            f"Package: {self.name}",
            f"Version: {self.version}",
            f"Architecture: {self.arch}",
            "Maintainer: Tester <tester@example.org>",
            *self.more,
            *(self.file or self._nowhere()),
            "Description: a package",
        )
        return "\n".join(lines) + "\n\n"

    def _nowhere(self) -> tuple[str, ...]:
        digest = hashlib.sha256(f"{self.name} {self.version}".encode()).hexdigest()
        return (f"Filename: pool/{self.name}.deb", "Size: 1000", f"SHA256: {digest}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The suites of a mirror: what they have, and who signs them."""

    server: Files
    key: TestKey
    has: dict[str, tuple[Stanza, ...]] = field(default_factory=dict)

    @property
    def mirror(self) -> str:
        return f"{self.server.url}/debian"

    def publish(self, **suites: Iterable[Stanza]) -> None:
        """Publish all suites anew, of which these get other packages; ``_`` stands for ``-``."""
        self.has.update({name.replace("_", "-"): tuple(its) for name, its in suites.items()})
        for suite, root in SUITES.items():
            packages = "".join(map(str, self.has.get(suite, ()))).encode()
            place = f"{root}/dists/{suite}"
            self.server.content[f"{place}/main/binary-amd64/Packages"] = packages
            self.server.content[f"{place}/InRelease"] = self._signed(_release(suite, packages))

    def _signed(self, release: str) -> bytes:
        with home() as gpg:
            gpg.import_keys(self.key.secret.read_bytes())
            by = ("--clearsign", "--local-user", self.key.fingerprint)
            return gpg.call(*by, stdin=release.encode())


def _release(suite: str, packages: bytes) -> str:
    now = format_datetime(datetime.now(UTC), usegmt=True)
    digest = hashlib.sha256(packages).hexdigest()
    return (
        f"Origin: Debian\nLabel: Debian\nSuite: {suite}\nCodename: {suite}\nDate: {now}\n"
        "Architectures: all amd64\nComponents: main\nSHA256:\n"
        f" {digest} {len(packages)} main/binary-amd64/Packages\n"
    )


def trusting(folder: Path, key: TestKey) -> dict[str, str]:
    """An environment in which the host's apt trusts a key alone, and no key of Debian's."""
    trusted, programs = folder / "trusted.gpg.d", folder / "bin"
    trusted.mkdir(parents=True)
    programs.mkdir()
    shutil.copy(key.public, trusted / "tests.asc")
    shim = programs / "apt-config"
    shim.write_text(
        f"#!/bin/sh\nexec /usr/bin/apt-config -o Dir::Etc::trustedparts={trusted} "
        '-o Acquire::Retries=0 "$@"\n'
    )
    shim.chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
