"""Each kind of base but bootstrap, over loopback."""

import gzip
import hashlib
import lzma
import os
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from lago_images.building.bases import layer, libguestfs, simple
from lago_images.building.bases.prepared import FinishedBase
from lago_images.building.qcow2 import standalone
from lago_images.disks.compress import compress
from lago_images.disks.unpack import ChecksumError
from lago_images.errors import BuildError, NotFoundError, SigningError, SpecError
from lago_images.host.gpg import Gpg
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import BaseRecord, Disk, Manifest
from lago_images.repository.records.state import StoredBuild
from lago_images.settings import Settings, TemplateSource
from lago_images.storage.directory.store import DirectoryStore
from tests.clients.virt_builder import VirtBuilder
from tests.support.files import serving
from tests.support.images import a_context, a_spec
from tests.support.keys import home, make_key, with_subkeys
from tests.tools import need

pytestmark = pytest.mark.real
need("qemu-img", "gpg", "virt-builder")
MIB = 2**20
RAW = b"boot sector".ljust(MIB, b"\0") + bytes(range(256)) * 4096 + bytes(6 * MIB)


@pytest.fixture(scope="session")
def qcow2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qcow2")
    (folder / "raw").write_bytes(RAW)
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "raw", "disk.qcow2"]
    subprocess.run(convert, cwd=folder, check=True, timeout=60)
    return (folder / "disk.qcow2").read_bytes()


@pytest.fixture
def server():
    with serving() as files:
        yield files


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def context(tmp_path):
    return a_context(tmp_path)


def simple_spec(where, *lines):
    return a_spec("\n".join([f"#name=s\n#base=simple:{where}\n#arch=x86_64\n#distro=d", *lines]))


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def content_of(prepared, folder):
    """What a guest would see of the disk."""
    raw = folder / "seen.raw"
    convert = ["qemu-img", "convert", "-f", prepared.format, "-O", "raw", prepared.disk, raw]
    subprocess.run(convert, check=True, timeout=60)
    return raw.read_bytes()


@pytest.mark.parametrize("packing", ["plain", "xz", "gzip"])
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_simple_base_is_downloaded_from_a_url(server, context, work, qcow2, form, packing):
    plain = RAW if form == "raw" else qcow2
    pack: Any = {"plain": bytes, "xz": lzma.compress, "gzip": gzip.compress}[packing]
    server.content["/disk"] = data = pack(plain)
    server.cut = [300]
    spec = simple_spec(server.url + "/disk", f"#base-checksum={sha256(data)}")
    prepared = simple.prepare(spec, work, context, Runner())
    assert prepared.format == form
    assert prepared.record.digest == sha256(data)
    assert content_of(prepared, work) == RAW
    assert [status for _, _, status in server.requests] == [200, 206]


def test_a_second_build_does_not_download_again(server, context, work):
    server.content["/disk"] = RAW
    spec = simple_spec(server.url + "/disk", f"#base-checksum={sha256(RAW)}")
    for number in range(2):
        folder = work / str(number)
        folder.mkdir()
        assert simple.prepare(spec, folder, context, Runner()).disk.read_bytes() == RAW
    assert len(server.requests) == 1


def test_a_damaged_cache_is_downloaded_again(server, context, work):
    server.content["/disk"] = RAW
    spec = simple_spec(server.url + "/disk", f"#base-checksum={sha256(RAW)}")
    kept = context.cache / "downloads" / sha256(RAW).replace(":", "-")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(RAW[:-1] + b"x")
    assert simple.prepare(spec, work, context, Runner()).disk.read_bytes() == RAW
    assert len(server.requests) == 1


def test_a_wrong_checksum_leaves_nothing(server, context, work):
    server.content["/disk"] = RAW
    spec = simple_spec(server.url + "/disk", f"#base-checksum={sha256(b'other')}")
    with pytest.raises(ChecksumError, match=sha256(RAW)):
        simple.prepare(spec, work, context, Runner())
    assert not list(work.iterdir())
    assert [p.suffix for p in (context.cache / "downloads").iterdir()] == [".lock"]


def test_a_disk_with_a_backing_file_is_refused(server, context, work, tmp_path):
    (tmp_path / "secret").write_bytes(RAW)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", tmp_path / "secret"]
    subprocess.run([*create, tmp_path / "evil"], check=True, timeout=60)
    data = gzip.compress((tmp_path / "evil").read_bytes())
    server.content["/disk"] = data
    spec = simple_spec(server.url + "/disk", f"#base-checksum={sha256(data)}")
    with pytest.raises(BuildError, match="has a backing file"):
        simple.prepare(spec, work, context, Runner())


def test_a_simple_base_is_read_from_the_repository(context, work, qcow2):
    (context.root / "disks").mkdir()
    (context.root / "disks" / "d.xz").write_bytes(lzma.compress(qcow2))
    prepared = simple.prepare(simple_spec("disks/d.xz"), work, context, Runner())
    assert prepared.record.digest == sha256((context.root / "disks/d.xz").read_bytes())
    assert content_of(prepared, work) == RAW


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_disk_grows_to_the_specs_size(context, work, qcow2, form):
    (context.root / "disk").write_bytes(RAW if form == "raw" else qcow2)
    prepared = simple.prepare(simple_spec("disk", "#size=16M"), work, context, Runner())
    assert content_of(prepared, work) == RAW.ljust(16 * MIB, b"\0")


def test_a_disk_does_not_shrink(context, work):
    (context.root / "disk").write_bytes(RAW)
    small = r"image:5: size=4M is less than the base's 8\.0 MiB \(8388608 bytes\): a disk can only"
    with pytest.raises(SpecError, match=small):
        simple.prepare(simple_spec("disk", "#size=4M"), work, context, Runner())


@pytest.mark.parametrize("where", ["url", "path"])
def test_a_base_much_larger_than_the_specs_size_is_refused(server, context, work, where):
    """Its disk can only grow: what is larger cannot become this image, whatever it unpacks to."""
    data = lzma.compress(bytes(80 * MIB))
    if where == "url":
        server.content["/disk"] = data
        spec = simple_spec(server.url + "/disk", f"#base-checksum={sha256(data)}", "#size=8M")
    else:
        (context.root / "disk").write_bytes(data)
        spec = simple_spec("disk", "#size=8M")
    with pytest.raises(BuildError, match="holds more than"):
        simple.prepare(spec, work, context, Runner())
    assert not list(work.iterdir())


def test_a_download_larger_than_the_limit_is_aborted(server, context, work):
    data = bytes(80 * MIB)
    server.content["/disk"] = data
    spec = simple_spec(server.url + "/disk", f"#base-checksum={sha256(data)}", "#size=8M")
    with pytest.raises(BuildError, match=r"has more than \d+ bytes"):
        simple.prepare(spec, work, context, Runner())
    assert [p.suffix for p in (context.cache / "downloads").iterdir()] == [".lock"]


def test_a_link_out_of_the_repository_is_not_followed(context, work, tmp_path):
    (tmp_path / "secret").write_bytes(RAW)
    (context.root / "disk").symlink_to(tmp_path / "secret")
    with pytest.raises(SpecError, match="leads out of the repository"):
        simple.prepare(simple_spec("disk"), work, context, Runner())
    assert not list(work.iterdir())


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return make_key(folder, "good"), make_key(folder, "evil")


TEMPLATE = lzma.compress(RAW)
SHA512 = hashlib.sha512(TEMPLATE).hexdigest()
LIBGUESTFS = a_spec("#name=l\n#base=libguestfs:tiny\n#arch=x86_64\n#distro=d\n")


def index(*, checksum=SHA512, arch="x86_64", file="disks/tiny.xz"):
    lines = ["[tiny]", "name=Tiny", f"arch={arch}", f"file={file}", "format=raw"]
    lines += [f"size={len(RAW)}", "revision=7", "aliases=small"]
    lines += [f"checksum[sha512]={checksum}"] if checksum else []
    return "\n".join(lines).encode() + b"\n"


def signed(key, text):
    with home() as gpg:
        gpg.import_keys(key.secret.read_bytes())
        return gpg.clearsign(key.fingerprint, text)


@pytest.fixture
def source(server, keys):
    """A template source on loopback, signed with the good key."""
    server.content["/disks/tiny.xz"] = TEMPLATE
    server.content["/index.asc"] = signed(keys[0], index())
    return TemplateSource(
        url=server.url + "/index.asc", fingerprint=keys[0].fingerprint, key=str(keys[0].public)
    )


def template(tmp_path, work, *sources, spec=LIBGUESTFS, network=True):
    settings = Settings(template_sources=sources, folder=tmp_path, network=network)
    context = a_context(tmp_path, settings=settings)
    return libguestfs.prepare(spec, work, context, Runner())


def test_with_the_network_off_no_remote_source_is_requested(tmp_path, work, source, server):
    with pytest.raises(BuildError, match=r"^network = false, and the template source http"):
        template(tmp_path, work, source, network=False)
    assert server.requests == []


def test_a_template_of_a_signed_source_is_used(tmp_path, work, source):
    prepared = template(tmp_path, work, source)
    assert prepared.disk.read_bytes() == RAW
    assert prepared.record == BaseRecord(
        ref="libguestfs:tiny",
        digest="sha512:" + SHA512,
        detail=f"revision 7 of tiny in {source.url}",
    )


def test_virt_builder_reads_the_same_source_and_shares_its_configuration(
    tmp_path, work, source, keys
):
    client = VirtBuilder(home=tmp_path / "user", appliance={})
    client.add_source("tests", source.url, keys[0].public)
    assert [t["os-version"] for t in client.list("--no-cache")] == ["tiny"]
    context = a_context(tmp_path, environ=client.environment)
    assert libguestfs.prepare(LIBGUESTFS, work, context, Runner()).disk.read_bytes() == RAW


def test_an_alias_names_a_template(tmp_path, work, source):
    spec = a_spec("#name=l\n#base=libguestfs:small\n#arch=x86_64\n#distro=d\n")
    assert template(tmp_path, work, source, spec=spec).disk.exists()


def test_a_signature_by_another_key_is_refused_before_the_download(
    tmp_path, work, source, server, keys
):
    server.content["/index.asc"] = signed(keys[1], index())
    with pytest.raises(SigningError):
        template(tmp_path, work, source)
    assert [path for path, _, _ in server.requests] == ["/index.asc"]


def test_a_tampered_index_is_refused(tmp_path, work, source, server):
    good = server.content["/index.asc"]
    server.content["/index.asc"] = good.replace(b"revision=7", b"revision=8")
    with pytest.raises(SigningError, match=r"index\.asc: its signature is of another text"):
        template(tmp_path, work, source)


def expired_key(folder, text):
    key = make_key(folder, "expired", expire="1y", at="20200101T000000")
    return key.fingerprint, key.public.read_bytes(), signed_then(key, text)


def expired_subkey(folder, text):
    [key] = with_subkeys(folder, ("30d", "20260101T000000"))
    with home() as gpg:
        gpg.import_keys(key.secret.read_bytes())
        # The usual export leaves out what has expired.
        public = gpg.call("--export")
    return key.fingerprint, public, signed_then(key, text, at="20260102T000000")


def expired_signature(folder, text):
    key = make_key(folder, "steady", at="20200101T000000")
    signed = signed_then(key, text, "--default-sig-expire", "7d")
    return key.fingerprint, key.public.read_bytes(), signed


def signed_then(key, text, *how, at="20200601T000000"):
    with home() as gpg:
        gpg.import_keys(key.secret.read_bytes())
        return gpg.call(f"--faked-system-time={at}!", *how, "--clearsign", stdin=text)


def revoked_key(_folder, text):
    with home() as gpg:
        gpg.call("--quick-generate-key", "r <r@example.org>", "ed25519", "sign", "never")
        signed = gpg.call("--clearsign", stdin=text)
        [certificate] = (gpg.home / "openpgp-revocs.d").iterdir()
        # gpg puts a colon before the armour, so that nobody revokes a key by mistake.
        gpg.import_keys(certificate.read_bytes().replace(b"\n:-----", b"\n-----"))
        [key] = gpg.secret_keys()
        return key.fingerprint, gpg.public_key(key.fingerprint), signed


@pytest.mark.parametrize("keyring", ["a key file", "the user's"])
@pytest.mark.parametrize(
    ("sign", "what"),
    [
        (expired_key, "it is signed with a key that has expired"),
        (expired_subkey, "it is signed with a key that has expired"),
        (expired_signature, "its signature has expired"),
        (revoked_key, "it is signed with a key that was revoked"),
    ],
)
def test_an_expired_or_revoked_key_or_signature_is_refused(
    tmp_path, work, source, server, keyring, sign, what
):
    fingerprint, public, server.content["/index.asc"] = sign(tmp_path, index())
    (tmp_path / "key.asc").write_bytes(public)
    environ = {**os.environ, "GNUPGHOME": str(tmp_path / "gnupg")}
    (tmp_path / "gnupg").mkdir(mode=0o700)
    theirs = TemplateSource(url=source.url, fingerprint=fingerprint)
    if keyring == "a key file":
        theirs = replace(theirs, key=str(tmp_path / "key.asc"))
    else:
        Gpg(runner=Runner(), home=tmp_path / "gnupg", environ=environ).import_keys(public)
    context = a_context(
        tmp_path, settings=Settings(template_sources=(theirs,), folder=tmp_path), environ=environ
    )
    with pytest.raises(SigningError, match=rf"index\.asc: {what}"):
        libguestfs.prepare(LIBGUESTFS, work, context, Runner())
    assert [path for path, _, _ in server.requests] == ["/index.asc"]


def test_an_unsigned_index_of_a_signed_source_is_refused(tmp_path, work, source, server):
    server.content["/index.asc"] = index()
    with pytest.raises(SigningError, match="not signed"):
        template(tmp_path, work, source)


def test_a_signed_index_needs_a_key(tmp_path, work, source):
    with pytest.raises(SigningError, match="no key is named"):
        template(tmp_path, work, TemplateSource(url=source.url))


def test_a_key_file_must_contain_the_fingerprint_of_its_source(tmp_path, work, source, keys):
    with pytest.raises(SigningError, match="does not have the key"):
        template(tmp_path, work, replace(source, fingerprint=keys[1].fingerprint))


def test_a_template_with_other_bytes_is_refused(tmp_path, work, source, server):
    server.content["/disks/tiny.xz"] = lzma.compress(RAW[::-1])
    with pytest.raises(ChecksumError):
        template(tmp_path, work, source)
    assert not list(work.iterdir())


def test_a_template_without_a_checksum_is_refused(tmp_path, work, server):
    server.content["/index"] = index(checksum="")
    with pytest.raises(BuildError, match="has no sha512 checksum"):
        template(tmp_path, work, TemplateSource(url=server.url + "/index"))


@pytest.mark.parametrize("file", ["file:///etc/passwd", "/etc/passwd", "../x", "http://h/x"])
def test_a_template_on_another_host_is_refused(tmp_path, work, server, file):
    server.content["/images/index"] = index(file=file)
    with pytest.raises(BuildError, match=r"names a template elsewhere|images/.*answered 404"):
        template(tmp_path, work, TemplateSource(url=server.url + "/images/index"))


def test_a_source_in_a_local_folder_is_used(tmp_path, work):
    folder = tmp_path / "source"
    (folder / "disks").mkdir(parents=True)
    (folder / "disks" / "tiny.xz").write_bytes(TEMPLATE)
    (folder / "index").write_bytes(index())
    assert template(tmp_path, work, TemplateSource(url=f"file://{folder}/index")).disk.exists()


def test_an_unreachable_source_does_not_hide_the_others(tmp_path, work, server):
    server.content |= {"/index": index(), "/disks/tiny.xz": TEMPLATE}
    down = TemplateSource(url=server.url + "/gone")
    assert template(tmp_path, work, down, TemplateSource(url=server.url + "/index")).disk.exists()


def test_a_template_in_no_source_is_reported(tmp_path, work, server):
    server.content["/index"] = index(arch="aarch64")
    sources = [TemplateSource(url=server.url + path) for path in ("/index", "/gone")]
    with pytest.raises(
        BuildError, match=r"no template tiny for x86_64 in .*/gone: the server answered 404"
    ):
        template(tmp_path, work, *sources)


@pytest.fixture
def published(tmp_path, qcow2):
    """A base in a repository."""
    path = tmp_path / "base.qcow2"
    path.write_bytes(qcow2)
    stream = compress(path, level=0, threads=1)
    packed = b"".join(stream)
    digests = stream.digests
    manifest = Manifest(
        name="base",
        arch="x86_64",
        build_id="one",
        fingerprint="sha256:1",
        base=BaseRecord(ref="bootstrap:debian-12", digest="sha256:0"),
        disk=Disk(
            format="qcow2",
            virtual_size=len(RAW),
            size=digests.size,
            compressed_size=digests.compressed_size,
            sha1=digests.sha1,
            sha256=digests.sha256,
            sha512=digests.sha512,
        ),
        commit="unknown",
        dirty=False,
        created=0,
        seconds=0,
    )
    store = DirectoryStore(path=tmp_path / "repository")
    store.upload(manifest.key.staging.disk, [packed])
    return manifest, store, packed


def staged(made):
    return StoredBuild(manifest=made, folder=made.key.staging)


LAYER = a_spec("#name=l\n#base=layer:base\n#arch=x86_64\n#distro=d\n")


def test_a_layer_is_built_on_the_published_base(tmp_path, work, published):
    manifest, store, _ = published
    context = a_context(tmp_path, store=store)
    prepared = layer.prepare(LAYER, staged(manifest), work, context, Runner())
    assert prepared.record.digest == f"sha256:{manifest.disk.sha256}"
    assert (prepared.record.build, prepared.record.revision) == ("one", None)
    # What salts are made of: as where the base is built in the same run.
    assert prepared.base == manifest.fingerprint
    assert content_of(prepared, work) == RAW
    store.delete([manifest.key.staging.disk])
    (work / "again").mkdir()
    again = layer.prepare(LAYER, staged(manifest), work / "again", context, Runner())
    assert again.disk.read_bytes() == prepared.disk.read_bytes()


def test_a_layer_does_not_change_the_base_of_this_run(tmp_path, work, published):
    manifest, _, _ = published
    base = FinishedBase(
        name=manifest.name,
        disk=tmp_path / "base.qcow2",
        fingerprint="sha256:1",
    )
    before = base.disk.read_bytes()
    prepared = layer.prepare(LAYER, base, work, a_context(tmp_path), Runner())
    assert prepared.base == manifest.fingerprint
    assert content_of(prepared, work) == RAW
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 512", str(prepared.disk)]
    subprocess.run(write, check=True, capture_output=True, timeout=60)
    finished = work / "finished.qcow2"
    assert standalone(prepared.disk, prepared.format, finished, Runner()) == len(RAW)
    assert base.disk.read_bytes() == before
    # What is published stands on nothing.
    base.disk.unlink()
    changed = replace(prepared, disk=finished)
    assert content_of(changed, work) == bytes([7]) * 512 + RAW[512:]


@pytest.mark.parametrize("field", ["sha256", "sha512", "sha1", "size", "compressed_size"])
def test_a_base_other_than_its_manifest_says_is_refused(tmp_path, work, published, field):
    manifest, store, _ = published
    value = getattr(manifest.disk, field)
    other = value + 1 if isinstance(value, int) else value[::-1]
    wrong = replace(manifest, disk=replace(manifest.disk, **{field: other}))
    context = a_context(tmp_path, store=store)
    with pytest.raises(ChecksumError, match=f"its {field} is"):
        layer.prepare(LAYER, staged(wrong), work, context, Runner())
    assert not list(work.iterdir())
    assert [p.suffix for p in (context.cache / "layers").iterdir()] == [".lock"]


def test_a_damaged_cached_base_is_downloaded_again(tmp_path, work, published):
    manifest, store, packed = published
    context = a_context(tmp_path, store=store)
    kept = context.cache / "layers" / f"sha256-{manifest.disk.sha256}"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(packed[:-40])
    prepared = layer.prepare(LAYER, staged(manifest), work, context, Runner())
    assert content_of(prepared, work) == RAW
    assert kept.read_bytes() == packed


def test_a_missing_base_is_reported(tmp_path, work, published):
    manifest, store, _ = published
    store.delete([manifest.key.staging.disk])
    with pytest.raises(NotFoundError):
        layer.prepare(
            LAYER,
            staged(manifest),
            work,
            a_context(tmp_path, store=store),
            Runner(),
        )
    assert not list(work.iterdir())
