"""Keys that were changed in one place only: doctor, verify and each publication say which."""

import json

import pytest

from tests.support.keys import home, make_key
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git", "gpg", "qemu-img")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return [make_key(folder, name) for name in ("old", "new", "third")]


@pytest.fixture
def repo(tmp_path):
    """A repository on its own path, which the settings name."""
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("disk.raw", size=1 << 16)
    repo.spec("one", "simple:disk.raw")
    repo.commit()
    return repo


def signing(*keys):
    return {"LAGO_IMAGES_SIGNING_KEY": ",".join(str(key.secret) for key in keys)}


def signing_check(repo, environ=None):
    checks = repo.run("doctor", "--format", "json", environ=environ).json()["checks"]
    [found] = [check for check in checks if check["name"] == "signing"]
    return found


def of_keys(repo, *url, environ=None):
    """The notes of ``repo verify`` about the next publication, which is no failure."""
    ran = repo.run("repo", "verify", *url, "--format", "json", environ=environ)
    assert ran.code == 0, ran.err
    found = ran.json()["findings"]
    assert {each["severity"] for each in found} <= {"note"}
    return [each for each in found if "will be refused" in each["what"]]


def test_a_key_that_only_the_environment_knew_is_missed_before_the_next_publication(repo, keys):
    old, new, _ = keys
    assert repo.run("build", environ=signing(new)).code == 0
    repo.write("lago-images.toml", f'signing-key = "{old.secret}"\n')
    what = (
        f"the published files are signed by {new.fingerprint}, a key that is not in signing-key "
        f"(which has {old.fingerprint}, as lago-images.toml says)"
    )
    do = (
        f"add {new.fingerprint} to signing-key (the key of index.asc is the first); only if no "
        f"client trusts {new.fingerprint} any more: lago-images repo refresh "
        f"--retire-key {new.fingerprint}"
    )
    refused = f"{what}: a publication from here will be refused"
    assert signing_check(repo) == {
        "name": "signing",
        "state": "warning",
        "found": refused,
        "do": do,
    }
    ran = repo.run("doctor")
    assert new.fingerprint in ran.out
    assert "it works with" not in ran.out
    assert "next: lago-images lint" not in ran.err
    [found] = of_keys(repo)
    assert (found["where"], found["repair"]) == ("key.asc", do)
    assert found["what"] == f"{what}: the next publication will be refused"
    for command in (("repo", "yank", "one", "--reason", "test"), ("build", "one")):
        ran = repo.run(*command)
        assert ran.code == 1
        assert f"error: {what}\nhint: {do}\n" in ran.err
    # By the key that signed it is in order.
    assert signing_check(repo, signing(new))["state"] == "ok"
    assert of_keys(repo, environ=signing(new)) == []


def test_several_keys_are_all_named_with_the_variable_that_has_others(repo, keys):
    old, new, third = keys
    assert repo.run("build", environ=signing(old, new)).code == 0
    found = signing_check(repo, signing(third))
    names = " and ".join(sorted((old.fingerprint, new.fingerprint)))
    assert f"signed by {names}, keys that are not in signing-key" in found["found"]
    assert f"which has {third.fingerprint}, as LAGO_IMAGES_SIGNING_KEY says" in found["found"]
    for key in (old, new):
        assert f"--retire-key {key.fingerprint}" in found["do"]


def test_keys_in_another_order_are_told_before_they_are_refused(repo, keys):
    old, new, _ = keys
    assert repo.run("build", environ=signing(old)).code == 0
    swapped = signing(new, old)
    check = signing_check(repo, swapped)
    assert check["state"] == "warning"
    assert f"index.asc is signed by {old.fingerprint}, which is in signing-key" in check["found"]
    assert "let it be the first" in check["do"]
    assert len(of_keys(repo, environ=swapped)) == 1


def test_a_signed_repository_without_a_key_here_is_told_by_doctor(repo, keys):
    """Where CI has the key, whoever verifies need not."""
    old, *_ = keys
    assert repo.run("build", environ=signing(old)).code == 0
    check = signing_check(repo)
    assert check["state"] == "warning"
    assert f"signed by {old.fingerprint}, and signing-key is not set" in check["found"]
    assert check["do"].startswith(
        f"only the publisher needs it; if that is you, set signing-key to {old.fingerprint}"
    )
    assert of_keys(repo) == []
    nowhere = {"LAGO_IMAGES_SIGNING_KEY": "env:NOWHERE"}
    assert signing_check(repo, nowhere)["state"] == "missing"
    assert of_keys(repo, environ=nowhere) == []


def test_the_keys_of_another_repository_are_not_judged_by_the_settings_here(repo, keys, tmp_path):
    old, new, _ = keys
    assert repo.run("build", "--repo-dir", str(tmp_path / "other"), environ=signing(new)).code == 0
    repo.write("lago-images.toml", f'signing-key = "{old.secret}"\n')
    assert of_keys(repo, str(tmp_path / "other")) == []


def test_verify_signs_nothing_for_which_a_passphrase_would_be_asked(repo, keys, tmp_path):
    """It runs at night, where nobody is there to type one."""
    _, new, _ = keys
    with home() as gpg:
        phrase = ("--pinentry-mode", "loopback", "--passphrase", "secret")
        gpg.call(*phrase, "--quick-generate-key", "l <l@example.org>", "ed25519", "sign", "never")
        locked = tmp_path / "locked.asc"
        locked.write_bytes(gpg.call(*phrase, "--armor", "--export-secret-keys"))
    assert repo.run("build", environ=signing(new)).code == 0
    environ = {"LAGO_IMAGES_SIGNING_KEY": str(locked)}
    assert signing_check(repo, environ)["state"] == "missing"
    assert len(of_keys(repo, environ=environ)) == 1


def test_a_subkey_that_is_gone_has_a_reason_of_its_own(repo, tmp_path):
    with home() as gpg:
        gpg.call("--quick-generate-key", "s <s@example.org>", "ed25519", "cert", "never")
        primary = gpg.secret_keys()[0].fingerprint
        gpg.call("--quick-add-key", primary, "ed25519", "sign", "never")
        [first] = gpg.secret_keys()[0].signers
        whole, lone = tmp_path / "whole.asc", tmp_path / "lone.asc"
        whole.write_bytes(gpg.call("--armor", "--export-secret-keys", primary))
        gpg.call("--quick-add-key", primary, "ed25519", "sign", "never")
        [second] = set(gpg.secret_keys()[0].signers) - {first}
        lone.write_bytes(gpg.call("--armor", "--export-secret-subkeys", f"{second}!"))
    assert repo.run("build", environ={"LAGO_IMAGES_SIGNING_KEY": str(whole)}).code == 0
    ran = repo.run("repo", "refresh", environ={"LAGO_IMAGES_SIGNING_KEY": str(lone)})
    assert ran.code == 1
    assert f"signed by the subkey {first}, by which the key in signing-key signs no more" in ran.err
    assert f"hint: put the subkey {first} back into the key; only if no client trusts" in ran.err


def test_a_signature_without_its_key_names_the_way_to_find_it(repo, keys):
    assert repo.run("build", environ=signing(keys[0])).code == 0
    for path in (repo.root / "image-repo").glob("*key*.asc"):
        path.unlink()
    for path in (repo.root / "image-repo").glob("index-*.asc"):
        path.unlink()
    ran = repo.run("repo", "refresh")
    assert (ran.code, "gpg --verify index.asc" in ran.err) == (1, True)
    assert json.loads((repo.root / "image-repo/images.json").read_text())["images"]
