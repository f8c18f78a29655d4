"""The statements of a repository that the real command line built, signed and published."""

import json
import subprocess

import pytest

from tests.support.verification_guide import PublishedRepository
from tests.tools import need

pytestmark = pytest.mark.real
need("gpg", "gpgconf", "sha256sum", "jq", "curl", "bash")


def test_the_documented_commands_lead_from_the_key_to_the_commit(published_signed, key, tmp_path):
    folder = published_signed.folder
    [image] = folder.glob("images/tiny/x86_64/*")
    published = PublishedRepository(
        folder=folder, image=str(image.relative_to(folder)), key=key.fingerprint, name="tiny"
    )
    done = published.run_commands(tmp_path / "w")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("Good signature") == 2
    for name in ("tiny.qcow2.xz", "manifest.json", "sbom.cdx.json", "build.log"):
        assert f"{name}: OK" in done.stdout
    head = ["git", "-C", str(published_signed.specs.root), "rev-parse", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    assert f'"commit": "{commit}"' in done.stdout
    assert '"spec": "image-specs/tiny"' in done.stdout


def test_repo_provenance_follows_the_same_chain(published_signed, key):
    specs = published_signed.specs
    done = specs.run(
        "repo", "provenance", "tiny", "--deep", "--key", key.public, "--format", "json"
    )
    assert done.code == 0, done.out + done.err
    told = json.loads(done.out)
    assert told["ok"]
    [step] = told["steps"]
    verified = {
        link["name"]
        for link in step["links"]
        if "verified" in [check["outcome"] for check in link["checks"]]
    }
    assert verified == {link["name"] for link in step["links"]} - {"base"}
