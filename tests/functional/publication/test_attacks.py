"""Who holds the builder's credentials writes what he likes, when he likes: nothing public changes.

On a directory and in a bucket, through the same doors that publishers use.
"""

import hashlib
import lzma
import time
from dataclasses import replace

import pytest

from lago_images.console import Console
from lago_images.errors import TamperedError
from lago_images.repository.publishing import collect, releasing
from lago_images.repository.publishing.copying import PublicCopy
from lago_images.repository.publishing.retention import DAY, Retention
from lago_images.repository.records.manifest import Disk
from lago_images.repository.records.release import Released
from lago_images.repository.records.state import read, survey
from lago_images.repository.rendering.lago import hash_file
from lago_images.repository.verifying.verifier import Verifier
from lago_images.settings import Settings
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.s3.store import S3Store
from tests.support.builders import (
    SITE,
    judged,
    manifest,
    overwrite,
    publisher,
    put_build,
)

ONE, TWO = manifest("one", "b1", fingerprint="f1"), manifest("two", "b1", fingerprint="f2")


@pytest.fixture(params=["directory", "ceph20"])
def store(request, tmp_path):
    if request.param == "directory":
        return DirectoryStore(path=tmp_path / "repo")
    server = request.getfixturevalue("ceph20")
    return S3Store.open(server.new_bucket(), "p", environ=server.environ)


def publish(store, made):
    put_build(store, made)
    return release_staged(store, made)


def release_staged(store, made):
    decision = releasing.Decision(
        released=Released(commit="c1"),
        known_revision=0,
        is_ancestor=lambda _old, _new: None,
        now=lambda: 1_700_000_000.0,
    )
    outcome = releasing.release(store, judged(made), decision)
    publisher(store).refresh()
    return outcome.release


def public(store):
    """Everything that is not staged, and no cache."""
    return {
        stat.key: store.get(stat.key).data
        for stat in store.list()
        if not stat.key.startswith(("builds/", "state/"))
    }


def tampered(store, *, deep=False):
    verifier = Verifier(
        settings=Settings(name=SITE.name, base_url=SITE.base_url),
        environ={"PATH": "/nonexistent"},
        console=Console(quiet=True),
        deep=deep,
        now=1_700_000_000.0,
        pause=lambda _seconds: None,
    )
    return {one.where for one in verifier.store(store).problems if "tampered" in one.what}


def forged(made):
    """A whole build of other bytes under the same name, right in all it says of itself."""
    evil = b"evil" * 999
    packed = lzma.compress(evil, format=lzma.FORMAT_XZ)
    disk = Disk(
        format="qcow2",
        virtual_size=1 << 30,
        size=len(evil),
        compressed_size=len(packed),
        sha1=hashlib.sha1(evil).hexdigest(),
        sha256=hashlib.sha256(packed).hexdigest(),
        sha512=hashlib.sha512(packed).hexdigest(),
    )
    return replace(made, disk=disk), packed


def forge(store, folder, made):
    other, packed = forged(made)
    overwrite(store, folder.disk, packed)
    overwrite(store, folder.hash, hash_file(other))
    overwrite(store, folder.metadata, b'{"root-password": "evil"}')
    overwrite(store, folder.manifest, other.to_json())
    return other


def test_overwriting_a_staged_build_after_its_release_changes_nothing(store):
    release = publish(store, ONE)
    before = public(store)
    other = forge(store, ONE.key.staging, ONE)
    assert publisher(store).refresh().written == ()
    assert public(store) == before
    publish(store, TWO)
    after = public(store)
    assert {key: after[key] for key in before if key.startswith(("images/", "releases/"))} == {
        key: data for key, data in before.items() if key.startswith(("images/", "releases/"))
    }
    assert other.disk.sha512.encode() not in after["index"] + after["repo.metadata"]
    assert read(store).current("one", "x86_64") == release
    assert tampered(store) == set()


def test_an_overwritten_public_disk_is_reported_as_tampered_and_never_signed(store):
    """He needs the publisher's credentials for that; the next publisher must not vouch for it."""
    release = publish(store, ONE)
    other = forge(store, release.public, ONE)
    assert publisher(store).refresh().written == ()
    publish(store, TWO)
    assert other.disk.sha512.encode() not in store.get("index").data
    folder = release.public
    assert tampered(store) == {folder.disk, folder.hash, folder.metadata, folder.manifest}
    assert survey(store).lost == {folder}


@pytest.mark.parametrize("what", ["manifest", "disk", "hash", "metadata"])
def test_a_build_overwritten_before_the_copy_is_refused_and_leaves_nothing(store, what):
    folder = put_build(store, ONE)
    length = store.head(getattr(folder, what)).size
    overwrite(store, getattr(folder, what), b"1" * length)
    with pytest.raises(TamperedError):
        release_staged(store, ONE)
    assert [s.key for s in store.list() if not s.key.startswith(("builds/", "state/"))] == []


def test_gc_removes_the_copy_of_a_publisher_that_died_before_the_release(store):
    publish(store, TWO)
    put_build(store, ONE)
    died = PublicCopy(store=store, judged=judged(ONE))
    died.image(None)
    before = public(store)
    assert publisher(store).refresh().written == ()
    release = release_staged(store, ONE)
    assert release.public != died.target
    keep = Retention(revisions=2, days=30, grace_days=1)
    for later in (2, 4):
        now = time.time() + later * DAY
        done = collect.sweep(publisher(store, now=lambda now=now: now), keep)
        assert died.target in [one.build for one in (*done.sweep.retire, *done.sweep.delete)]
    left = {stat.key for stat in store.list()}
    assert not any(key.startswith(died.target.folder) for key in left)
    assert {key for key in before if "/two/" in key} <= left
    assert read(store).current("one", "x86_64") == release
    assert survey(store).lost == frozenset()
