"""The tutorial on one laptop, done by a reader with a home of their own."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import tutorial

TUTORIAL = Path(__file__).parents[2] / "docs/tutorial.md"
# What cannot be done here: the first as it is another's machine, the second without a network.
ELSEWHERE = {
    command: "the project is installed already, and its host set up"
    for command in tutorial.commands(TUTORIAL)
    if command.startswith(("sudo apt-get install", "pipx install"))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who follows the tutorial.

    Attributes:
        home: With a short path: gpg's sockets are in it, whose paths are of 107 bytes at most.
        port: Where their server listens.
        problem: The first command that did not show what the tutorial shows; empty for none.
    """

    home: Path
    port: int
    problem: str = ""

    @property
    def folder(self) -> Path:
        """Their repository of specs."""
        return self.home / "my-images"

    @property
    def key(self) -> Path:
        """The public key that they fetched."""
        return self.home / "key.asc"


def follow(home: Path, port: int, *, has_kvm: bool) -> Reader:
    """Run the tutorial's commands up to the first that shows something else.

    Args:
        home: The reader's home, with a short path.
        port: A free one.
        has_kvm: Or else libguestfs is told to emulate, as the tutorial says.
    """
    reader = Reader(home=home, port=port)
    environ = _environ(home, has_kvm=has_kvm)
    session = tutorial.Session(
        home=home,
        environ=environ,
        elsewhere=ELSEWHERE,
        same={
            str(home): "~",
            f"127.0.0.1:{port}": "127.0.0.1:8181",
            f"--port {port}": "--port 8181",
        },
    )
    try:
        session.run(TUTORIAL)
    except AssertionError as error:
        return Reader(home=home, port=port, problem=str(error) or "an assertion failed")
    finally:
        kill = ["gpgconf", "--kill", "all"]
        subprocess.run(kill, env={**environ, "HOME": str(home)}, check=False)
    return reader


def _environ(home: Path, *, has_kvm: bool) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        "USER": "me",
        # Instead of /etc, or libguestfs.org is asked, too.
        "VIRT_BUILDER_DIRS": str(home / "etc"),
        "LIBGUESTFS_BACKEND": "direct",
        # The reader's own; and little of their time.
        **{f"GIT_{who}_NAME": "Me" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "me@example.org" for who in ("AUTHOR", "COMMITTER")},
        "LAGO_IMAGES_COMPRESSION_LEVEL": "0",
        **({} if has_kvm else {"LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}),
    }
