"""A disk as a qcow2: asked for by a setting, published, and taken from its URL by real tools."""

import hashlib
import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from lago_images.console import Console
from lago_images.disks.qcow2_header import read_header
from lago_images.repository.serving.server import Server
from lago_images.storage.directory.store import DirectoryStore
from tests.support.server_threads import in_thread
from tests.support.specs import SpecsRepo
from tests.tools import cannot, need

need("qemu-img", "git")
DOCUMENT = Path(__file__).parents[2] / "docs/plain-disks.md"
NAME = "lago-debian-12"
ASKING = {"LAGO_IMAGES_PUBLISH_ALSO": "qcow2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A served repository with one image, which is there as a qcow2 from revision 2 on.

    ``plans`` has what was planned before the setting, with it, and after it was published.
    """

    repo: SpecsRepo
    url: str
    raw: bytes
    plans: tuple[dict, dict, dict]

    def latest(self) -> dict:
        path = self.repo.root / f"image-repo/latest/{NAME}.x86_64.json"
        return json.loads(path.read_bytes())["revision"]

    @property
    def disk(self) -> Path:
        url = self.latest()["also"]["qcow2"]["url"]
        return self.repo.root / "image-repo" / url.removeprefix(f"{self.url}/")

    def typed(self, section: str, folder: Path) -> str:
        """Run the shell lines of a section of the document, as somebody types them."""
        text = DOCUMENT.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        lines = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        assert lines
        # The URL that an earlier section has found.
        lines = f"url={self.latest()['also']['qcow2']['url']}\n{lines}"
        lines = lines.replace("https://images.example.org", self.url)
        # libvirt's test driver has a host of its own, an i686, and starts nothing.
        lines = lines.replace(
            "virt-install ", "virt-install --connect test:///default --print-xml "
        ).replace("--arch x86_64", "--arch i686")
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", lines],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if "Unknown protocol" in done.stderr:
            cannot("qemu-img does not read over HTTP (package qemu-block-extra)")
        assert done.returncode == 0, done.stderr
        return done.stdout


def plan_of(repo: SpecsRepo, **environ: str) -> dict:
    ran = repo.run("ci", "plan", "--format", "json", environ=environ)
    assert ran.code == 0, ran.err
    [image] = ran.json()["images"]
    return image


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    repo = SpecsRepo.create(tmp_path_factory.mktemp("plain") / "specs")
    raw = repo.disk("image-specs/files/disk.img", size=3 << 20).read_bytes()
    repo.spec(NAME, "simple:image-specs/files/disk.img")
    repo.commit("Add a spec")
    store = DirectoryStore(path=repo.root / "image-repo")
    with Server(store, Console(quiet=True), bind="127.0.0.1", port=0) as server, in_thread(server):
        own = {"LAGO_IMAGES_BASE_URL": server.url}
        rebuilt = repo.run("ci", "rebuild", "--changed", environ=own)
        assert rebuilt.code == 0, rebuilt.err
        without = plan_of(repo)
        asking = plan_of(repo, **ASKING)
        rebuilt = repo.run("ci", "rebuild", "--changed", environ={**own, **ASKING})
        assert rebuilt.code == 0, rebuilt.err
        plans = without, asking, plan_of(repo, **ASKING)
        yield Published(repo=repo, url=server.url, raw=raw, plans=plans)


def test_what_was_published_without_is_built_again_once_and_the_plan_says_why(published):
    without, asking, after = published.plans
    assert (without["action"], asking["action"], after["action"]) == ("keep", "build", "keep")
    [reason] = asking["reasons"]
    assert reason["detail"] == "publish-also asks for qcow2, which revision 1 lacks"
    assert plan_of(published.repo)["action"] == "keep"


def test_the_qcow2_has_what_every_reader_knows(published):
    assert read_header(published.disk, "it").is_plain
    argv = ["qemu-img", "info", "--output", "json", str(published.disk)]
    facts = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert facts["format-specific"]["data"]["compression-type"] == "zlib"
    assert facts["virtual-size"] == len(published.raw)
    assert "backing-filename" not in facts
    # Compressed clusters: most of this disk is zeros, and the rest repeats.
    assert published.disk.stat().st_size < len(published.raw)


def test_every_document_has_its_size_and_checksum(published, tmp_path):
    data = published.disk.read_bytes()
    latest, sha256 = published.latest(), hashlib.sha256(data).hexdigest()
    assert latest["also"]["qcow2"]["size"] == len(data)
    assert latest["also"]["qcow2"]["sha256"] == sha256
    folder = published.repo.root / "image-repo"
    [image] = json.loads((folder / "images.json").read_bytes())["images"]
    assert image["revisions"][0] == latest
    # Both forms of the xz: compressed and not.
    packed = folder / latest["disk"]["url"].removeprefix(f"{published.url}/")
    plain = subprocess.run(["xz", "-dc", packed], check=True, capture_output=True).stdout
    assert latest["plain"]["sha256"] == hashlib.sha256(plain).hexdigest()
    assert f"{sha256}  {published.disk.relative_to(folder)}" in (folder / "SHA256SUMS").read_text()
    page = (folder / f"catalogue/{NAME}.html").read_text()
    assert sha256 in page
    assert "Download it as qcow2, ready to use" in page
    shown = published.repo.run("repo", "show", NAME, "--format", "json").json()
    assert shown["revisions"][0]["also"] == {"qcow2": {"sha256": sha256, "size": len(data)}}
    assert sha256 in published.repo.run("repo", "show", NAME).out
    assert published.repo.run("repo", "verify", "--deep").code == 0


def raw_of(disk: Path) -> bytes:
    """Return what a guest would see."""
    raw = disk.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
    return raw.read_bytes()


def test_it_is_downloaded_and_checked_as_the_document_says(published, tmp_path):
    need("curl", "jq")
    found = json.loads(published.typed("Find it", tmp_path))
    assert found == published.latest()["also"]["qcow2"]
    assert published.typed("Download and check it", tmp_path) == f"{NAME}.qcow2: OK\n"
    assert raw_of(tmp_path / f"{NAME}.qcow2") == published.raw


def test_virt_install_imports_it_and_qemu_img_converts_it_over_http(published, tmp_path):
    need("virt-install")
    (tmp_path / f"{NAME}.qcow2").write_bytes(published.disk.read_bytes())
    xml = published.typed("libvirt", tmp_path)
    assert f'<source file="{tmp_path}/{NAME}.qcow2"/>' in xml
    assert re.search(r'<driver [^>]*type="qcow2"', xml)
    assert raw_of(tmp_path / "machine.qcow2") == published.raw


def test_a_large_disk_is_converted_over_http_as_the_document_says(published, tmp_path):
    raw, served = tmp_path / "large.raw", published.disk.with_name("large.qcow2")
    # Many small clusters with holes between them, as of a guest.
    with raw.open("wb") as file:
        for number in range(2000):
            file.seek((3 * number + (number % 7 == 0)) << 16)
            file.write(os.urandom(1 << 15 if number % 3 else 1 << 13).hex().encode())
    argv = ["qemu-img", "convert", "-c", "-O", "qcow2", raw, served]
    subprocess.run(argv, check=True)
    [convert] = re.findall("^qemu-img convert .*$", DOCUMENT.read_text(), re.MULTILINE)
    url = f"{published.latest()['also']['qcow2']['url'].rpartition('/')[0]}/large.qcow2"
    subprocess.run(
        ["sh", "-ec", convert],
        cwd=tmp_path,
        env={**os.environ, "url": url},
        check=True,
        timeout=300,
    )
    served.unlink()
    assert raw_of(tmp_path / "machine.qcow2") == raw.read_bytes()


def test_it_is_imported_through_nbdkit_as_cdi_does(published, tmp_path):
    need("nbdkit")
    url, raw = published.latest()["also"]["qcow2"]["url"], tmp_path / "disk.raw"
    convert = f'qemu-img convert -f qcow2 -O raw "$uri" {shlex.quote(str(raw))}'
    argv = ["nbdkit", "--unix", "-", "--readonly", "curl", f"url={url}", "--run", convert]
    subprocess.run(argv, check=True, timeout=300)
    assert raw.read_bytes() == published.raw
