"""``repo verify``: every kind of damage is found, and told with its repair."""

import hashlib
import io
import json
import lzma
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lago_images.cli.main import main
from lago_images.console import Console
from lago_images.disks.compress import compress
from lago_images.errors import NotFoundError, StorageError, UsageError
from lago_images.host.process import Runner
from lago_images.repository.records import layout
from lago_images.repository.records.manifest import Disk
from lago_images.repository.records.parsing import LARGEST
from lago_images.repository.rendering.lago import hash_file
from lago_images.repository.rendering.signing import Signer, open_signer
from lago_images.repository.rendering.site import Site
from lago_images.repository.serving.server import Server
from lago_images.repository.verifying import files as verify_files
from lago_images.repository.verifying.verifier import Verifier, refuse_nothing
from lago_images.repository.verifying.web import RETRY, Web
from lago_images.settings import Settings
from lago_images.storage.base import Headers
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.open import is_same
from lago_images.storage.s3.store import S3Store
from tests.support.builders import (
    SITE,
    bound,
    copy_of,
    layer_on,
    manifest,
    outdated,
    overwrite,
    publisher,
    put,
    put_build,
    put_copy,
    put_outdated,
    put_release,
    release,
    with_qcow2,
)
from tests.support.keys import make_key, with_subkeys
from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.server_threads import in_thread
from tests.tools import need

BUILDS = [manifest(build_id=f"b{n}", fingerprint=f"f{n}") for n in (1, 2)]
OTHER = manifest("other", build_id="o1", fingerprint="o")


def real_disk(made):
    """The build with a disk that is really compressed, and its bytes."""
    plain = f"disk {made.name} {made.build_id}".encode() * 999
    packed = lzma.compress(plain, format=lzma.FORMAT_XZ)
    disk = Disk(
        format="qcow2",
        virtual_size=1 << 30,
        size=len(plain),
        compressed_size=len(packed),
        sha1=hashlib.sha1(plain).hexdigest(),
        sha256=hashlib.sha256(packed).hexdigest(),
        sha512=hashlib.sha512(packed).hexdigest(),
    )
    return replace(made, disk=disk), packed


def fill(store):
    """Two images, three releases, with real compressed disks."""
    for number, made in ((1, BUILDS[0]), (2, BUILDS[1]), (1, OTHER)):
        make_public(store, number, *real_disk(made))


def make_public(store, number, made, packed, **more):
    """A build, staged, copied and released, with a disk of these bytes."""
    for folder in (put_build(store, made), put_copy(store, made)):
        overwrite(store, folder.disk, packed)
    put_release(store, release(number, made, published=1_700_000_000 + number, **more))


def refresh(store, signer=None, site=SITE):
    return publisher(store, signer=signer or Signer(), site=site).refresh()


@pytest.fixture
def store(tmp_path):
    store = DirectoryStore(path=tmp_path / "repo")
    fill(store)
    refresh(store)
    return store


def verifier(*, tools=False, deep=False, now=1_700_100_000.0, **settings):
    environ = {"PATH": os.environ["PATH"]} if tools else {"PATH": "/nonexistent"}
    given = {"name": SITE.name, "base_url": SITE.base_url, **settings}
    return Verifier(
        settings=Settings(**given),
        environ=environ,
        console=Console(quiet=True),
        deep=deep,
        now=now,
        pause=lambda _seconds: None,
    )


def problems(store, **more):
    report = verifier(**more).store(store)
    assert all(one.repair for one in report.problems)
    found = {}
    for one in report.problems:
        found[one.where] = f"{found.get(one.where, '')} {one.what}"
    return found


def notes(store):
    return {one.where: one.what for one in verifier().store(store).findings}


def change(store, key, data):
    store.put(key, data, expected=store.get(key).etag)


def alter(store, key, old, new):
    data = store.get(key).data
    assert old in data
    change(store, key, data.replace(old, new))


def test_an_alias_that_is_not_offered_is_noted(store):
    thief = replace(BUILDS[0], name="thief", properties={"aliases": OTHER.name})
    make_public(store, 1, *real_disk(thief))
    refresh(store)
    assert problems(store) == {}
    found = [one.what for one in verifier().store(store).findings if one.where == "index"]
    assert "thief (x86_64) is not offered under its alias 'other', which means other" in found


@pytest.mark.parametrize("deep", [True, False])
def test_progress_reports_bytes_read_or_builds_checked(store, deep, monkeypatch):
    monkeypatch.setattr("lago_images.console.PLAIN_SECONDS", 0)
    stream = io.StringIO()
    told = replace(verifier(deep=deep), console=Console(stream=stream))
    read = told.store(store).read / 2**20
    lines = stream.getvalue().splitlines()
    if deep:
        assert f"reading disks: {read:.0f} of {read:.0f} MiB (100 %)" in lines
    else:
        assert "checking builds: 3 of 3 builds (100 %)" in lines


def test_a_good_repository_has_no_problems(store):
    report = verifier(deep=True).store(store)
    assert report.problems == ()
    assert (report.images, report.versions) == (2, 3)
    assert report.read == sum(s.size for s in store.list("images/") if s.key.endswith(".xz"))


B1, B2 = copy_of(BUILDS[0]), copy_of(BUILDS[1])
R1, R2 = "releases/debian-12/x86_64/1.json", "releases/debian-12/x86_64/2.json"


def _release_unrendered(store):
    put_copy(store, manifest(build_id="b3"))
    put_release(store, release(3, "b3"))


def _withdraw_the_base(store):
    layer(store)
    put_release(store, release(3, None, withdraws=2))


DAMAGE = {
    "no index": (lambda s: s.delete(["index"]), "index", "missing"),
    "no repo.metadata": (lambda s: s.delete(["repo.metadata"]), "repo.metadata", "missing"),
    "no catalogue": (lambda s: s.delete(["index.html"]), "index.html", "missing"),
    "bad grammar": (lambda s: alter(s, "index", b"arch=", b"arch ="), "index:3", "no arch"),
    "not JSON": (lambda s: change(s, "repo.metadata", b"{"), "repo.metadata", "not a lago"),
    "an old index": (
        lambda s: alter(s, "index", b"/b2.0123abcd/", b"/b1.0123abcd/"),
        "repo.metadata",
        "another build",
    ),
    "a wrong size": (lambda s: alter(s, "index", b"size=1073741824", b"size=1"), "index:3", "size"),
    "a newer index": (
        lambda s: alter(s, "index", b"revision=2", b"revision=7"),
        "index",
        "ends at 2",
    ),
    "no disk": (lambda s: s.delete([B2.disk]), B2.disk, "offered, and missing"),
    "no old disk": (lambda s: s.delete([B1.disk]), B1.disk, "offered, and missing"),
    "no hash": (lambda s: s.delete([B2.hash]), B2.hash, "missing"),
    "no metadata": (lambda s: s.delete([B2.metadata]), B2.metadata, "missing"),
    "no manifest": (lambda s: s.delete([B2.manifest]), B2.manifest, "missing"),
    "a cut disk": (lambda s: change(s, B2.disk, b"x"), B2.disk, "tampered: it has 1 bytes"),
    "another hash": (lambda s: change(s, B2.hash, b"0" * 40), B2.hash, "tampered: its sha256"),
    "other metadata": (
        lambda s: change(s, B2.metadata, b"{}"),
        B2.metadata,
        "tampered: its sha256",
    ),
    "metadata no JSON": (lambda s: change(s, B2.metadata, b"["), B2.metadata, "tampered"),
    "metadata nested too deep": (
        lambda s: change(s, B2.metadata, b"[" * 200_000),
        B2.metadata,
        "tampered",
    ),
    "a hash that is no text": (lambda s: change(s, B2.hash, b"\xff\xfe"), B2.hash, "tampered"),
    "an endless revision": (
        lambda s: alter(s, "index", b"revision=2", b"revision=" + b"9" * 5000),
        "index:3",
        "not a number",
    ),
    "a bad manifest": (lambda s: change(s, B2.manifest, b"{}"), B2.manifest, "tampered"),
    "no packages": (lambda s: s.delete([B2.packages]), B2.packages, f"{R2} names it, and it is m"),
    "longer packages": (lambda s: change(s, B2.packages, b"x" * 99), B2.packages, "tampered: it"),
    "no sums": (lambda s: s.delete(["SHA256SUMS"]), "SHA256SUMS", "missing"),
    "other sums": (lambda s: alter(s, "SHA256SUMS", b".xz", b".zx"), "SHA256SUMS", "not a SHA-256"),
    "sums that leave one out": (
        lambda s: change(s, "SHA256SUMS", b"# releases x\n"),
        "SHA256SUMS",
        "only in the other",
    ),
    "a copy that no release names": (
        lambda s: (put_copy(s, manifest(build_id="b9")), alter(s, "index", b"/b2.", b"/b9.")),
        copy_of(manifest(build_id="b9")).folder,
        "no release names it",
    ),
    "a layer on a base that was withdrawn": (
        _withdraw_the_base,
        "releases/layer/x86_64/1.json",
        "its base debian-12 2 was withdrawn",
    ),
    "a layer on other bytes": (
        lambda s: layer(s, sha256="6" * 64),
        "releases/layer/x86_64/1.json",
        f"tampered: its base is not what {R2}",
    ),
    "a bad release": (lambda s: change(s, R2, b"{}"), R2, "not a release"),
    "a gap": (lambda s: s.delete([R1]), R1, "gap"),
    "gone back in time": (lambda s: s.delete([R2]), "index", "the history ends at 1"),
    "a copy lost": (lambda s: s.delete([x.key for x in s.list(B1.folder)]), B1.disk, "missing"),
    "a published record": (lambda s: put(s, layout.PUBLISHED, b"{}"), layout.PUBLISHED, "record"),
    "a strange withdrawal": (
        lambda s: put_release(s, release(3, None, withdraws=9)),
        "releases/debian-12/x86_64/3.json",
        "withdraws revision 9",
    ),
    "not rendered": (
        _release_unrendered,
        "index",
        "not what the repository renders to",
    ),
    "a signature without a key": (lambda s: put(s, "index.asc", b"x"), "index.asc", "no key.asc"),
}


def layer(store, **changes):
    """A layer on the second revision, public."""
    base = real_disk(BUILDS[1])[0]
    binding = replace(bound(base, 2), **changes)
    made = manifest("layer", base=replace(layer_on(base), digest=f"sha256:{binding.sha256}"))
    put_copy(store, made)
    put_release(store, release(1, made, base=binding))


@pytest.mark.parametrize("name", DAMAGE)
def test_each_kind_of_damage_is_found(store, name):
    damage, where, what = DAMAGE[name]
    damage(store)
    found = problems(store)
    assert what in found.get(where, ""), found


@pytest.fixture
def with_also(tmp_path):
    """A repository whose one image is there as a qcow2, too."""
    store = DirectoryStore(path=tmp_path / "also")
    make_public(store, 1, *real_disk(with_qcow2(OTHER)))
    refresh(store)
    return store


QCOW2 = copy_of(OTHER).also("qcow2")


def test_a_repository_with_a_qcow2_is_good_and_read_whole(with_also):
    report = verifier(deep=True).store(with_also)
    assert report.problems == ()
    disks = (s.size for s in with_also.list("images/") if s.key.endswith((".xz", ".qcow2")))
    assert report.read == sum(disks)


def test_a_lost_or_shorter_qcow2_is_found(with_also):
    change(with_also, QCOW2, b"short")
    assert "tampered: it has 5 bytes" in problems(with_also)[QCOW2]
    with_also.delete([QCOW2])
    assert problems(with_also)[QCOW2] == " it is offered, and missing"


def test_a_changed_qcow2_is_found_by_a_deep_check(with_also):
    alter(with_also, QCOW2, b"the qcow2", b"the 2wocq")
    assert problems(with_also) == {}
    assert "tampered: its sha256 is not" in problems(with_also, deep=True)[QCOW2]


@pytest.mark.parametrize("how", ["left out", "other"])
def test_over_http_a_qcow2_is_held_to_the_signed_sums_and_the_release(with_also, how):
    with served(with_also) as server:
        assert verifier().web(Web.at(server.url)).problems == ()
        line = next(
            each for each in with_also.get(layout.SUMS).data.splitlines() if b".qcow2" in each[-6:]
        )
        new = b"" if how == "left out" else b"0" * 64 + line[64:] + b"\n"
        alter(with_also, layout.SUMS, line + b"\n", new)
        found = verifier().web(Web.at(server.url)).problems
    [one] = [each for each in found if each.where == layout.SUMS]
    assert one.what == f"it does not have the sha256 that {QCOW2} was released with"


def test_damage_inside_a_disk_is_found_by_a_deep_check(store):
    disk = store.get(B2.disk).data
    change(store, B2.disk, disk[:-9] + bytes([disk[-9] ^ 1]) + disk[-8:])
    assert problems(store) == {}
    assert "tampered: its checksums" in problems(store, deep=True)[B2.disk]
    # It is never made right by signing it: what was released stays what is rendered.
    assert refresh(store).written == ()
    [found] = [one for one in verifier(deep=True).store(store).problems if "tampered" in one.what]
    assert "restore" in found.repair
    command = "repo yank debian-12 --arch x86_64 --revision 2 --reason 'tampered'"
    assert command in found.repair


def test_an_overwritten_public_copy_is_tampered_even_if_consistent(store):
    """Disk, hash and manifest fit each other: the release tells that they are others."""
    evil = b"evil" * 999
    packed = lzma.compress(evil, format=lzma.FORMAT_XZ)
    whole = real_disk(BUILDS[1])[0]
    disk = replace(
        whole.disk,
        size=len(evil),
        compressed_size=len(packed),
        sha1=hashlib.sha1(evil).hexdigest(),
        sha256=hashlib.sha256(packed).hexdigest(),
        sha512=hashlib.sha512(packed).hexdigest(),
    )
    forged = replace(whole, disk=disk)
    change(store, B2.disk, packed)
    change(store, B2.hash, hash_file(forged))
    change(store, B2.manifest, forged.to_json())
    assert refresh(store).written == ()
    found = problems(store)
    assert all("tampered" in found[name] for name in (B2.disk, B2.hash, B2.manifest))
    assert disk.sha512.encode() not in store.get("index").data


def test_an_overwritten_log_is_found_by_a_deep_check(store):
    change(store, B2.packages, store.get(B2.packages).data.replace(b"5.2", b"5.1"))
    assert problems(store) == {}
    assert "tampered" in problems(store, deep=True)[B2.packages]


class Archived(DirectoryStore):
    """Knows its disks and hands out none, as an archiving storage class does."""

    def read(self, key, *, start=0):
        raise StorageError(f"GET {key}: 403 InvalidObjectState")


def test_an_unreadable_disk_is_a_problem(store):
    found = problems(Archived(path=store.path))
    assert found.keys() == {B1.disk, B2.disk, copy_of(OTHER).disk}
    assert all("403" in what for what in found.values())


def test_a_binary_hash_file_is_reported_by_a_deep_check(store):
    change(store, B2.hash, b"\xff\xfe")
    assert problems(store, deep=True).keys() == {B2.hash, B2.disk}


def test_a_disk_of_two_xz_streams_is_a_problem(store):
    whole, packed = real_disk(manifest(build_id="b3", fingerprint="f3"))
    two = packed + lzma.compress(b"more")

    disk = replace(
        whole.disk,
        compressed_size=len(two),
        sha256=hashlib.sha256(two).hexdigest(),
        sha512=hashlib.sha512(two).hexdigest(),
    )
    whole = replace(whole, disk=disk)
    make_public(store, 3, whole, two)
    refresh(store)
    assert problems(store) == {}
    assert "virt-builder refuses" in problems(store, deep=True)[copy_of(whole).disk]


# What reads a repository, and what it took at the most; with a limit, so that a bomb harms no host.
VERIFY = """
import json, pathlib, resource, sys
from lago_images.storage.directory.store import DirectoryStore
from tests.functional.test_verify import problems
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
found = problems(DirectoryStore(path=pathlib.Path(sys.argv[1])), deep=True)
status = pathlib.Path("/proc/self/status").read_text()
[peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
print(json.dumps({"found": found, "peak": int(peak) * 1024}))
"""
GIB = 1 << 30
BOMB = {
    "as its manifest says": (GIB, lambda _: None, None),
    "more than its manifest says": (
        5000,
        lambda _: None,
        r"it holds more than 4\.9 KiB \(5000 bytes\)",
    ),
    "more than the index says": (
        GIB,
        lambda s: (
            s.delete([R2, B2.manifest]),
            alter(s, "index", b"size=1073741824", b"size=5000"),
        ),
        r"it holds more than 64\.0 MiB \(67118864 bytes\)",
    ),
}


@pytest.mark.parametrize("name", BOMB)
def test_a_decompression_bomb_uses_bounded_memory(store, tmp_path, name):
    size, damage, what = BOMB[name]
    with (tmp_path / "zeros").open("wb") as file:
        file.truncate(GIB)
    work = compress(tmp_path / "zeros", level=2, threads=2)
    packed = b"".join(work)
    assert len(packed) < 200_000
    sums = asdict(work.digests) | {"size": size}
    whole = replace(BUILDS[1], disk=Disk(format="qcow2", virtual_size=GIB, **sums))
    for key, data in (
        (B2.disk, packed),
        (B2.hash, hash_file(whole)),
        (B2.manifest, whole.to_json()),
        (R2, release(2, whole).to_json()),
    ):
        change(store, key, data)
    refresh(store)
    damage(store)
    argv = [sys.executable, "-c", VERIFY, store.path]
    root = Path(__file__).parents[2]
    result = json.loads(subprocess.run(argv, check=True, cwd=root, stdout=subprocess.PIPE).stdout)
    assert result["peak"] < 200 * 2**20
    if what is None:
        assert result["found"] == {}
    else:
        assert re.search(what, result["found"][B2.disk])


def test_a_disk_size_other_than_the_manifests_is_found(store):
    whole, packed = real_disk(BUILDS[1])
    disk = replace(whole.disk, size=whole.disk.size + 1)
    other = replace(whole, disk=disk)
    change(store, B2.manifest, other.to_json())
    change(store, R2, release(2, other).to_json())
    refresh(store)
    assert problems(store) == {}
    assert problems(store, deep=True) == {
        B2.disk: f" what is in it has {whole.disk.size} bytes, not {disk.size}"
    }
    assert len(packed) == disk.compressed_size


def test_oversized_numbers_in_the_index_are_reported_by_a_deep_check(store):
    """More digits than Python makes a number of."""
    store.delete([R2, B2.manifest])
    for key in (b"size", b"compressed_size"):
        text = store.get("index").data
        start = text.index(b"\n" + key + b"=") + len(key) + 2
        change(store, "index", text[:start] + b"9" * 5000 + text[text.index(b"\n", start) :])
    assert f"{B2.key.name}: size is" in problems(store, deep=True)["index:3"]


def test_harmless_leftovers_are_notes(store):
    put_build(store, manifest(build_id="waiting"))
    put(store, manifest(build_id="broken-off").key.staging.disk, b"x")
    change(store, put_build(store, manifest(build_id="bad")).manifest, b"{}")
    put_copy(store, manifest(build_id="orphan"))
    put(store, "note-to-self", b"x")
    put(store, f"{B2.folder}index.html", b"x")
    put(store, B1.retirement, b"{}")
    refresh(store)
    assert problems(store) == {}
    found = notes(store)
    assert "never released" in found[manifest(build_id="waiting").key.staging.folder]
    assert "without a manifest" in found[manifest(build_id="broken-off").key.staging.folder]
    assert "is not a manifest" in found[manifest(build_id="bad").key.staging.manifest]
    assert "no release names" in found[copy_of(manifest(build_id="orphan")).folder]
    assert found[f"{B2.folder}index.html"] == "no release names it"
    assert "retired" in found[B1.folder]
    assert "note-to-self" in found


def test_records_of_what_is_outdated_are_known_and_damaged_ones_are_notes(store):
    put_outdated(store, outdated(release(1, BUILDS[0]), "openssl 1 2"))
    put_outdated(store, outdated(release(2, BUILDS[1]), "openssl 1 2"))
    refresh(store)
    before = notes(store)
    assert (problems(store), [key for key in before if "outdated" in key]) == ({}, [])
    folder = "releases/debian-12/x86_64/outdated/"
    put(store, f"{folder}2.2.json", b"{}")
    put(store, f"{folder}2.3.json", bytes(LARGEST + 1))
    put(store, f"{folder}1.2.json", outdated(release(1, "other"), "a 1 2", number=2).to_json())
    put(store, f"{folder}7.1.json", outdated(release(7, "b1"), "a 1 2").to_json())
    put(store, f"{folder}x.json", b"{}")
    refresh(store)
    assert problems(store) == {}
    assert (
        json.loads(store.get("latest/debian-12.x86_64.json").data)["revision"]["upstream"] is None
    )
    new = notes(store).items() - before.items()
    found = {key.removeprefix(folder): what for key, what in new}
    assert found.keys() == {"2.2.json", "2.3.json", "1.2.json", "7.1.json", "x.json"}
    assert "is not a record of what is outdated" in found["2.2.json"]
    assert "it is not read: it has 4194305 bytes" in found["2.3.json"]
    assert "it is about build other, and releases/debian-12/x86_64/1.json" in found["1.2.json"]


def test_a_concurrent_publication_is_no_problem(store):
    put_copy(store, manifest(build_id="b3", fingerprint="f3"))
    put_release(store, release(3, "b3", fingerprint="f3"))
    one = verifier()
    patient = replace(one, pause=lambda _seconds: refresh(store))
    assert patient.store(store).problems == ()
    assert one.store(store).problems == ()


def test_an_unpublished_base_url_is_found(store):
    assert (
        "base-url" in verifier(base_url="http://moved.example.org").store(store).problems[0].repair
    )


@contextmanager
def signed(store, tmp_path, *keys, site=SITE):
    settings = Settings(signing_key=",".join(f"file:{key.secret}" for key in keys))
    environ = {"PATH": os.environ["PATH"]}
    with open_signer(settings, environ, Runner(environ=environ)) as signer:
        refresh(store, signer, site)
        yield signer


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    need("gpg")
    folder = tmp_path_factory.mktemp("keys")
    return [make_key(folder, name) for name in ("one", "two")]


def test_signed_files_are_checked_by_our_code_and_the_client_tools(store, tmp_path, keys):
    need("virt-builder", "virt-index-validate")
    with signed(store, tmp_path, *keys):
        pass
    report = verifier(tools=True).store(store)
    assert report.findings == ()
    alter(store, "index.asc", b"revision=2", b"revision=3")
    change(store, "repo.metadata.asc", store.get("index-" + keys[1].fingerprint + ".asc").data)
    store.delete(["index-" + keys[1].fingerprint + ".asc"])
    found = problems(store, tools=True)
    assert "virt-builder" in found["index.asc"] or "signature" in found["index.asc"]
    assert {"index.asc", "repo.metadata.asc", f"index-{keys[1].fingerprint}.asc"} <= found.keys()


def test_an_unsigned_repository_that_should_be_signed_is_found(store):
    assert "nothing is signed" in problems(store, signing_key="env:KEY")["key.asc"]


def test_an_expired_key_is_found(store, tmp_path, keys):
    with signed(store, tmp_path, keys[0]):
        pass
    expired = make_key(tmp_path, "old", expire="1d", at="20240101T000000")
    change(store, "key.asc", expired.public.read_bytes())
    found = problems(store, tools=True)
    assert "expired" in found["key.asc"]


def test_a_signing_subkey_that_expires_soon_is_noted(store, tmp_path):
    need("gpg")
    day = time.strftime("%Y%m%dT%H%M%S", time.gmtime(time.time() - 86_400))
    [key] = with_subkeys(tmp_path, ("20d", day))
    with signed(store, tmp_path, key):
        pass
    one = replace(verifier(now=time.time()), environ={"PATH": os.environ["PATH"]})
    [found] = [found for found in one.store(store).findings if found.where == "key.asc"]
    assert "signing subkey" in found.what
    assert "expires in less than 30 days" in found.what


@contextmanager
def served(store):
    with Server(store, Console(quiet=True), bind="127.0.0.1", port=0) as server, in_thread(server):
        yield server


def test_over_http_a_repository_is_verified_from_its_url_alone(store, tmp_path, keys):
    with (
        served(store) as server,
        signed(store, tmp_path, *keys, site=Site(name="r", base_url=server.url)),
    ):
        for url in (server.url, f"{server.url}/", f"{server.url}/index.asc"):
            report = verifier(tools=True, deep=True).web(Web.at(url))
            assert report.findings == (), url
        assert (report.images, report.versions) == (2, 3)
        store.delete([B1.disk])
        alter(store, f"index-{keys[1].fingerprint}.asc", b"revision=2", b"revision=3")
        found = {one.where for one in verifier(tools=True).web(Web.at(server.url)).problems}
        assert found == {B1.disk, f"index-{keys[1].fingerprint}.asc"}


def test_over_http_another_base_url_for_lago_is_noted(store):
    with served(store) as server:
        report = verifier().web(Web.at(server.url))
    [found] = [one for one in report.findings if one.where == layout.METADATA]
    assert (found.what, report.ok) == (f"it sends lago's users to {SITE.base_url}", True)
    assert found.repair == (
        f"if clients read it at {server.url}: set base-url to that, then lago-images repo refresh"
    )


@pytest.mark.parametrize(
    ("base", "url", "severity"),
    [
        ("http://127.0.0.1:8181", "https://images.example.org", "problem"),
        ("http://localhost", "https://images.example.org/x", "problem"),
        ("http://[::1]:1", "http://10.0.0.1", "problem"),
        ("https://other.example.org", "https://images.example.org", "note"),
        ("http://127.0.0.1:8181", "http://127.0.0.1:9", "note"),
        ("https://images.example.org/x/", "https://images.example.org/x", None),
    ],
)
def test_another_base_url_is_a_problem_where_it_is_a_loopback_address(store, base, url, severity):
    refresh(store, site=Site(name="r", base_url=base))
    files = {layout.METADATA: store.get(layout.METADATA).data}
    found = [one.severity for one in verify_files.led_elsewhere(files, url)]
    assert found == ([severity] if severity else [])


def test_over_http_content_type_and_cache_headers_are_checked(store, monkeypatch):
    with served(store) as server:
        headers = layout.headers
        monkeypatch.setattr(
            layout, "headers", lambda key: replace(headers(key), cache_control="max-age=86400")
        )
        found = {one.where: one.what for one in verifier().web(Web.at(server.url)).problems}
    assert "too long" in found["index"]
    assert "never changes" in found[B2.disk]


class Breaking(DirectoryStore):
    """Breaks off in the middle of each disk, so many times."""

    breaks = 0

    def read(self, key, *, start=0):
        data = b"".join(super().read(key, start=start))
        if key.endswith(".xz") and Breaking.breaks:
            Breaking.breaks -= 1
            yield data[: len(data) // 2]
            raise StorageError("broken off")
        yield data


def over_http(server, **more):
    report = verifier(**more).web(
        Web(url=server.url, retry=replace(RETRY, sleep=lambda _seconds: None))
    )
    return {one.where: one.what for one in report.problems}


def test_over_http_an_interrupted_download_is_resumed(store):
    with served(Breaking(path=store.path)) as server:
        Breaking.breaks = 3
        assert over_http(server, deep=True) == {}
        Breaking.breaks = 99
        found = over_http(server, deep=True)
        # Nothing is said of the disks: there is nothing to restore or withdraw.
        assert set(found) == {B1.disk, B2.disk, copy_of(OTHER).disk}
        assert all("cannot be read" in what for what in found.values())


class Plain(QuietHandler):
    """A web server that knows neither ranges nor ETags.

    ``missing`` is its answer to what is not there; ``cut`` are the keys that it once sends in
    half; ``old`` are earlier contents of keys, each sent once more.
    """

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        key = self.path.lstrip("/")
        server: Any = self.server
        try:
            data, status = server.store.get(key).data, 200
        except NotFoundError:
            data, status = b"no", server.missing
        if body:
            data = server.old.pop(key, data)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", layout.headers(key).cache_control)
        self.end_headers()
        if body and key in server.cut:
            server.cut.remove(key)
            self.close_connection = True
            data = data[: len(data) // 2]
        if body:
            self.wfile.write(data)


@contextmanager
def plainly_served(store, *, missing=404, cut=(), old=()):
    opened: Any = LoopbackServer(Plain)
    with opened as server:
        server.store, server.missing = store, missing
        server.cut, server.old = list(cut), dict(old)
        with in_thread(server):
            yield server


def test_over_http_a_truncated_answer_is_requested_again(store):
    with plainly_served(store, cut=["index", B1.hash, B2.disk, B2.disk]) as server:
        assert over_http(server, deep=True) == {}
        assert server.cut == []


def test_over_http_a_concurrent_publication_is_no_problem(store):
    before = store.get("repo.metadata").data
    put_copy(store, manifest(build_id="b3", fingerprint="f3"))
    put_release(store, release(3, "b3", fingerprint="f3", published=1_700_000_009))
    refresh(store)
    with plainly_served(store, old={"repo.metadata": before}) as server:
        assert over_http(server) == {}
        assert server.old == {}


@pytest.mark.parametrize("status", [401, 403])
def test_an_unsigned_repository_is_verified_in_an_unlistable_bucket(store, status):
    """S3 then answers for what is not there as for what is not to be read."""
    with plainly_served(store, missing=status) as server:
        report = verifier().web(Web.at(server.url))
        assert report.problems == ()
        notes = {one.where for one in report.findings if str(status) in one.what}
        assert notes == {"SHA256SUMS.asc", "index.asc", "key.asc", "repo.metadata.asc"}
        store.delete([B1.disk, B2.hash])
        denied = verifier().web(Web.at(server.url)).problems
        assert {one.where for one in denied} == {B1.disk, B2.hash}
        for one in denied:
            assert one.repair.startswith("let everybody read what is published: docs/policies has")
            assert one.repair.endswith("; or it is missing")
        store.delete(["index"])
        with pytest.raises(StorageError, match=str(status)) as caught:
            over_http(server)
        hint = caught.value.hint or ""
        assert hint.startswith("let everybody read what is published: docs/policies has")


def test_old_unfinished_uploads_are_noted(ceph20):
    store = S3Store.open(ceph20.new_bucket(), environ=ceph20.environ)
    for key in (B1.disk, "another-application/dump"):
        store.bucket.small.create_multipart_upload(Bucket=store.bucket.name, Key=key)

    def noted(days):
        report = verifier(now=time.time() + days * 86_400).store(store)
        return [one.where for one in report.findings if "broken off" in one.what]

    assert noted(1) == []
    assert noted(8) == [B1.disk]


class Mute(DirectoryStore):
    """Does not let its uploads be listed."""

    def unfinished(self, prefix=""):
        raise StorageError(f"listing {prefix}: 403")


def test_unlistable_uploads_are_only_noted(store):
    report = verifier().store(Mute(path=store.path))
    assert report.problems == ()
    assert "not known" in {one.where: one.what for one in report.findings}["builds/"]


def written_by_another_tool(store, key, **headers):
    client = store.bucket.small
    client.put_object(Bucket=store.bucket.name, Key=key, Body=store.get(key).data, **headers)


def test_lost_headers_are_found_and_restored_by_refresh(moto):
    store = S3Store.open(moto.new_bucket(), environ=moto.environ)
    fill(store)
    refresh(store)
    assert problems(store) == {}
    written_by_another_tool(store, "index", CacheControl="public, max-age=60")
    written_by_another_tool(store, "repo.metadata")
    written_by_another_tool(store, B2.disk, CacheControl="no-store", ContentType="x/y")
    found = problems(store)
    assert "Content-Type" in found["index"]
    assert "caches may keep it" in found["repo.metadata"]
    assert "it never changes" in found[B2.disk]
    done = refresh(store)
    assert done.written == ("index", "repo.metadata")
    # What is written once is not written again.
    assert problems(store).keys() == {B2.disk}
    assert refresh(store).written == ()


class Forgetful(DirectoryStore):
    """Makes up its own headers, as a bucket without metadata does."""

    def head(self, key):
        return replace(super().head(key), headers=Headers())

    def get(self, key):
        return replace(super().get(key), headers=Headers())


def test_a_store_without_headers_is_noted_once(store):
    report = verifier().store(Forgetful(path=store.path))
    assert report.problems == ()
    assert [one.where for one in report.findings if "Cache-Control" in one.what] == ["index"]
    refreshed = refresh(Forgetful(path=store.path))
    assert refreshed.written == ()


def test_a_url_without_a_repository_is_reported(tmp_path):
    path = tmp_path / "none"
    with served(DirectoryStore(path=path)) as server:
        done = cli("verify", server.url)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"there is no repository at {server.url}\n" in done.stderr
    done = cli("verify", str(path))
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"there is no folder {path}\n" in done.stderr
    path.mkdir()
    (path / "one.img").write_bytes(b"a disk")
    done = cli("verify", str(path))
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"there is no repository in {path}\n" in done.stderr


def test_one_lost_or_changed_disk_is_told_once_with_one_repair(store):
    """The repair takes all revisions of its build, and says why it is taken."""
    image = real_disk(BUILDS[0])[0]
    put_release(store, replace(release(3, image, published=1_700_000_003), reason="back to 1"))
    refresh(store)
    yank = "lago-images repo yank debian-12 --arch x86_64 --revision 3 --reason"
    change(store, B1.disk, b"cut")
    [found] = verifier().store(store).problems
    assert (found.where, found.what.split(";")[0][:8]) == (B1.disk, "tampered")
    assert found.repair == (
        f"restore {B1.folder} from a copy; or withdraw it: {yank} 'tampered', "
        "which takes revision 1 too"
    )
    store.delete([B1.disk])
    [found] = verifier().store(store).problems
    assert (found.where, found.what) == (B1.disk, "it is offered, and missing")
    assert f"{yank} 'lost', which takes revision 1 too" in found.repair


def test_several_lost_records_are_restored_first_and_told_so_once(store):
    change(store, R2, b"{}")
    store.delete([R1])
    first, *others = verifier().store(store).problems
    assert (first.where, first.what) == (layout.RELEASES, f"several records are lost: {R2}, {R1}")
    assert first.repair.startswith("first restore them all from a copy of releases/, then verify")
    told = {each.where: each.repair for each in others}
    assert {told[R1], told[R2]} == {"with the others: see releases/"}
    # Rendered without them it would be another repository.
    assert "index" in told


def test_a_foreign_repository_is_not_judged_by_the_settings_of_this_one(
    store, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lago-images.toml").write_text(
        'signing-key = "env:KEY"\nname = "mine"\nbase-url = "https://mine.example"\n'
    )
    good = cli("verify", str(store.path))
    assert good.exit_code == 0, good.output
    store.delete(["index.html", B2.disk])
    bad = cli("verify", str(store.path), "--format", "json")
    repairs = {one["where"]: one["repair"] for one in json.loads(bad.stdout)["findings"]}
    assert repairs["index.html"] == f"lago-images --repository {store.path} repo refresh"
    assert f"lago-images --repository {store.path} repo yank debian-12" in repairs[B2.disk]
    with served(store) as server:
        bad = cli("verify", server.url, "--format", "json")
    repairs = {one["where"]: one["repair"] for one in json.loads(bad.stdout)["findings"]}
    assert "lago-images --repository STORE repo yank debian-12" in repairs[B2.disk]
    assert repairs[B2.disk].endswith(f"where STORE is the store behind {server.url}")


def test_ones_own_repository_in_another_spelling_is_judged_by_the_settings(
    store, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lago-images.toml").write_text(
        f'repository = "{store.path}"\nsigning-key = "env:KEY"\n'
    )
    (tmp_path / "link").symlink_to(store.path)
    for own in (f"{store.path}/", f"file://{store.path}", "link"):
        done = cli("verify", own)
        assert done.exit_code == 1, own
        assert "problem: key.asc: signing-key is set, and nothing is signed" in done.stdout


def test_a_setting_that_a_variable_gives_holds_for_another_repository(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("verify", str(store.path), LAGO_IMAGES_SIGNING_KEY="env:KEY")
    assert done.exit_code == 1
    assert "problem: key.asc: signing-key is set, and nothing is signed" in done.stdout


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("s3://bk1/p", "s3://bk1/p/", True),
        ("s3://bk1", "s3://bk1/p", False),
        ("S3://bk1/p", "s3://bk1/p", True),
        ("/srv/images", "file:///srv/images", True),
        ("images", "/specs/images", True),
        ("images", "s3://specs/images", False),
        ("file://srv/images", "", False),
    ],
)
def test_addresses_of_one_store_are_told_from_those_of_two(one, other, same):
    assert is_same(one, other, Path("/specs")) is same


def test_where_nothing_was_ever_published_nothing_is_judged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    told = "makes the first\n"
    done = cli("verify", "empty")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"error: nothing was ever published in {tmp_path}/empty\n" in done.stderr
    assert "check the path or URL; lago-images" in done.stderr
    assert done.stderr.endswith(told)
    # That of the settings, which no build has made yet.
    done = cli("verify")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "hint: there are no specs here: lago-images init makes an example" in done.stderr
    (tmp_path / "image-specs").mkdir()
    done = cli("verify")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"error: nothing was ever published in {tmp_path}/image-repo\n" in done.stderr
    assert "hint: lago-images build makes the first\n" in done.stderr


ELSEWHERE = b"[el7]\nname=EL 7\narch=x86_64\nsize=1\nfile=el7.qcow2.xz\n"


def _opened(name, request, tmp_path):
    if name == "directory":
        return DirectoryStore(path=tmp_path / "other")
    moto = request.getfixturevalue("moto")
    return S3Store.open(moto.new_bucket(), environ=moto.environ)


@pytest.mark.parametrize("name", ["directory", "bucket"])
def test_a_repository_of_another_program_is_told_from_a_damaged_one(name, request, tmp_path):
    other = _opened(name, request, tmp_path)
    put(other, "index", ELSEWHERE)
    put(other, "el7.qcow2.xz", b"the only disk")
    with pytest.raises(UsageError) as caught:
        refuse_nothing(other, is_named=True, first="build one")
    assert caught.value.message == (
        f"{other.url}: it has an index of another program and no releases/: "
        "it is no repository of lago-images"
    )
    assert "/moving.md" in (caught.value.hint or "")
    # With a file of ours it is one, whatever became of its index.
    for ours in ("state/cache.json", "images.json"):
        put(other, ours, b"{}")
        refuse_nothing(other, is_named=True, first="build one")
        other.delete([ours])


def test_a_bucket_that_was_only_probed_has_no_repository(moto):
    """``doctor`` probes it, and so does a publication that then fails."""
    bucket = S3Store.open(moto.new_bucket(), "images", environ=moto.environ)
    bucket.ensure_safe_writes(single_writer=False, console=Console())
    assert [stat.key for stat in bucket.list()] == ["state/store.json"]
    # Of a probe that was killed.
    put(bucket, "state/probe/0/0", b"first")
    nothing = f"nothing was ever published in {bucket.url}"
    with pytest.raises(UsageError, match=nothing):
        refuse_nothing(bucket, is_named=False, first="build one")
    put(bucket, "index", ELSEWHERE)
    with pytest.raises(UsageError, match="of another program"):
        refuse_nothing(bucket, is_named=False, first="build one")
    put(bucket, "state/published.json", b"{}")
    refuse_nothing(bucket, is_named=False, first="build one")


@pytest.mark.parametrize(
    "left", [("state/",), ("index",), ("images.json",), ("images/",), ("builds/",)]
)
def test_a_repository_that_lost_its_releases_is_damaged_and_there(store, left):
    store.delete([stat.key for stat in store.list() if not stat.key.startswith(left)])
    done = cli("verify", str(store.path))
    assert done.exit_code == 1, done.output
    assert "problem: " in done.stdout


def test_lost_records_come_before_what_may_come_of_that(store):
    put_copy(store, manifest(build_id="orphan"))
    store.delete([R1])
    first, *others = verifier().store(store).findings
    assert (first.where, first.what) == (R1, "the history has a gap: it is missing")
    assert first.repair.startswith("restore it from a copy, before any other repair")
    assert "index" in {each.where for each in others}
    # Of the revision that is missing, too: gc removes nothing now.
    repairs = {each.where: each.repair for each in others}
    assert repairs[B1.folder] == repairs[copy_of(manifest(build_id="orphan")).folder]
    assert repairs[B1.folder].startswith("restore what is missing in the history first")
    assert not [each for each in repairs.values() if each.startswith("lago-images repo gc")]


def test_a_lost_newest_record_comes_first_too(store):
    store.delete([R2])
    first, *others = verifier().store(store).problems
    assert first.repair.startswith("the repository went back in time: restore releases/")
    assert "repo refresh" in others[0].repair


def test_the_copy_of_a_damaged_record_is_kept_by_gc(store):
    change(store, R1, b"{}")
    repairs = [each.repair for each in verifier().store(store).findings if each.where == B1.folder]
    assert any(each.startswith("restore the damaged release first") for each in repairs)
    assert not any("when the grace period is over" in each for each in repairs)


def test_only_of_what_clients_get_now_is_told_that_no_commit_has_it(store):
    make_public(store, 3, *real_disk(manifest(build_id="b3", fingerprint="f3", dirty=True)))
    refresh(store)
    [found] = [each for each in verifier().store(store).findings if "committed" in each.what]
    assert found.repair == "commit them; then lago-images ci rebuild debian-12"
    make_public(store, 4, *real_disk(manifest(build_id="b4", fingerprint="f4")))
    refresh(store)
    found = [each for each in verifier().store(store).findings if "committed" in each.what]
    assert found == []


def test_what_others_put_there_is_left_alone(store):
    put(store, "my-only.qcow2", b"x")
    [found] = [each for each in verifier().store(store).findings if each.where == "my-only.qcow2"]
    assert found.repair == "leave it, or move it elsewhere: lago-images does not use it"


def test_no_rendered_file_is_read_to_see_that_there_is_a_repository(store):
    class Unread(DirectoryStore):
        def get(self, key):
            raise AssertionError(key)

    refuse_nothing(Unread(path=store.path), is_named=True, first="build one")


def test_a_number_out_of_all_order_costs_no_more_than_its_record(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(store, f"releases/debian-12/x86_64/{10**15}.json", b"{}")
    put(store, f"releases/debian-12/x86_64/{10**30}.json", b"{}")
    done = cli("verify", str(store.path))
    assert done.exit_code == 1
    told = " ".join(done.stdout.split())
    assert "the history has a gap: it is missing, as are all up to revision 999999999999999" in told
    assert f"{10**30}.json: nothing of lago-images' has this name" in told
    listed = cli("list", "--repository", str(store.path)).stderr
    assert listed.count("is missing; restore it from a copy") == 1


def cli(*args, **environ):
    clean = {name: None for name in os.environ if name.startswith(("LAGO_IMAGES_", "GITHUB_"))}
    return CliRunner(env={**clean, **environ}).invoke(main, ["repo", *args])


def test_verify_prints_findings_and_sets_the_exit_code(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = cli("verify", str(store.path))
    assert good.exit_code == 0, good.output
    assert good.stdout.endswith("2 images, 3 versions: 0 problems, 0 notes\n")
    store.delete([B2.hash])
    bad = cli("verify", "--format", "json", "--repository", str(store.path))
    assert bad.exit_code == 1
    told = json.loads(bad.stdout)
    assert told["ok"] is False
    assert {"severity", "where", "what", "repair", "before_others"} == set(told["findings"][0])
    assert B2.hash in {one["where"] for one in told["findings"]}


def test_an_unreachable_server_says_nothing_about_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    done = cli("verify", "http://127.0.0.1:9/")
    assert done.exit_code == 1
    assert "error:" in done.stderr
    assert "hint: check the URL, and whether the server runs" in done.stderr
