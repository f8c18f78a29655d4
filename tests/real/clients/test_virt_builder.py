"""What the real virt-builder makes of a published repository, over HTTP."""

import json
import re

import pytest

from tests.clients.virt_builder import VirtBuilderError, validate
from tests.support.keys import make_key
from tests.tools import need

pytestmark = pytest.mark.real


LIST = "virt-builder --list --list-format json"


def test_an_unsigned_repository_is_listed(small, served, user):
    (template,) = json.loads(user.add(small.folder / "index.html", LIST))["templates"]
    assert template["os-version"] == "tiny"
    assert template["arch"] == "x86_64"
    assert template["full-name"] == "tiny"
    assert template["size"] == 1 << 20


def test_a_signed_repository_is_listed_with_signature_checks(signed, served_signed, user):
    listed = user.add(signed.folder / "index.html", f"{LIST} --check-signature")
    assert [each["os-version"] for each in json.loads(listed)["templates"]] == ["tiny"]


def test_the_commands_that_serve_prints_work(served_signed, user, key):
    trust = next(line for line in served_signed.lines if "gpg --import" in line)
    source = next(line for line in served_signed.lines if line.endswith("--list"))
    assert key.fingerprint in source
    assert user.paste(f"{trust}\n{source}").split()[:2] == ["tiny", "x86_64"]


def test_the_commands_that_serve_prints_for_an_unsigned_repository_work(served, user):
    listed = user.paste(next(line for line in served.lines if line.endswith("--list")))
    assert listed.split()[:2] == ["tiny", "x86_64"]


def test_virt_index_validate_accepts_both_indexes(signed):
    need("virt-index-validate")
    validate(signed.folder / "index")
    validate(signed.folder / "index.asc")
    (signed.folder / "index").write_text("[tiny]\nname tiny\n")
    with pytest.raises(VirtBuilderError):
        validate(signed.folder / "index")


def test_a_client_with_the_old_revision_gets_the_new_one(small, served, user):
    user.add(small.folder / "index.html")
    user.fetch()
    small.specs.disk("image-specs/files/tiny.img", seed=2)
    small.publish()
    user.fetch()
    cached = {path.name for path in (user.home / "cache" / "virt-builder").iterdir()}
    assert {"tiny.x86_64.1", "tiny.x86_64.2"} <= cached
    first, second = (user.home / "cache" / "virt-builder" / f"tiny.x86_64.{i}" for i in (1, 2))
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.parametrize("name", ["index.asc", "index"])
def test_a_tampered_or_unsigned_index_is_refused(signed, served_signed, user, name):
    index = (signed.folder / name).read_bytes()
    signed.only("index-*.asc").write_bytes(index.replace(b"arch=x86_64", b"arch=aarch64"))
    user.add(signed.folder / "index.html")
    with pytest.raises(VirtBuilderError, match="signature"):
        user.list("--check-signature")


def test_an_index_signed_by_another_key_is_refused(signed, served_signed, user, tmp_path):
    user.add(signed.folder / "index.html")
    other = make_key(tmp_path, "other").public.read_bytes()
    (user.home / "config/virt-builder/repos.d/tests.asc").write_bytes(other)
    with pytest.raises(VirtBuilderError, match="signature"):
        user.list("--check-signature")


def test_a_disk_with_other_bytes_is_refused(small, served, user, tmp_path):
    disk = small.only("images/tiny/x86_64/*/tiny.qcow2.xz")
    data = bytearray(disk.read_bytes())
    data[len(data) // 2] ^= 1
    disk.write_bytes(data)
    user.add(small.folder / "index.html")
    with pytest.raises(VirtBuilderError, match="sha512 checksum of template did not match"):
        user.build("tiny", tmp_path / "out.img")


def test_a_missing_disk_is_reported_as_missing(small, served, user, tmp_path):
    small.only("images/tiny/x86_64/*/tiny.qcow2.xz").unlink()
    user.add(small.folder / "index.html")
    with pytest.raises(VirtBuilderError, match=re.compile("download|curl", re.IGNORECASE)):
        user.build("tiny", tmp_path / "out.img")


def test_an_index_entry_without_arch_hides_every_image(small, served, user):
    index = small.folder / "index"
    index.write_bytes(index.read_bytes().replace(b"arch=x86_64\n", b""))
    user.add(small.folder / "index.html")
    with pytest.raises(VirtBuilderError, match="arch"):
        user.list()
