"""The tutorial on one laptop, as a reader does it: every command, with the output that is shown."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lago_images.host.kvm import detect
from lago_images.host.process import Runner
from lago_images.host.tools import TOOLS
from tests.servers.processes import free_port
from tests.support import tutorial
from tests.support.images import Image
from tests.tools import need

pytestmark = pytest.mark.real
TUTORIAL = Path(__file__).parents[2] / "docs/tutorial.md"
# What cannot be done here: the first as it is another's machine, the second before a release.
ELSEWHERE = {
    command: "the project is installed already, and its host set up"
    for command in tutorial.commands(TUTORIAL)
    if command.startswith(("sudo apt-get install", "pipx install"))
}


def test_the_line_that_installs_names_every_package_that_is_needed():
    line = next(command for command in ELSEWHERE if command.startswith("sudo"))
    needed = {tool.package for tool in TOOLS if tool.host in {"", "x86_64"}}
    assert needed <= set(line.split())


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short path: gpg's sockets are in it, whose paths are of 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


@pytest.mark.timeout(3600)
def test_every_command_shows_what_the_tutorial_shows(home: Path, debian12: Image):
    need("git", "gpg", "curl", "virt-builder", "qemu-img", "qemu-system-x86_64")
    if not (detect(Runner()).kvm or os.environ.get("LAGO_IMAGES_TEST_TUTORIAL")):
        pytest.skip("minutes without KVM: LAGO_IMAGES_TEST_TUTORIAL=yes takes them")

    def take_the_disk_of_these_tests() -> None:
        """Stand on the very disk that the example's base gives, which the tests have made once."""
        folder = home / "my-images"
        spec = folder / "image-specs/my-debian-12"
        spec.write_text(spec.read_text().replace("bootstrap:debian-12", "simple:disks/debian.img"))
        (folder / ".git/info/exclude").write_text("/disks/\n")
        (folder / "disks").mkdir()
        copy = [
            "cp",
            "--reflink=auto",
            "--sparse=always",
            str(debian12.disk),
            str(folder / "disks/debian.img"),
        ]
        subprocess.run(copy, check=True)

    environ = {
        "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        "USER": "me",
        # Instead of /etc, or libguestfs.org is asked, too.
        "VIRT_BUILDER_DIRS": str(home / "etc"),
        "LIBGUESTFS_BACKEND": "direct",
        # The reader's own; and little of their time.
        "GIT_AUTHOR_NAME": "Me",
        "GIT_AUTHOR_EMAIL": "me@example.org",
        "GIT_COMMITTER_NAME": "Me",
        "GIT_COMMITTER_EMAIL": "me@example.org",
        "LAGO_IMAGES_COMPRESSION_LEVEL": "0",
    }
    if not detect(Runner()).kvm:
        environ["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    session = tutorial.Session(
        home=home,
        environ=environ,
        elsewhere=ELSEWHERE,
        # That disk is in no commit.
        only_here=(
            r"^warning: NOT COMMITTED: disks/debian\.img differs .*\n",
            ", and files that were not committed",
            r"^ +input: disks/debian\.img, which \S+ reads, differs from what is committed\n",
        ),
        after={"lago-images init": take_the_disk_of_these_tests},
        same={
            str(home): "~",
            f"127.0.0.1:{(port := free_port())}": "127.0.0.1:8181",
            f"--port {port}": "--port 8181",
            "simple:disks/debian.img": "bootstrap:debian-12",
        },
    )
    try:
        session.run(TUTORIAL)
    finally:
        subprocess.run(
            ["gpgconf", "--kill", "all"], env={**environ, "HOME": str(home)}, check=False
        )
