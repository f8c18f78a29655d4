"""Disks that a maker's signed list of checksums names, from servers as they are on bad days."""

import hashlib
import io
import lzma
import os
import subprocess
import time
from dataclasses import replace
from functools import partial

import pytest

from lago_images.building.bases import simple
from lago_images.building.bases.signed_list import fetch_listed
from lago_images.building.chain import build_chains
from lago_images.building.downloads import Downloader
from lago_images.building.model import Context, Request
from lago_images.console import Console
from lago_images.errors import BuildError, Error, SigningError, SpecError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.host.retry import RetryPolicy
from lago_images.planning.tree import read_tree
from lago_images.settings import Settings
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import lines
from tests.support.files import answering, serving
from tests.support.keys import home, make_key
from tests.support.maker import Maker, sums
from tests.tools import need

need("gpg", "gpgv")
ATTEMPTS = 3
NO_WAIT = RetryPolicy(attempts=ATTEMPTS, sleep=lambda _seconds: None)
OLD, NEW = b"old".ljust(4096, b"\0"), b"new".ljust(8192, b"\0")
NAMES = {"/d/disk-1.9.img": OLD, "/d/disk-1.10.img": NEW}
SECRET = b"export AWS_SECRET_ACCESS_KEY=hunter2\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return make_key(folder, "maker"), make_key(folder, "other")


@pytest.fixture(scope="module")
def maker(keys):
    return Maker(keys[0])


@pytest.fixture
def context(tmp_path, keys):
    root = tmp_path / "root"
    root.mkdir()
    (root / "key.asc").write_bytes(keys[0].public.read_bytes())
    return Context(
        root=root,
        store=DirectoryStore(path=tmp_path / "repo"),
        settings=Settings(folder=root),
        console=Console(stream=io.StringIO()),
        environ={**os.environ, "TMPDIR": str(tmp_path)},
        cache=tmp_path / "cache",
        logs=tmp_path / "logs",
        clock=time.time,
    )


@pytest.fixture
def server():
    with serving() as files:
        yield files


def base(server, *more, pattern="disk-*.img", checksums="/d/SHA256SUMS"):
    return lines(
        f"#base-checksums={server.url}{checksums}",
        "#base-key=key.asc",
        *more,
        base=f"simple:{server.url}/d/{pattern}",
    )


def fetched(spec, context, retry=NO_WAIT):
    """What was unpacked, and its record."""
    disk = context.root.parent / "base.disk"
    disk.unlink(missing_ok=True)
    record = fetch_listed(spec, disk, context, Runner(environ=context.environ), retry=retry)
    return disk.read_bytes(), record


def refused(spec, context, error=BuildError, retry=NO_WAIT):
    with pytest.raises(error) as caught:
        fetched(spec, context, retry)
    assert not (context.root.parent / "base.disk").exists()
    assert "hunter2" not in f"{caught.value.message} {context.console.stream.getvalue()}"
    return caught.value


def healing(change):
    """Tries once more, after a change that happens while it waits."""
    return replace(NO_WAIT, attempts=2, sleep=lambda _seconds: change())


def paths(server):
    return [path for path, _, _ in server.requests]


@pytest.mark.parametrize("style", ["gnu", "bsd"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_newest_file_of_a_clear_signed_list_is_used(context, server, maker, algorithm, style):
    server.content |= NAMES
    server.content["/d/CHECKSUM"] = maker.clear(sums(NAMES, algorithm, style))
    content, record = fetched(base(server, checksums="/d/CHECKSUM"), context)
    assert content == NEW
    assert record.ref == f"simple:{server.url}/d/disk-*.img"
    assert record.digest == f"{algorithm}:{hashlib.new(algorithm, NEW).hexdigest()}"
    assert record.detail == (
        f"disk-1.10.img in {server.url}/d/CHECKSUM, signed by {maker.key.fingerprint}"
    )
    assert paths(server) == ["/d/CHECKSUM", "/d/disk-1.10.img"]


@pytest.mark.parametrize("how", [(), ("--armor",)])
@pytest.mark.parametrize("suffix", [".gpg", ".asc", ".sign", ".sig"])
def test_a_detached_signature_is_accepted(context, server, maker, suffix, how):
    server.content |= NAMES
    server.content["/d/SHA256SUMS"] = text = sums(NAMES)
    server.content[f"/d/SHA256SUMS{suffix}"] = maker.sign(text, "--detach-sign", *how)
    assert fetched(base(server), context)[0] == NEW


def test_a_binary_key_file_is_accepted(context, server, maker):
    with home() as gpg:
        binary = gpg.call("--dearmor", stdin=maker.key.public.read_bytes())
    (context.root / "key.asc").write_bytes(binary)
    maker.publish(NAMES, server)
    assert fetched(base(server), context)[0] == NEW


def test_a_cached_file_is_not_downloaded_again(context, server, maker):
    maker.publish(NAMES, server)
    for _ in range(2):
        assert fetched(base(server), context)[0] == NEW
    assert paths(server) == ["/d/SHA256SUMS", "/d/disk-1.10.img", "/d/SHA256SUMS"]


def test_the_base_is_downloaded_with_the_guests_network_off(context, server, maker):
    maker.publish(NAMES, server)
    settings = replace(context.settings, network=False)
    assert fetched(base(server), replace(context, settings=settings))[0] == NEW


def test_an_interrupted_download_is_resumed(context, server, maker):
    maker.publish(NAMES, server)
    server.cut = [None, 300]
    assert fetched(base(server), context)[0] == NEW
    assert [status for _, _, status in server.requests] == [200, 200, 206]


THEN = "--faked-system-time=20200601T000000!"


@pytest.fixture(scope="module")
def aged(tmp_path_factory):
    """Makers with a key of 2020 each: one is good for ever, the other has expired."""
    folder, made = tmp_path_factory.mktemp("aged"), "20200101T000000"
    steady = make_key(folder, "steady", at=made)
    return Maker(steady), Maker(make_key(folder, "expired", expire="1y", at=made))


def replaced(server, *_makers):
    server.content["/d/disk-1.10.img"] = NEW[::-1]


def cut_on_its_way(server, *_makers):
    server.cut = [None, 300, 0, 0, 0]


def copied_in_part(server, *_makers):
    server.content["/d/disk-1.10.img"] = NEW[:300]


def newer_list(server, *_makers):
    del server.content["/d/disk-1.10.img"]


def expired_signature(server, steady, *_makers):
    signed = steady.sign(sums(NAMES), THEN, "--default-sig-expire", "7d", "--clearsign")
    server.content["/d/CHECKSUM"] = signed


def expired_key(server, _steady, expired, _other):
    server.content["/d/CHECKSUM"] = expired.sign(sums(NAMES), THEN, "--clearsign")


def other_key(server, _steady, _expired, other):
    server.content["/d/CHECKSUM"] = other.clear(sums(NAMES))


# What the error of each fault says, and that of no other.
CAUSES = {
    replaced: "it was replaced since, or changed on its way",
    cut_on_its_way: "it ended after 300 of 8192 bytes",
    copied_in_part: "is incomplete, it has 300 of 8192 bytes: the mirror has not finished copying",
    newer_list: "the list is newer than what the server has",
    expired_signature: "its signature has expired",
    expired_key: "it is signed with a key that has expired",
    other_key: "which is none of those it is checked with",
}


@pytest.mark.parametrize("fault", CAUSES, ids=lambda fault: fault.__name__)
def test_each_fault_of_a_mirror_has_its_own_error(context, server, aged, keys, monkeypatch, fault):
    believed = b"".join(maker.key.public.read_bytes() for maker in aged)
    (context.root / "key.asc").write_bytes(believed)
    server.content |= NAMES | {"/d/CHECKSUM": aged[0].clear(sums(NAMES, style="bsd"))}
    retry = replace(NO_WAIT, attempts=4)
    monkeypatch.setattr(simple, "Downloader", partial(Downloader, retry=retry))
    spec = base(server, checksums="/d/CHECKSUM")
    fault(server, *aged, Maker(keys[1]))
    error = refused(spec, context, Error)
    told = f"{error.message} {error.hint}"
    assert [cause for cause, words in CAUSES.items() if words in told] == [fault]


@pytest.mark.parametrize(
    ("of_file", "why"),
    [
        ("Sat, 28 Nov 2026 10:00:00 GMT", "it was replaced after the list was made"),
        ("Thu, 26 Nov 2026 10:00:00 GMT", "the list is newer than this file, of which the mirror"),
        ("yesterday", "it was replaced since, or changed on its way"),
    ],
)
def test_the_times_of_a_mirror_tell_a_replaced_file_from_an_old_one(
    context, server, maker, of_file, why
):
    server.content |= NAMES | {"/d/SHA256SUMS": maker.clear(sums(NAMES))}
    server.content["/d/disk-1.10.img"] = OLD * 2
    server.times = {
        "/d/SHA256SUMS": "Fri, 27 Nov 2026 10:00:00 GMT",
        "/d/disk-1.10.img": of_file,
    }
    assert why in refused(base(server), context).message


@pytest.mark.parametrize("style", ["gnu", "bsd"])
def test_a_replaced_file_is_refused(context, server, maker, style):
    server.content |= NAMES | {"/d/SHA256SUMS": maker.clear(sums(NAMES, style=style))}
    server.content["/d/disk-1.10.img"] = NEW * 2
    error = refused(base(server), context)
    why = {
        "gnu": "it has 16384 bytes, and nothing tells how many it should have",
        "bsd": "it has 16384 bytes, not 8192",
    }
    assert error.message == (
        f"{server.url}/d/disk-1.10.img is not the file that {server.url}/d/SHA256SUMS has the "
        f"checksum of: it was replaced since, or changed on its way ({why[style]})"
    )
    assert "#base-mirror" in error.hint
    asked = ["/d/SHA256SUMS", "/d/disk-1.10.img"]
    assert paths(server) == [*asked, *reversed(asked)] * ATTEMPTS
    assert [p.suffix for p in (context.cache / "downloads").iterdir()] == [".lock"]


def test_an_incomplete_file_is_refused_when_every_mirror_was_asked(context, server, maker):
    signed = maker.clear(sums(NAMES, style="bsd"))
    with serving() as other:
        for each, size in ((server, 0), (other, 300)):
            each.content |= {"/d/CHECKSUM": signed, "/d/disk-1.10.img": NEW[:size]}
        spec = base(server, f"#base-mirror={other.url}/d", checksums="/d/CHECKSUM")
        error = refused(spec, context)
        why = "of 8192 bytes: the mirror has not finished copying it, or has lost a part"
        assert error.message == (
            f"none of 2 mirrors has disk-*.img: {server.url}/d/disk-1.10.img is incomplete, it has "
            f"0 {why}; {other.url}/d/disk-1.10.img is incomplete, it has 300 {why}"
        )
        assert error.hint == "try again later, or name another mirror with #base-mirror=URL"
        assert paths(server) == paths(other) == ["/d/CHECKSUM", "/d/disk-1.10.img"] * ATTEMPTS
        copied = healing(lambda: other.content.update(NAMES))
        assert fetched(spec, context, copied)[0] == NEW


def a_qcow2(folder):
    need("qemu-img")
    (folder / "raw").write_bytes(os.urandom(2**20))
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "raw", "disk.qcow2"]
    subprocess.run(argv, cwd=folder, check=True)
    return (folder / "disk.qcow2").read_bytes()


@pytest.mark.parametrize("form", ["qcow2", "xz"])
def test_a_file_is_incomplete_by_its_own_format(context, server, maker, tmp_path, form):
    whole = a_qcow2(tmp_path) if form == "qcow2" else lzma.compress(os.urandom(2**20))
    half = len(whole) // 2
    maker.publish({"/d/disk-1.10.img": whole}, server)
    server.content["/d/disk-1.10.img"] = whole[:half]
    there = {
        "qcow2": f"it has {half} of at least {len(whole)} bytes",
        "xz": f"it has {half} bytes and ends before its content does",
    }
    assert refused(base(server), context).message == (
        f"{server.url}/d/disk-1.10.img is incomplete, {there[form]}: the mirror has not finished "
        "copying it, or has lost a part"
    )


def test_a_smaller_file_that_is_whole_was_replaced(context, server, maker):
    larger, smaller = lzma.compress(os.urandom(9000)), lzma.compress(b"smaller")
    files = {"/d/disk-1.10.img": larger}
    server.content |= {"/d/SHA256SUMS": maker.clear(sums(files, style="bsd"))}
    server.content["/d/disk-1.10.img"] = smaller
    assert f"changed on its way (it has {len(smaller)} bytes, not {len(larger)})" in (
        refused(base(server), context).message
    )


def test_a_size_outside_the_signature_is_not_believed(context, server, maker):
    maker.publish(NAMES, server)
    server.content["/d/disk-1.10.img"] = NEW[::-1]
    size = b"# disk-1.10.img: 999999 bytes\n"
    server.content["/d/SHA256SUMS"] = size + server.content["/d/SHA256SUMS"] + size
    assert "it was replaced since" in refused(base(server), context).message


def test_a_list_updated_with_its_file_is_accepted(context, server, maker):
    maker.publish(NAMES, server)
    server.content["/d/disk-1.10.img"] = newer = NEW[::-1]
    later = NAMES | {"/d/disk-1.10.img": newer}
    content, record = fetched(base(server), context, healing(lambda: maker.publish(later, server)))
    assert content == newer
    assert record.digest == f"sha256:{hashlib.sha256(newer).hexdigest()}"


def test_a_list_newer_than_its_files_is_reported(context, server, maker):
    maker.publish(NAMES, server)
    del server.content["/d/disk-1.10.img"]
    error = refused(base(server), context)
    assert "the list is newer than what the server has" in error.message
    assert paths(server) == ["/d/SHA256SUMS", "/d/disk-1.10.img"] * ATTEMPTS
    put = healing(lambda: server.content.update(NAMES))
    assert fetched(base(server), context, put)[0] == NEW


def test_the_file_is_downloaded_from_another_mirror(context, server, maker):
    maker.publish(NAMES, server)
    del server.content["/d/disk-1.10.img"]
    with serving() as other:
        maker.publish(NAMES, other, names=("/pub/SHA256SUMS",))
        other.content["/pub/disk-1.10.img"] = NEW
        content, record = fetched(base(server, f"#base-mirror={other.url}/pub"), context)
        assert content == NEW
        assert f"{other.url}/pub/SHA256SUMS" in record.detail
        assert paths(other) == ["/pub/SHA256SUMS", "/pub/disk-1.10.img"]
    assert len(paths(server)) == 2


def test_an_unreachable_mirror_is_skipped(context, server, maker):
    maker.publish(NAMES, server)
    with serving() as away:
        pass
    spec = base(away, f"#base-mirror={server.url}/d/")
    assert fetched(spec, context)[0] == NEW


def test_a_file_on_no_mirror_is_reported(context, server, maker):
    maker.publish({"/d/disk-1.9.img": OLD}, server)
    with serving() as other:
        spec = base(server, f"#base-mirror={other.url}/d/", pattern="disk-2.*.img")
        error = refused(spec, context)
        assert error.message == (
            f"none of 2 mirrors has disk-2.*.img: {server.url}/d/SHA256SUMS: no file disk-2.*.img "
            f"is listed; reading {other.url}/d/SHA256SUMS: the server answered 404 Not Found"
        )
        # Neither will have it in some seconds.
        assert (paths(server), paths(other)) == (["/d/SHA256SUMS"], ["/d/SHA256SUMS"])


def test_a_temporary_server_error_is_retried(context, server, maker):
    maker.publish(NAMES, server)
    server.refuse = [503, 503]
    assert fetched(base(server), context)[0] == NEW


def test_a_list_with_the_signature_of_another_text_is_retried_and_refused(context, server, maker):
    server.content |= NAMES
    server.content["/d/SHA256SUMS"] = sums({"/d/disk-1.9.img": OLD})
    signature = maker.sign(sums(NAMES), "--detach-sign")
    server.content["/d/SHA256SUMS.gpg"] = signature
    error = refused(base(server), context)
    assert error.message == f"{server.url}/d/SHA256SUMS: its signature is of another text"
    follow = healing(lambda: server.content.update({"/d/SHA256SUMS": sums(NAMES)}))
    assert fetched(base(server), context, follow)[0] == NEW


def test_a_changed_list_is_refused(context, server, maker):
    maker.publish(NAMES, server)
    signed = server.content["/d/SHA256SUMS"]
    evil = hashlib.sha256(OLD).hexdigest().encode()
    server.content["/d/SHA256SUMS"] = signed.replace(hashlib.sha256(NEW).hexdigest().encode(), evil)
    server.content["/d/disk-1.10.img"] = OLD
    assert "its signature is of another text" in refused(base(server), context).message
    assert "/d/disk-1.10.img" not in paths(server)


@pytest.mark.parametrize("place", ["before", "after"])
def test_text_outside_the_signature_is_ignored(context, server, maker, place):
    maker.publish(NAMES, server)
    signed = server.content["/d/SHA256SUMS"]
    more = sums({"/d/disk-9.img": OLD})
    server.content["/d/disk-9.img"] = OLD
    server.content["/d/SHA256SUMS"] = {"before": more + signed, "after": signed + more}[place]
    assert fetched(base(server), context)[0] == NEW


def test_two_signed_texts_in_one_file_are_refused(context, server, maker, keys):
    maker.publish(NAMES, server)
    server.content["/d/SHA256SUMS"] += Maker(keys[1]).clear(sums({"/d/disk-9.img": OLD}))
    assert "none that gpg can use" in refused(base(server), context, SigningError).message


def test_a_list_signed_by_another_key_is_refused(context, server, keys):
    maker, other = keys
    Maker(other).publish(NAMES, server)
    with serving() as mirror:
        error = refused(base(server, f"#base-mirror={mirror.url}/d"), context, SigningError)
        assert error.message == (
            f"{server.url}/d/SHA256SUMS: it is signed with the key {other.fingerprint[-16:]}, "
            "which is none of those it is checked with"
        )
        assert "base-key is key.asc" in error.hint
        assert paths(mirror) == []
    assert paths(server) == ["/d/SHA256SUMS"]
    both = maker.public.read_bytes() + other.public.read_bytes()
    (context.root / "key.asc").write_bytes(both)
    assert fetched(base(server), context)[0] == NEW


def test_a_revoked_key_is_refused(context, server):
    with home() as gpg:
        gpg.call("--quick-generate-key", "r <r@example.org>", "ed25519", "sign", "never")
        signed = gpg.call("--clearsign", stdin=sums(NAMES))
        [certificate] = (gpg.home / "openpgp-revocs.d").iterdir()
        # gpg puts a colon before the armour, so that nobody revokes a key by mistake.
        gpg.import_keys(certificate.read_bytes().replace(b"\n:-----", b"\n-----"))
        (context.root / "key.asc").write_bytes(gpg.call("--armor", "--export"))
    server.content |= NAMES | {"/d/SHA256SUMS": signed}
    error = refused(base(server), context, SigningError)
    assert "is signed with a key that was revoked" in error.message


@pytest.mark.parametrize("status", [404, 403])
def test_an_unsigned_list_is_refused(context, server, status):
    server.content |= NAMES | {"/d/SHA256SUMS": sums(NAMES) + SECRET}

    def answer(handler):
        if handler.path in server.content:
            server.answer(handler)
        else:
            handler.send_response(status)
            handler.end_headers()

    with answering(answer) as here:
        error = refused(base(here), context)
        assert "is not signed: neither within, nor by a file beside it" in error.message
        assert paths(here)[1:] == [
            f"/d/SHA256SUMS{end}" for end in (".gpg", ".asc", ".sign", ".sig")
        ]


def test_a_signature_file_without_a_signature_is_refused(context, server):
    server.content |= NAMES | {"/d/SHA256SUMS": sums(NAMES), "/d/SHA256SUMS.gpg": SECRET}
    assert "none that gpg can use" in refused(base(server), context, SigningError).message


@pytest.mark.parametrize("content", [b"", b"no key\n", SECRET])
def test_a_key_file_without_a_key_is_refused(context, server, maker, content):
    maker.publish(NAMES, server)
    (context.root / "key.asc").write_bytes(content)
    assert "the key file has no key" in refused(base(server), context, SigningError).message


def test_a_key_outside_the_repository_is_not_read(context, server, maker, tmp_path):
    maker.publish(NAMES, server)
    (context.root / "key.asc").unlink()
    (tmp_path / "secret").write_bytes(SECRET)
    (context.root / "key.asc").symlink_to(tmp_path / "secret")
    error = refused(base(server), context, SpecError)
    assert error.message == "image-specs/image:5: key.asc leads out of the repository"
    assert paths(server) == []


def test_ambiguous_newest_files_are_refused(context, server, maker):
    maker.publish(NAMES | {"/d/disk-latest.img": NEW}, server)
    error = refused(base(server), context)
    assert error.message.startswith(f"{server.url}/d/SHA256SUMS: disk-*.img means several files")
    assert "narrower" in error.hint


def test_a_signed_text_without_checksums_is_refused(context, server, maker):
    server.content["/d/SHA256SUMS"] = maker.clear(SECRET)
    assert "no SHA-256 or SHA-512 of any file" in refused(base(server), context).message


def test_a_list_may_not_be_redirected_to_another_host_and_a_file_may(context, server, maker):
    maker.publish(NAMES, server)

    def redirect(handler):
        handler.send_response(302)
        handler.send_header("Location", server.url + handler.path)
        handler.end_headers()

    with answering(redirect) as leading:
        assert "redirects to another host" in refused(base(leading), context).message
        assert paths(server) == []
        spec = replace(base(server), base=base(leading).base)
        assert fetched(spec, context)[0] == NEW


def test_the_manifest_has_the_digest_of_the_file(context, server, maker):
    need("qemu-img")
    maker.publish(NAMES, server)
    spec = base(server, "#boot-test=no: no system on it")
    request = Request(spec=spec, fingerprint="sha256:0123", commit="c1", dirty=False)
    emulated = Acceleration(name="tcg", why="/dev/kvm is not there")
    [result] = build_chains([[request]], context, accel=emulated, jobs=1)
    assert result.ok, result.error
    assert result.manifest.base.digest == f"sha256:{hashlib.sha256(NEW).hexdigest()}"
    assert result.manifest.base.detail.startswith("disk-1.10.img in ")


def test_the_key_is_an_input_of_the_image(tmp_path, keys):
    text = (
        "#base=simple:https://x.example/d/disk-*.img\n#arch=x86_64\n#distro=d\n"
        "#base-checksums=https://x.example/d/SHA256SUMS\n#base-key=key.asc\n"
    )
    (tmp_path / "image-specs").mkdir()
    (tmp_path / "image-specs/cloud").write_text(text)
    marks = set()
    for key in keys:
        (tmp_path / "key.asc").write_bytes(key.public.read_bytes())
        tree = read_tree(tmp_path, Settings(folder=tmp_path))
        assert tree.inputs["cloud"] == ("key.asc",)
        marks.add(tree.fingerprints["cloud"])
    assert len(marks) == len(keys)
