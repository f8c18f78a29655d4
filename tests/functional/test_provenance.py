"""``repo provenance``: the chain of a signed publication, as a person follows it."""

import base64
import hashlib
import json
import os
from dataclasses import replace

import pytest
from click.testing import CliRunner

from lago_images.cli.main import main
from lago_images.host.process import Runner
from lago_images.repository.publishing import releasing
from lago_images.repository.publishing.releasing import Decision
from lago_images.repository.records.layout import ReleaseKey
from lago_images.repository.records.release import Release, Released
from lago_images.repository.rendering.signing import open_signer
from lago_images.repository.statements import envelope, provenance
from lago_images.repository.statements.making import BUILDER, Statements
from lago_images.repository.statements.provenance import Origin
from lago_images.settings import Settings
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import judged, layer_on, manifest, overwrite, put_build
from tests.support.keys import make_key
from tests.tools import need

need("gpg", "gpgconf")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BASE = manifest("base", "b0", commit=COMMIT, fingerprint="sha256:f0")
LAYER = manifest("layer", "b1", commit=COMMIT, base=layer_on(BASE, 1))
REPOSITORY = "https://git.example.org/specs"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return make_key(folder, "one"), make_key(folder, "other")


def signed_by(key):
    return open_signer(Settings(signing_key=f"file:{key.secret}"), os.environ, Runner())


@pytest.fixture
def repo(tmp_path, monkeypatch, keys):
    """A signed repository of a base and a layer on it, and calls of ``repo`` there."""
    folder = tmp_path / "specs"
    (folder / "image-specs").mkdir(parents=True)
    store = DirectoryStore(path=folder / "image-repo")

    def call(*args, **environ):
        monkeypatch.chdir(folder)
        clean = {name: None for name in os.environ if name.startswith(("LAGO_IMAGES_", "GITHUB_"))}
        return CliRunner(env={**clean, **environ}).invoke(main, ["repo", *args])

    with signed_by(keys[0]) as signer:
        for made in (BASE, LAYER):
            put_build(store, made)
            origin = Origin(spec=f"image-specs/{made.name}", repository=REPOSITORY, builder=BUILDER)
            decision = Decision(
                released=Released(commit=COMMIT, actor="ann", run="https://ci.example.org/7"),
                known_revision=0,
                is_ancestor=lambda _old, _new: None,
                now=lambda: 1_700_000_100.0,
                statements=Statements(signer=signer, origin=origin),
            )
            releasing.release(store, judged(made), decision)
    call.store = store  # type: ignore[attr-defined]
    call.folder = folder / "image-repo"  # type: ignore[attr-defined]
    done = call("refresh", LAGO_IMAGES_SIGNING_KEY=f"file:{keys[0].secret}")
    assert done.exit_code == 0, done.output
    return call


def public(repo, name):
    [path] = (repo.folder / f"images/{name}/x86_64").iterdir()
    return path


def test_provenance_follows_the_chain_from_the_commit_to_the_disk(repo, keys):
    done = repo("provenance", "layer", "--deep")
    assert done.exit_code == 0, done.output
    text = done.stdout
    for line in (
        "layer (x86_64), revision 1",
        f"  commit: {COMMIT} of {REPOSITORY}, image-specs/layer",
        "    verified: the signed statement names it",
        "    verified: releases/base/x86_64/1.json releases this build with this sha256",
        "    verified: size, sha256 and sha512, of every byte",
        "    verified: sbom.cdx.json has the sha256 that was released",
        f"    verified: SHA256SUMS.asc is SHA256SUMS, signed by {keys[0].fingerprint}",
        f"    verified: signed by {keys[0].fingerprint}",
        "    not verified: whose key that is: compare it, or give it with --key",
        "base (x86_64), revision 1",
    ):
        assert f"{line}\n" in text, text
    assert "by ann, 2023-11-14 22:15:00Z" in text
    assert "https://ci.example.org/7" in text
    assert text.endswith("not verified; no link is broken\n")


def test_only_keys_given_with_key_are_trusted(repo, keys):
    one, other = (str(key.public) for key in keys)
    trusted = repo("provenance", "base", "--key", one, "--format", "json")
    assert trusted.exit_code == 0, trusted.output
    told = json.loads(trusted.stdout)
    assert told["ok"]
    assert "whose key" not in trusted.stdout
    assert [step["name"] for step in told["steps"]] == ["base"]
    for given, code in ((("--key", other), 1), (("--key", other, "--key", one), 0)):
        assert repo("provenance", "base", *given).exit_code == code
    done = repo("provenance", "base", "--key", other, "--format", "json")
    assert json.loads(done.stdout)["broken"] == ["base 1: offer", "base 1: signature"]
    assert "where the key was changed since, give the former one, too: --key FILE" in done.stdout


def test_a_file_that_is_not_a_key_is_refused(repo, tmp_path):
    (tmp_path / "no.asc").write_text("no key\n")
    done = repo("provenance", "base", "--key", str(tmp_path / "no.asc"))
    assert done.exit_code == 1
    assert "not a public key" in done.stderr


def broken(repo, name="layer", *more):
    done = repo("provenance", name, "--format", "json", *more)
    told = json.loads(done.stdout)
    assert done.exit_code == (1 if told["broken"] else 0)
    return told["broken"]


def rebound(repo, name, data):
    """Put an envelope into a public copy as who holds the store does: the record fits it."""
    path = public(repo, name) / "provenance.json"
    record = repo.folder / f"releases/{name}/x86_64/1.json"
    old = json.loads(record.read_bytes())
    path.unlink()
    path.write_bytes(data)
    digest = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    old["image"]["objects"]["provenance.json"] = digest
    key = f"releases/{name}/x86_64/1.json"
    overwrite(repo.store, key, json.dumps(old).encode())


def test_a_changed_envelope_breaks_the_signature(repo):
    path = public(repo, "base") / "provenance.json"
    plain = json.loads(path.read_bytes())
    payload = base64.b64decode(plain["payload"]).replace(COMMIT.encode(), b"f" * 40)
    plain["payload"] = base64.b64encode(payload).decode()
    data = json.dumps(plain).encode()
    overwrite(repo.store, str(path.relative_to(repo.folder)), data)
    assert broken(repo) == ["base 1: signature"]
    rebound(repo, "base", data)
    assert broken(repo) == ["base 1: signature"]


def test_another_images_envelope_breaks_the_signature(repo):
    rebound(repo, "base", (public(repo, "layer") / "provenance.json").read_bytes())
    assert broken(repo) == ["base 1: signature"]


def test_an_envelope_of_another_key_breaks_the_signature(repo, keys):
    plain = json.loads((public(repo, "base") / "provenance.json").read_bytes())
    stated = provenance.parse(base64.b64decode(plain["payload"]), "it")
    with signed_by(keys[1]) as signer:
        rebound(repo, "base", envelope.sign(stated.to_json(), signer))
    assert broken(repo) == ["base 1: signature"]


def test_a_manifest_that_was_replaced_with_its_record_breaks_the_signature(repo):
    """Who holds the store can make record and manifest agree, and cannot sign."""
    key = "releases/base/x86_64/1.json"
    place = ReleaseKey(name="base", arch="x86_64", revision=1)
    old = Release.parse(repo.store.get(key).data, place)
    assert old.image
    forged = replace(old.image.manifest, commit="f" * 40)
    data = forged.to_json()
    digest = replace(
        old.image.objects["manifest.json"], sha256=hashlib.sha256(data).hexdigest(), size=len(data)
    )
    objects = {**old.image.objects, "manifest.json": digest}
    image = replace(old.image, manifest=forged, objects=objects)
    overwrite(repo.store, key, replace(old, image=image).to_json())
    overwrite(repo.store, image.public.manifest, data)
    assert broken(repo) == ["base 1: signature"]


def test_with_a_trusted_key_a_release_without_a_statement_is_broken(repo, keys):
    key = "releases/base/x86_64/1.json"
    old = json.loads(repo.store.get(key).data)
    del old["image"]["objects"]["provenance.json"]
    overwrite(repo.store, key, json.dumps(old).encode())
    assert broken(repo, "base") == []
    assert broken(repo, "base", "--key", str(keys[0].public)) == ["base 1: signature"]


def test_unsigned_checksums_break_the_offer_link(repo):
    repo.store.delete(["SHA256SUMS.asc"])
    assert broken(repo, "base") == ["base 1: offer"]


def test_verify_finds_a_changed_statement(repo):
    for name in ("sbom.cdx.json", "provenance.json"):
        path = public(repo, "base") / name
        overwrite(repo.store, str(path.relative_to(repo.folder)), path.read_bytes() + b" ")
    done = repo("verify", "--deep", "--format", "json")
    findings = json.loads(done.stdout)["findings"]
    wrong = {one["where"] for one in findings if "sha256 is not" in one["what"]}
    assert {where.rpartition("/")[2] for where in wrong} == {"provenance.json", "sbom.cdx.json"}
