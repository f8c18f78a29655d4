"""The commands of the pages as somebody pastes them: into a shell that goes on after a failure."""

import hashlib
import lzma
import os
import re
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lago_images.console import Console
from lago_images.repository.records.manifest import DiskFile
from lago_images.repository.rendering import commands
from lago_images.repository.rendering.site import PublicKey, Site
from lago_images.repository.serving.server import Server
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import manifest, put, put_release, release
from tests.support.server_threads import in_thread
from tests.tools import need

DISK, QCOW2 = b"a disk" * 1000, b"the same as a qcow2" * 1000
KEY = PublicKey(fingerprint="AB" * 20, armour=b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n")


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def published(tmp_path):
    """A release whose disk is served, and the site where it is."""
    need("curl", "xz", "sha256sum")
    made, packed = manifest(), lzma.compress(DISK)
    disk = replace(made.disk, sha256=digest(packed), compressed_size=len(packed))
    qcow2 = DiskFile(size=len(QCOW2), sha256=digest(QCOW2))
    record = release(1, replace(made, disk=disk, also={"qcow2": qcow2}))
    store = DirectoryStore(path=tmp_path / "repository")
    put(store, record.public.disk, packed)
    put(store, record.public.also("qcow2"), QCOW2)
    put_release(store, record)
    with Server(store, Console(quiet=True), bind="127.0.0.1", port=0) as server, in_thread(server):
        yield record, Site(name="a repository", base_url=server.url)


@pytest.fixture
def paste(tmp_path):
    """Run lines in a folder whose name has a blank; return the exit code and what was started.

    virt-install and virt-builder only write down their name and arguments, one a line.
    """
    folder, programs = tmp_path / "my disks", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    for name in ("virt-install", "virt-builder"):
        stub = programs / name
        stub.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >"$HOME/started"\n')
        stub.chmod(0o755)

    def run(text):
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=folder,
            env={"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)},
            capture_output=True,
            check=False,
            timeout=60,
        )
        started = tmp_path / "started"
        return done.returncode, started.read_text().splitlines() if started.exists() else []

    return SimpleNamespace(run=run, folder=folder)


def block(title, record, site):
    uses = commands.of_image(record, record.image, site, None)
    return next(each.text for each in uses if each.title == title)


def test_a_disk_with_the_right_checksum_is_unpacked_and_started(published, paste):
    record, site = published
    code, started = paste.run(block("libvirt", record, site))
    assert (paste.folder / "debian-12.qcow2").read_bytes() == DISK
    assert code == 0
    assert started[0] == "virt-install"
    assert started[started.index("--disk") + 1] == f"path={paste.folder}/debian-12.qcow2"


def test_a_qcow2_with_the_right_checksum_is_there_as_it_was_published(published, paste):
    code, _ = paste.run(block("qcow2, ready to use", *published))
    assert (code, (paste.folder / "debian-12.qcow2").read_bytes()) == (0, QCOW2)


@pytest.mark.parametrize("title", ["libvirt", "curl and sha256sum", "qcow2, ready to use"])
def test_a_wrong_checksum_unpacks_and_starts_nothing(published, paste, title):
    record, site = published
    text = block(title, record, site)
    code, started = paste.run(re.sub("[0-9a-f]{64}", "0" * 64, text))
    assert code != 0
    assert started == []
    assert title.startswith("qcow2") or not (paste.folder / "debian-12.qcow2").exists()


@pytest.mark.parametrize("title", ["libvirt", "curl and sha256sum", "qcow2, ready to use"])
def test_what_cannot_be_downloaded_is_not_taken_from_an_earlier_download(published, paste, title):
    record, site = published
    name = "debian-12.qcow2" if title.startswith("qcow2") else "debian-12.qcow2.xz"
    earlier = QCOW2 if title.startswith("qcow2") else lzma.compress(DISK)
    (paste.folder / name).write_bytes(earlier)
    text = block(title, record, replace(site, base_url=f"{site.base_url}/elsewhere"))
    code, started = paste.run(text)
    assert (code != 0, started, [each.name for each in paste.folder.iterdir()]) == (
        True,
        [],
        [name],
    )


def test_a_key_that_cannot_be_had_leaves_no_source_and_builds_nothing(published, paste, tmp_path):
    _, site = published
    code, started = paste.run(commands.virt_builder_source(site, KEY).text)
    assert (code != 0, started) == (True, [])
    assert list((tmp_path / ".config/virt-builder/repos.d").iterdir()) == []
    code, started = paste.run(commands.virt_builder(site, KEY).text)
    assert (code != 0, started) == (True, [])


def test_a_source_without_a_key_is_written_whole(published, paste, tmp_path):
    _, site = published
    assert paste.run(commands.virt_builder_source(site, None).text) == (
        0,
        ["virt-builder", "--list"],
    )
    written = (tmp_path / ".config/virt-builder/repos.d/a-repository.conf").read_text()
    assert written == f"[a-repository]\nuri={site.base_url}/index\n"
