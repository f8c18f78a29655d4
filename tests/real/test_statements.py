"""Statements signed by the real gpg, and checked as docs/verifying-an-image.md says by hand."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace

import pytest

from lago_images.errors import SigningError
from lago_images.host.process import Runner
from lago_images.repository.rendering import sums
from lago_images.repository.rendering.signing import open_signer
from lago_images.repository.statements import envelope, provenance, sbom
from lago_images.settings import Settings
from tests.support.builders import disk_bytes, manifest
from tests.support.keys import home, make_key, with_subkeys
from tests.support.verification_guide import PublishedRepository
from tests.tools import need

pytestmark = pytest.mark.real
need("gpg", "gpgconf", "sha256sum", "jq", "curl", "bash")

PAYLOAD = b'{"_type": "https://in-toto.io/Statement/v1"}\n'
PACKAGES = b"bash 5.2.15-2+b7 amd64\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return make_key(folder, "one"), make_key(folder, "other")


def signed(*keys, payload=PAYLOAD):
    settings = Settings(signing_key=", ".join(f"file:{key.secret}" for key in keys))
    with open_signer(settings, os.environ, Runner()) as signer:
        return envelope.sign(payload, signer)


def verified(data, *armours):
    return envelope.verify(data, armours, Runner(), os.environ, where="it")


def refused(data, *armours):
    with pytest.raises(SigningError, match=r"^it has no good signature by ") as caught:
        verified(data, *armours)
    return caught.value


def changed(data, **more):
    return json.dumps({**json.loads(data), **more}).encode()


def test_a_statement_is_verified_with_its_signer(keys):
    one, _ = keys
    assert verified(signed(one), one.public.read_bytes()) == envelope.Verified(
        payload=PAYLOAD, signers=(one.fingerprint,)
    )


def test_every_key_of_a_rotation_signs(keys):
    one, other = keys
    data = signed(one, other)
    for trusted in ((one,), (other,), (one, other)):
        signers = verified(data, *(key.public.read_bytes() for key in trusted)).signers
        assert signers == tuple(sorted(key.fingerprint for key in trusted))


def test_a_signature_by_an_untrusted_key_is_ignored(keys):
    one, other = keys
    data = signed(one)
    assert other.fingerprint in refused(data, other.public.read_bytes()).message
    refused(data)


def test_a_forged_key_id_verifies_nothing(keys):
    """A DSSE envelope's key ids are signed by nobody."""
    one, other = keys
    [signature] = json.loads(signed(other))["signatures"]
    forged = [{**signature, "keyid": one.fingerprint}]
    refused(changed(signed(other), signatures=forged), one.public.read_bytes())
    assert verified(
        changed(signed(other), signatures=forged), other.public.read_bytes()
    ).signers == (other.fingerprint,)


def test_another_payload_is_refused(keys):
    one, _ = keys
    other = base64.b64encode(PAYLOAD + b" ").decode()
    refused(changed(signed(one), payload=other), one.public.read_bytes())


def test_a_signature_of_the_bare_payload_is_refused(keys):
    """What the key signs elsewhere, such as repo.metadata, cannot be passed off as a statement."""
    one, _ = keys
    with home() as gpg:
        gpg.import_keys(one.secret.read_bytes())
        bare = gpg.call("--detach-sign", stdin=PAYLOAD)
    signatures = [{"keyid": one.fingerprint, "sig": base64.b64encode(bare).decode()}]
    refused(changed(signed(one), signatures=signatures), one.public.read_bytes())


@pytest.mark.parametrize("sig", [b"", b"no signature"])
def test_invalid_signatures_are_ignored(keys, sig):
    one, _ = keys
    more = {"keyid": "AB", "sig": base64.b64encode(sig).decode()}
    data = signed(one)
    refused(changed(data, signatures=[more]), one.public.read_bytes())
    refused(changed(data, signatures=[]), one.public.read_bytes())
    both = changed(data, signatures=[more, *json.loads(data)["signatures"]])
    assert verified(both, one.public.read_bytes()).signers == (one.fingerprint,)


def test_a_subkey_signs_for_its_key(tmp_path):
    [key] = with_subkeys(tmp_path, ("never", "20260102T000000"))
    assert verified(signed(key), key.public.read_bytes()).signers == (key.fingerprint,)


def test_a_signature_by_a_key_that_expired_later_is_accepted(tmp_path):
    key = make_key(tmp_path, "old", expire="30d", at="20240101T000000")
    with home() as gpg:
        gpg.import_keys(key.secret.read_bytes())
        pae = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(PAYLOAD), PAYLOAD)
        sig = gpg.call("--faked-system-time=20240102T000000!", "--detach-sign", stdin=pae)
    data = json.dumps(
        {
            "payload": base64.b64encode(PAYLOAD).decode(),
            "payloadType": envelope.TYPE,
            "signatures": [{"keyid": "", "sig": base64.b64encode(sig).decode()}],
        }
    ).encode()
    assert verified(data, key.public.read_bytes()).signers == (key.fingerprint,)


def test_a_signature_by_a_revoked_key_is_ignored(tmp_path):
    """gpg itself ends with 0 for such a signature."""
    with home() as gpg:
        gpg.call("--quick-generate-key", "r <r@example.org>", "ed25519", "sign", "never")
        fingerprint = gpg.secret_keys()[0].fingerprint
        secret = tmp_path / "secret.asc"
        secret.write_bytes(gpg.call("--armor", "--export-secret-keys", fingerprint))
        good = gpg.public_key(fingerprint)
        revocation = (gpg.home / "openpgp-revocs.d" / f"{fingerprint}.rev").read_bytes()
        gpg.import_keys(revocation.replace(b":-----BEGIN", b"-----BEGIN"))
        revoked = gpg.public_key(fingerprint)
    with open_signer(Settings(signing_key=f"file:{secret}"), os.environ, Runner()) as signer:
        data = envelope.sign(PAYLOAD, signer)
    assert verified(data, good).signers == (fingerprint,)
    refused(data, revoked)


def test_an_invalid_public_key_is_reported(keys):
    with pytest.raises(SigningError, match=r"^not a public key: "):
        verified(signed(keys[0]), b"no key")


def test_sha256sum_checks_the_published_sums(tmp_path):
    files = {f"images/n/x86_64/b{i}/n.qcow2.xz": f"disk {i}".encode() for i in range(3)}
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(data)
    pairs = [(path, hashlib.sha256(data).hexdigest()) for path, data in files.items()]
    (tmp_path / "SHA256SUMS").write_bytes(sums.render(pairs))
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    subprocess.run(check, cwd=tmp_path, check=True)
    (tmp_path / pairs[1][0]).write_bytes(b"disk 7")
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 1


def publish(folder, key, **more):
    """Two builds of an image, the second without what lies beside its disk."""
    of = manifest(packages=1, commit=COMMIT, **more)
    image = f"images/{of.name}/{of.arch}/{of.build_id}"
    beside = {
        "manifest.json": of.to_json(),
        "packages.txt": PACKAGES,
        "sbom.cdx.json": sbom.render(of, PACKAGES),
    }
    origin = provenance.Origin(
        spec="image-specs/debian-12",
        repository="https://git.example.org/specs",
        builder="urn:test",
        byproducts={name: hashlib.sha256(data).hexdigest() for name, data in beside.items()},
    )
    statement = provenance.of(of, origin).to_json()
    disks = {
        f"images/debian-12/x86_64/{build}/debian-12.qcow2.xz": disk_bytes("debian-12", build)
        for build in ("b1", "b2")
    }
    listed = sums.render((name, hashlib.sha256(data).hexdigest()) for name, data in disks.items())
    with open_signer(Settings(signing_key=f"file:{key.secret}"), os.environ, Runner()) as signer:
        files = {
            f"key-{key.fingerprint}.asc": key.public.read_bytes(),
            "SHA256SUMS.asc": signer.keys[0].clearsign(listed),
            f"{image}/provenance.json": envelope.sign(statement, signer),
            **disks,
            **{f"{image}/{name}": data for name, data in beside.items()},
        }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return PublishedRepository(folder=folder, image=image, key=key.fingerprint)


@pytest.fixture(scope="module")
def published(tmp_path_factory, keys):
    return publish(tmp_path_factory.mktemp("published"), keys[0])


def test_the_documented_commands_lead_from_the_key_to_the_commit(published, tmp_path):
    done = published.run_commands(tmp_path / "w")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("Good signature") == 2
    for line in ("debian-12.qcow2.xz: OK", "manifest.json: OK", "sbom.cdx.json: OK", COMMIT):
        assert line in done.stdout


@pytest.fixture
def copy(published, tmp_path):
    shutil.copytree(published.folder, tmp_path / "copy")
    return replace(published, folder=tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("debian-12.qcow2.xz", "debian-12.qcow2.xz: FAILED"),
        ("manifest.json", "manifest.json: FAILED"),
        ("packages.txt", "packages.txt: FAILED"),
        ("sbom.cdx.json", "sbom.cdx.json: FAILED"),
    ],
)
def test_the_documented_commands_find_a_changed_file(copy, tmp_path, name, what):
    path = copy.folder / copy.image / name
    path.write_bytes(path.read_bytes() + b" ")
    done = copy.run_commands(tmp_path / "w")
    assert done.returncode != 0
    assert what in done.stdout


def test_the_documented_commands_find_changed_sums(copy, tmp_path):
    path = copy.folder / "SHA256SUMS.asc"
    path.write_bytes(path.read_bytes().replace(b"/b2/", b"/b3/"))
    done = copy.run_commands(tmp_path / "w")
    assert done.returncode != 0
    assert "BAD signature" in done.stderr


@pytest.mark.parametrize("kept", ["payload", "signatures"])
def test_the_documented_commands_find_a_changed_statement(copy, tmp_path, keys, kept):
    path = copy.folder / copy.image / "provenance.json"
    ours, other = json.loads(path.read_bytes()), json.loads(signed(keys[1]))
    path.write_text(json.dumps({**other, kept: ours[kept]}))
    done = copy.run_commands(tmp_path / "w")
    assert done.returncode != 0
    assert "Good signature" in done.stderr  # of the sums
    assert "debian-12.qcow2.xz: OK" in done.stdout
    assert "manifest.json" not in done.stdout


@pytest.mark.parametrize("instead", [True, False])
def test_the_documented_commands_trust_one_key(copy, tmp_path, keys, instead):
    """Whoever holds the store can serve a key of his own, and sign with it."""
    one, other = keys
    with home() as gpg:
        for key in keys[1:] if instead else keys:
            gpg.import_keys(key.public.read_bytes())
        served = gpg.call("--armor", "--export")
    (copy.folder / f"key-{one.fingerprint}.asc").write_bytes(served)
    assert (copy.run_commands(tmp_path / "w1").returncode == 0) is not instead
    with open_signer(Settings(signing_key=f"file:{other.secret}"), os.environ, Runner()) as signer:
        (copy.folder / "SHA256SUMS.asc").write_bytes(signer.keys[0].clearsign(b"0  evil\n"))
    done = copy.run_commands(tmp_path / "w2")
    assert done.returncode != 0
    assert "No public key" in done.stderr
    assert "Good signature" not in done.stderr


def test_the_documented_commands_find_another_builds_statement(copy, tmp_path):
    """A statement that is good, in the place of another's."""
    other = copy.image.replace("/b1", "/b2")
    for path in (copy.folder / copy.image).iterdir():
        if path.suffix != ".xz":
            shutil.copy(path, copy.folder / other)
    done = copy.run_commands(tmp_path / "w", IMAGE=other)
    assert done.returncode != 0
    assert done.stderr.count("Good signature") == 2
    lines = [line for line in done.stdout.splitlines() if "debian-12.qcow2.xz: " in line]
    assert [line.rpartition(" ")[2] for line in lines] == ["OK", "FAILED"]


def test_the_documented_commands_find_a_dirty_commit(tmp_path, keys):
    done = publish(tmp_path / "r", keys[0], dirty=True).run_commands(tmp_path / "w")
    assert done.returncode != 0
    assert "manifest.json: OK" in done.stdout
    assert '"dirty": true' in done.stdout
