"""Signing with the real gpg, judged by the real virt-builder."""

import os
import re
import stat
import tempfile
from dataclasses import dataclass, replace
from html import unescape

import pytest

from lago_images.console import Console
from lago_images.errors import SigningError
from lago_images.host.gpg import throw_away
from lago_images.host.process import Runner
from lago_images.repository.publishing.publisher import publishing
from lago_images.repository.records import layout
from lago_images.repository.rendering.signing import open_signer
from lago_images.settings import Settings
from lago_images.storage.directory.store import DirectoryStore
from tests.clients.virt_builder import VirtBuilder, VirtBuilderError
from tests.support.builders import manifest, publish_by_hand, put_release, release
from tests.support.keys import home, make_key, with_subkeys
from tests.support.running import left_running
from tests.tools import need

pytestmark = pytest.mark.real
need("gpg", "gpgconf", "virt-builder")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return make_key(folder, "old"), make_key(folder, "new")


@pytest.fixture
def store(tmp_path):
    store = DirectoryStore(path=tmp_path / "repo")
    publish_by_hand(store, manifest())
    return store


@pytest.fixture
def client(tmp_path):
    return VirtBuilder(home=tmp_path / "user", appliance={})


def signed_by(*keys):
    return Settings(signing_key=", ".join(f"file:{key.secret}" for key in keys), name="r")


def refresh(store, settings, *, retire=(), environ=None):
    with publishing(
        store,
        settings,
        console=Console(quiet=True),
        environ=environ or dict(os.environ),
        now=lambda: 0,
        retire=frozenset(key.fingerprint for key in retire),
    ) as publisher:
        return publisher.refresh()


def trusts(client, store, key, name="index.asc"):
    """What a client sees that trusts one key and reads one path."""
    client.add_source("r", f"file://{store.path}/{name}", key.public)
    return [template["os-version"] for template in client.list("--no-cache")]


def names(store):
    return {stat.key for stat in store.list() if "/" not in stat.key}


def test_a_signed_repository_is_accepted_and_a_tampered_one_refused(store, client, keys):
    old, new = keys
    written = refresh(store, signed_by(old)).written
    assert written == (
        f"key-{old.fingerprint}.asc",
        "catalogue/debian-12.html",
        "catalogue/debian-12.xml",
        "latest/debian-12.x86_64.json",
        "images.json",
        "SHA256SUMS",
        "SHA256SUMS.asc",
        "index",
        f"index-{old.fingerprint}.asc",
        "index.asc",
        "repo.metadata",
        "repo.metadata.asc",
        "feed.xml",
        "index.html",
        "key.asc",
    )
    assert trusts(client, store, old) == ["debian-12"]
    with pytest.raises(VirtBuilderError, match="digital signature"):
        trusts(client, store, new)
    path = store.path / "index.asc"
    path.write_bytes(path.read_bytes().replace(b"revision=1", b"revision=9"))
    with pytest.raises(VirtBuilderError, match="could not verify digital signature"):
        trusts(client, store, old)
    assert refresh(store, signed_by(old)).written == ("index.asc",)
    assert trusts(client, store, old) == ["debian-12"]


def test_an_index_signed_already_is_not_signed_again(store, keys):
    refresh(store, signed_by(keys[0]))
    assert refresh(store, signed_by(keys[0])).written == ()


@pytest.mark.parametrize("data", [b"", b"edited by hand\n"])
@pytest.mark.parametrize("of_all", [True, False])
def test_a_damaged_key_file_is_restored(store, client, keys, data, of_all):
    own = keys[0]
    refresh(store, signed_by(own))
    name = "key.asc" if of_all else f"key-{own.fingerprint}.asc"
    (store.path / name).write_bytes(data)
    assert refresh(store, signed_by(own)).written == (name,)
    assert store.get(name).data == own.public.read_bytes()


def test_a_damaged_key_file_with_unknown_fingerprints_is_reported(store, keys):
    old, new = keys
    refresh(store, signed_by(old))
    (store.path / "key.asc").write_text("edited by hand")
    with pytest.raises(SigningError, match=r"key\.asc is damaged") as caught:
        refresh(store, signed_by(new))
    assert "delete it" in caught.value.hint


def test_files_named_like_keys_are_left_alone(store, keys):
    others = {"key-team.asc", "index-backup.asc", "index-2024", f"index-{'0' * 39}.asc"}
    for name in others:
        store.put(name, b"of somebody else", expected=None)
    refresh(store, Settings(name="r"))
    refresh(store, signed_by(keys[0]))
    done = refresh(store, Settings(name="r"), retire=keys[:1])
    assert others <= names(store)
    assert f"index-{keys[0].fingerprint}.asc" in done.deleted


def test_a_signature_by_another_key_is_replaced(store, keys):
    old, new = keys
    refresh(store, signed_by(old))
    with open_signer(signed_by(new), os.environ, Runner()) as signer:
        foreign = signer.keys[0].clearsign(store.get("index").data)
    store.put("index.asc", foreign, expected=store.get("index.asc").etag)
    assert refresh(store, signed_by(old)).written == ("index.asc",)


def test_a_long_path_of_temporary_files_does_not_prevent_signing(
    store, keys, tmp_path, monkeypatch
):
    """gpg's agent listens on a socket, whose path may have 107 bytes."""
    far = tmp_path / ("x" * 100)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    assert "index.asc" in refresh(store, signed_by(keys[0])).written
    assert list(far.iterdir()) == []


def test_gpg_itself_accepts_the_signature_of_repo_metadata(store, keys):
    refresh(store, signed_by(keys[0]))
    with home() as gpg:
        gpg.import_keys(store.get("key.asc").data)
        signature = store.get("repo.metadata.asc").data
        data = store.get("repo.metadata").data
        assert gpg.detached_signer(signature, data) == keys[0].fingerprint
        with pytest.raises(SigningError, match="is of another text"):
            gpg.detached_signer(signature, data + b" ")


def test_rotating_a_key_keeps_old_and_new_clients_working(store, client, keys):
    """The procedure of docs/signing.md, step by step."""
    old, new = keys
    refresh(store, signed_by(old))

    refresh(store, signed_by(old, new))
    of_new = layout.signed_index(new.fingerprint)
    assert trusts(client, store, old) == ["debian-12"]
    assert trusts(client, store, new, of_new) == ["debian-12"]
    assert of_new.encode() in store.get("index.html").data

    publish_by_hand(store, manifest("later"))
    refresh(store, signed_by(old, new))
    assert trusts(client, store, old) == ["debian-12", "later"]
    assert trusts(client, store, new, of_new) == ["debian-12", "later"]

    with pytest.raises(SigningError, match=old.fingerprint):
        refresh(store, signed_by(new))
    with pytest.raises(SigningError, match=old.fingerprint):
        refresh(store, signed_by(new, old))
    assert trusts(client, store, old) == ["debian-12", "later"]

    done = refresh(store, signed_by(new), retire=[old])
    assert set(done.deleted) == {
        layout.signed_index(old.fingerprint),
        layout.key_file(old.fingerprint),
    }
    assert trusts(client, store, new, of_new) == ["debian-12", "later"]
    assert trusts(client, store, new) == ["debian-12", "later"]
    assert refresh(store, signed_by(new)).written == ()


def test_a_signed_repository_is_unsigned_only_by_retiring_its_key(store, keys):
    refresh(store, signed_by(keys[0]))
    before = {name: store.get(name).data for name in names(store)}
    with pytest.raises(SigningError, match=keys[0].fingerprint) as caught:
        refresh(store, Settings())
    assert "--retire-key" in caught.value.hint
    assert {name: store.get(name).data for name in names(store)} == before
    refresh(store, Settings(), retire=[keys[0]])
    unsigned = {"images.json", "SHA256SUMS", "index", "repo.metadata", "feed.xml", "index.html"}
    assert names(store) == unsigned
    assert refresh(store, Settings()).written == ()


def test_a_new_subkey_works_for_existing_clients(store, client, tmp_path):
    one, two = with_subkeys(tmp_path, ("never", "20260102T000000"), ("never", "20260103T000000"))
    refresh(store, signed_by(one))
    publish_by_hand(store, manifest("later"))
    assert "key.asc" in refresh(store, signed_by(two)).written
    assert trusts(client, store, one) == ["debian-12", "later"]


def test_a_subkey_that_clients_know_is_not_dropped(store, client, tmp_path):
    [both] = with_subkeys(tmp_path, ("never", "20260102T000000"))
    refresh(store, signed_by(both))
    with home() as gpg:
        gpg.import_keys(both.secret.read_bytes())
        [subkey] = gpg.secret_keys()[0].signers
        gpg.call("--quick-add-key", both.fingerprint, "ed25519", "sign", "never")
        [other] = set(gpg.secret_keys()[0].signers) - {subkey}
        lone = tmp_path / "lone.secret.asc"
        lone.write_bytes(gpg.call("--armor", "--export-secret-subkeys", f"{other}!"))
    after = Settings(signing_key=f"file:{lone}", name="r")
    with pytest.raises(SigningError, match=subkey):
        refresh(store, after)
    with publishing(
        store,
        after,
        console=Console(quiet=True),
        environ=os.environ,
        now=lambda: 0.0,
        retire=frozenset({subkey}),
    ) as publisher:
        publisher.refresh()
    assert refresh(store, after).written == ()


class DyingError(Exception):
    pass


@dataclass
class Dying:
    """A store whose user dies after so many changes."""

    inner: DirectoryStore
    left: int

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def _count(self):
        if not self.left:
            raise DyingError
        self.left -= 1

    def put(self, key, data, **more):
        self._count()
        return self.inner.put(key, data, **more)

    def delete(self, keys):
        names = list(keys)
        if names:
            self._count()
        self.inner.delete(names)


@pytest.mark.parametrize("signed", [True, False], ids=["for another", "for none"])
def test_an_interrupted_key_retirement_is_finished_by_the_next_publisher(tmp_path, keys, signed):
    old, new = keys
    after = signed_by(new) if signed else Settings(name="r")
    for changes in range(1, 30):
        store = DirectoryStore(path=tmp_path / str(changes))
        publish_by_hand(store, manifest())
        refresh(store, signed_by(old, new) if signed else signed_by(old))
        try:
            refresh(Dying(store, changes), after, retire=[old])
        except DyingError:
            refresh(store, after)
            assert not {name for name in names(store) if old.fingerprint in name}
            assert ("index.asc" in names(store)) == signed
            assert refresh(store, after).written == ()
        else:
            assert changes > 5
            return
    pytest.fail("a retirement without an end")


def test_a_key_in_use_is_not_retired(store, keys):
    with pytest.raises(SigningError, match="is to be retired and is in signing-key"):
        refresh(store, signed_by(keys[0]), retire=[keys[0]])


def test_an_empty_index_is_signed_only_where_it_replaces_another(tmp_path, client, keys):
    store = DirectoryStore(path=tmp_path / "empty")
    refresh(store, signed_by(keys[0]))
    assert "index.asc" not in names(store)
    publish_by_hand(store, manifest())
    refresh(store, signed_by(keys[0]))
    put_release(store, release(2, None, withdraws=1))
    refresh(store, signed_by(keys[0]))
    assert trusts(client, store, keys[0]) == []


def test_the_signing_key_is_read_from_the_environment(store, client, keys):
    environ = {**os.environ, "THE_KEY": keys[0].secret.read_text()}
    refresh(store, Settings(signing_key="env:THE_KEY"), environ=environ)
    assert trusts(client, store, keys[0]) == ["debian-12"]


def test_the_signing_key_is_taken_from_the_users_keyring(store, client, keys):
    with home() as gpg:
        gpg.import_keys(keys[0].secret.read_bytes())
        environ = {**os.environ, "GNUPGHOME": str(gpg.home)}
        refresh(store, Settings(signing_key=f"agent:{keys[0].fingerprint}"), environ=environ)
    assert trusts(client, store, keys[0]) == ["debian-12"]


def refused(settings, **environ):
    with (
        pytest.raises(SigningError) as caught,
        open_signer(settings, {**os.environ, **environ}, Runner()),
    ):
        pytest.fail("a key that cannot sign was accepted")
    return caught.value


def test_a_missing_signing_key_is_refused(tmp_path):
    assert "cannot read" in refused(Settings(signing_key=str(tmp_path / "none"))).message
    assert "THE_KEY" in refused(Settings(signing_key="env:THE_KEY")).message
    assert "no secret key" in refused(Settings(signing_key="agent:" + "0" * 40)).message


def test_a_file_without_a_key_is_refused(tmp_path):
    (tmp_path / "key").write_text("no key")
    assert "holds no key" in refused(Settings(signing_key=str(tmp_path / "key"))).message


def test_a_public_key_is_refused(keys):
    error = refused(Settings(signing_key=f"file:{keys[0].public}"))
    assert "no secret key" in error.message
    assert "--export-secret-keys" in error.hint


def test_two_keys_in_one_file_are_refused(tmp_path, keys):
    both = tmp_path / "both"
    both.write_bytes(keys[0].secret.read_bytes() + keys[1].secret.read_bytes())
    assert "2 secret keys" in refused(Settings(signing_key=str(both))).message
    assert "twice" in refused(signed_by(keys[0], keys[0])).message


def test_an_expired_key_is_refused_before_anything_is_written(tmp_path, store):
    expired = make_key(tmp_path, "expired", expire="1d", at="20200101T000000")
    before = {stat.key: stat.etag for stat in store.list()}
    with pytest.raises(SigningError, match="expired") as caught:
        refresh(store, signed_by(expired))
    assert "--quick-set-expire" in caught.value.hint
    assert {stat.key: stat.etag for stat in store.list()} == before


def test_no_gpg_agent_and_no_secret_remain(keys):
    with throw_away(Runner(), os.environ) as gpg:
        gpg.import_keys(keys[0].secret.read_bytes())
        gpg.clearsign(keys[0].fingerprint, b"x\n")
        assert stat.S_IMODE(gpg.home.stat().st_mode) == 0o700
        left = gpg.home
    assert not left.exists()
    assert left_running(str(left)) == []


def test_the_catalogues_commands_configure_a_source(store, client, keys):
    refresh(store, replace(signed_by(keys[0]), base_url=f"file://{store.path}"))
    page = store.get("index.html").data.decode()
    match = re.search(r'<pre id="use-2"[^>]*><code>(.*?)</code></pre>', page, re.DOTALL)
    client.paste(unescape(match[1]))
    listed = client.list("--no-cache", "--check-signature")
    assert [template["os-version"] for template in listed] == ["debian-12"]
