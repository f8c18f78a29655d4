"""Which of a host's mirrors a guest is given, as apt itself tells them."""

import os
from pathlib import Path

import pytest

from lago_images.building.bases.bootstrap.debian import Mirrors, host_mirrors
from lago_images.host.process import Runner
from tests.tools import need

pytestmark = pytest.mark.real
need("apt-get")

# Where apt keeps what it has fetched: a URL without its scheme and user, `_` for `/`.
_LISTED = {
    "mirror+file:/etc/apt/mirrors/debian.list": "_etc_apt_mirrors_debian.list",
    "mirror+file:/etc/apt/mirrors/security.list": "_etc_apt_mirrors_security.list",
    "http://user:secret@m.example/debian": "m.example_debian",
    "http://m.example/debian/": "m.example_debian",
    "https://user@m.example/debian-security": "m.example_debian-security",
    "http://m.example/debian-security": "m.example_debian-security",
    "file:/srv/debian": "_srv_debian",
    "copy:/srv/debian": "_srv_debian",
    "cdrom:[Debian]/": "Debian",
    "http://other.example/debian": "other.example_debian",
}
_RELEASE = """\
Origin: Debian
Label: {label}
Suite: {suite}
Codename: {suite}
Components: main
Architectures: amd64 all
Date: Sat, 10 Jan 2026 10:00:00 UTC
SHA256:
 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-amd64/Packages
"""


@pytest.fixture
def asked(tmp_path: Path):
    """The mirrors of a host whose apt has these, and has fetched their lists."""

    def ask(main: list[str], security: list[str]) -> Mirrors | None:
        sources = tmp_path / "sources.list"
        lists = tmp_path / "lists"
        (lists / "partial").mkdir(parents=True)
        lines = []
        for urls, suite, label in (
            (main, "bookworm", "Debian"),
            (security, "bookworm-security", "Debian-Security"),
        ):
            for url in urls:
                lines.append(f"deb [trusted=yes arch=amd64] {url} {suite} main\n")
                kept = f"{_LISTED[url]}_dists_{suite}"
                (lists / f"{kept}_Release").write_text(_RELEASE.format(label=label, suite=suite))
                (lists / f"{kept}_main_binary-amd64_Packages").touch()
        sources.write_text("".join(lines))
        _apt_with(tmp_path / "bin", sources, lists)
        return host_mirrors(Runner(environ={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}))

    return ask


def _apt_with(folder: Path, sources: Path, lists: Path) -> None:
    folder.mkdir()
    program = folder / "apt-get"
    program.write_text(
        "#!/bin/sh\nexec /usr/bin/apt-get "
        f"-o Dir::Etc::sourcelist={sources} -o Dir::Etc::sourceparts=/dev/null "
        f'-o Dir::State::lists={lists} "$@"\n'
    )
    program.chmod(0o755)


def test_the_hosts_apt_mirrors_are_used(asked):
    found = asked(["http://m.example/debian/"], ["http://m.example/debian-security"])
    assert found == Mirrors(
        main="http://m.example/debian", security="http://m.example/debian-security"
    )


@pytest.mark.parametrize(
    "main",
    [
        "mirror+file:/etc/apt/mirrors/debian.list",
        "http://user:secret@m.example/debian",
        "file:/srv/debian",
        "copy:/srv/debian",
        "cdrom:[Debian]/",
    ],
)
def test_mirrors_that_a_guest_cannot_use_or_may_not_know_are_skipped(asked, main):
    assert asked([main], ["http://m.example/debian-security"]) is None


@pytest.mark.parametrize(
    "security",
    ["mirror+file:/etc/apt/mirrors/security.list", "https://user@m.example/debian-security"],
)
def test_a_security_archive_alone_can_be_left_out(asked, security):
    assert asked(["http://other.example/debian"], [security]) == Mirrors.of(
        "http://other.example/debian"
    )


def test_the_first_usable_mirror_of_the_host_is_used(asked):
    main = ["mirror+file:/etc/apt/mirrors/debian.list", "http://other.example/debian"]
    assert asked(main, []) == Mirrors.of("http://other.example/debian")
