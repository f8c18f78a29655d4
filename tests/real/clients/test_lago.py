"""What the real lago 0.46.0 makes of a published repository, over HTTP."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.lago import LagoError

pytestmark = pytest.mark.real


def test_the_newest_version_is_downloaded_checked_and_converted(client, small, served, tmp_path):
    repo = f"{served.url}/repo.metadata"
    known = client.templates(repo)
    assert known["name"] == "tests"
    assert list(known["templates"]) == ["tiny"]

    got = client.download(repo, tmp_path / "store", "tiny")
    assert got["fresh"]
    assert got["version"] == known["templates"]["tiny"]["newest"]
    assert got["metadata"]["distro"] == "debian"
    assert got["metadata"]["root-password"] == "123456"
    source = small.specs.root / "image-specs/files/tiny.img"
    assert Path(got["path"]).read_bytes() == source.read_bytes()
    # lago drops its first connection of each file, which is no error of the server.
    assert "error" not in served.log.read_text()

    again = client.download(repo, tmp_path / "store", "tiny")
    assert not again["fresh"]


def test_a_changed_image_is_a_new_version(client, small, served, tmp_path):
    repo = f"{served.url}/repo.metadata"
    first = client.download(repo, tmp_path / "store", "tiny")
    small.specs.disk("image-specs/files/tiny.img", seed=2)
    small.publish()
    second = client.download(repo, tmp_path / "store", "tiny")
    assert second["fresh"]
    assert second["version"] != first["version"]
    assert second["hash"] != first["hash"]
    # The older one is still to be had by those who name it.
    older = first["version"].rpartition(":")[2]
    assert client.download(repo, tmp_path / "other", "tiny", older)["hash"] == first["hash"]


def test_lago_ignores_the_digests_in_repo_metadata(client, small, served, tmp_path):
    """They are for whoever checks by hand: lago neither stumbles over them nor compares them."""
    published = small.only("repo.metadata")
    disk = small.only("images/tiny/x86_64/*/tiny.qcow2.xz").read_bytes()
    digests = {name: hashlib.new(name, disk).hexdigest() for name in ("sha256", "sha512")}
    plain = json.loads(published.read_bytes())
    [version] = plain["templates"]["tiny"]["versions"].values()
    assert {name: version[name] for name in digests} == digests
    got = client.download(f"{served.url}/repo.metadata", tmp_path / "right", "tiny")
    version.update({name: "0" * len(digest) for name, digest in digests.items()})
    published.write_text(json.dumps(plain))
    other = client.download(f"{served.url}/repo.metadata", tmp_path / "wrong", "tiny")
    assert other["fresh"]
    assert (other["hash"], other["version"]) == (got["hash"], got["version"])
    assert Path(other["path"]).read_bytes() == Path(got["path"]).read_bytes()


def test_a_wrong_hash_is_refused(client, small, served, tmp_path):
    small.only("images/tiny/x86_64/*/tiny.qcow2.hash").write_text("0" * 40)
    with pytest.raises(LagoError, match="does not match the expected hash"):
        client.download(f"{served.url}/repo.metadata", tmp_path / "store", "tiny")


def test_a_truncated_disk_is_refused(client, small, served, tmp_path):
    disk = small.only("images/tiny/x86_64/*/tiny.qcow2.xz")
    disk.write_bytes(disk.read_bytes()[:-100])
    with pytest.raises(LagoError, match="Failed to decompress"):
        client.download(f"{served.url}/repo.metadata", tmp_path / "store", "tiny")


def test_an_unpublished_template_is_reported_as_missing(client, served, tmp_path):
    with pytest.raises(LagoError, match="LagoMissingTemplateError"):
        client.download(f"{served.url}/repo.metadata", tmp_path / "store", "other")


def test_the_published_disk_is_a_plain_qcow2(small, tmp_path):
    disk = tmp_path / "disk.qcow2"
    packed = small.only("images/tiny/x86_64/*/tiny.qcow2.xz")
    with disk.open("wb") as out:
        subprocess.run(["xz", "-dc", packed], stdout=out, check=True)
    subprocess.run(["xz", "--test", packed], check=True)
    info = subprocess.run(
        ["qemu-img", "info", "--backing-chain", disk], capture_output=True, text=True, check=True
    )
    assert "file format: qcow2" in info.stdout
    assert "backing file" not in info.stdout
