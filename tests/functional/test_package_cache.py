"""Packages of bootstraps: resolved and downloaded by apt, kept by digest, never taken damaged."""

import hashlib
import subprocess
from dataclasses import replace

import pytest

from lago_images.building.bases.bootstrap import package_cache
from lago_images.building.bases.bootstrap.apt import read_archives
from lago_images.building.bases.bootstrap.debian import Mirrors, recipe
from lago_images.errors import CommandError
from lago_images.host.process import Runner
from tests.support.builders import lines
from tests.support.debian_archive import Archive, Stanza, trusting
from tests.support.files import serving
from tests.support.keys import make_key
from tests.tools import need

need("apt-get", "dpkg-deb", "gpg")

ESSENTIAL = ("Essential: yes", "Priority: required")
BASES = {
    "bash": ("5.2", "amd64", (*ESSENTIAL, "Pre-Depends: libc6")),
    "libc6": ("2.36", "amd64", ("Priority: optional", "Multi-Arch: same")),
    "mount": ("1:2.38", "amd64", ("Priority: required", "Depends: libmount1")),
    "libmount1": ("2.38", "amd64", ("Priority: optional",)),
    "sudo": ("1.9+b1", "amd64", ("Priority: optional", "Recommends: extra", "Depends: netbase")),
    "netbase": ("6.4", "all", ("Priority: optional",)),
    "extra": ("1", "all", ("Priority: optional",)),
}


def deb(folder, name, version, arch, more):
    """A real package file."""
    root = folder / f"{name}-{arch}"
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n"
    control += "Maintainer: Tester <t@example.org>\nDescription: a package\n"
    (root / "DEBIAN/control").write_text(control + "".join(f"{each}\n" for each in more))
    built = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", root, built], check=True, capture_output=True)
    return built.read_bytes()


@pytest.fixture
def world(tmp_path):
    """An archive of real packages, and what bootstraps two of them."""
    key = make_key(tmp_path, "archive")
    with serving() as server:
        archive = Archive(server=server, key=key)
        stanzas = []
        for name, (version, arch, more) in BASES.items():
            data = deb(tmp_path / "debs", name, version, arch, more)
            server.content[f"/debian/pool/{name}.deb"] = data
            digest = hashlib.sha256(data).hexdigest()
            file = (f"Filename: pool/{name}.deb", f"Size: {len(data)}", f"SHA256: {digest}")
            stanzas.append(Stanza(name=name, version=version, arch=arch, more=more, file=file))
        archive.publish(bookworm=stanzas)
        todo = recipe(lines(base="bootstrap:debian-12"), Mirrors.of(archive.mirror))
        runner = Runner(environ=trusting(tmp_path / "apt", key))
        yield (
            archive,
            read_archives(replace(todo, packages=("sudo",)), tmp_path / "a", runner),
            todo,
        )


def resolved(world):
    _, apt, todo = world
    return apt.bootstrap(replace(todo, packages=("sudo",)))


def provide(world, tmp_path, name):
    into = tmp_path / name
    into.mkdir()
    package_cache.provide(world[1], resolved(world), into, tmp_path / "cache")
    return {path.name: path.read_bytes() for path in into.iterdir()}


def downloaded(world):
    server = world[0].server
    found = [path.rpartition("/")[2] for path, _, _ in server.requests if path.endswith(".deb")]
    server.requests.clear()
    return sorted(found)


def test_what_is_essential_or_required_and_what_is_wanted_is_resolved(world):
    """As mmdebstrap has apt do, without what is only recommended."""
    found = {each.name: each for each in resolved(world)}
    assert set(found) == {"bash", "libc6", "mount", "libmount1", "sudo", "netbase"}
    assert found["mount"].file == "mount_1%3a2.38_amd64.deb"
    assert found["netbase"].arch == "all"
    data = world[0].server.content["/debian/pool/sudo.deb"]
    assert found["sudo"].sha256 == hashlib.sha256(data).hexdigest()
    assert found["sudo"].size == len(data)


def test_packages_are_downloaded_once(world, tmp_path):
    first = provide(world, tmp_path, "first")
    assert downloaded(world) == sorted(f"{each.name}.deb" for each in resolved(world))
    assert set(first) == {each.file for each in resolved(world)}
    assert provide(world, tmp_path, "second") == first
    assert downloaded(world) == []


@pytest.mark.parametrize("damage", [b"", b"other"])
def test_a_damaged_package_is_downloaded_again(world, tmp_path, damage):
    first = provide(world, tmp_path, "first")
    downloaded(world)
    sudo = next(each for each in resolved(world) if each.name == "sudo")
    kept = tmp_path / "cache/packages" / f"sha256-{sudo.sha256}.deb"
    kept.write_bytes(damage)
    assert provide(world, tmp_path, "second") == first
    assert downloaded(world) == ["sudo.deb"]
    assert kept.read_bytes() == first[sudo.file]


def test_a_file_that_the_archive_did_not_sign_is_never_kept(world, tmp_path):
    content = world[0].server.content
    content["/debian/pool/sudo.deb"] = content["/debian/pool/sudo.deb"][:-1] + b"x"
    with pytest.raises(CommandError):
        provide(world, tmp_path, "first")
    assert not (tmp_path / "cache/packages").exists()
