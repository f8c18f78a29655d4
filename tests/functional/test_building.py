"""Images and chains built for real from tiny disks: no appliance, no boot."""

import contextlib
import hashlib
import io
import json
import lzma
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lago_images.building.bases import simple
from lago_images.building.chain import build_chains
from lago_images.building.customise.sysprep import appliance_environment
from lago_images.building.model import Context, Request
from lago_images.building.qcow2 import standalone, virtual_size
from lago_images.building.upload import retry_policy
from lago_images.console import Console
from lago_images.disks.qcow2_header import read_header
from lago_images.errors import BuildError, HostError, StorageError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.host.retry import RetryPolicy
from lago_images.host.space import free
from lago_images.host.workdir import default_scratch
from lago_images.repository.records.layout import staged_build
from lago_images.repository.records.manifest import Manifest
from lago_images.repository.records.state import StoredBuild
from lago_images.settings import Settings
from lago_images.storage.directory.store import DirectoryStore
from lago_images.storage.s3.store import S3Store
from lago_images.storage.s3.upload import Uploader
from tests.servers.proxy import Fault, FaultProxy
from tests.support.builders import buildable as spec
from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.server_threads import in_thread
from tests.support.specs import SpecsRepo, git
from tests.tools import need

need("qemu-img")
MIB = 2**20
# Seconds: far more than anything here takes, on a machine that does much else, too.
ENOUGH = 300
EMULATED = Acceleration(name="tcg", why="/dev/kvm is not there")


def disk_file(root, name, seed=1, size=MIB):
    block = hashlib.sha256(b"%d" % seed).digest() * 128
    (root / name).write_bytes(block + bytes(size - len(block)))
    return (root / name).read_bytes()


def staged(made):
    return StoredBuild(manifest=made, folder=made.key.staging)


def ask(made, fingerprint="sha256:0123456789", base=None):
    return Request(spec=made, fingerprint=fingerprint, commit="c1", dirty=False, base=base)


@pytest.fixture
def context(tmp_path):
    root = tmp_path / "specs"
    root.mkdir()
    return Context(
        root=root,
        store=DirectoryStore(path=tmp_path / "repo"),
        settings=Settings(folder=root),
        console=Console(stream=io.StringIO()),
        environ={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
        cache=tmp_path / "cache",
        logs=tmp_path / "logs",
        clock=time.time,
    )


def build_chain(requests, context, **more):
    return build_chains([requests], context, accel=EMULATED, jobs=1, **more)


def left(context):
    scratch = default_scratch(context.environ)
    return [p.name for p in scratch.rglob("*")] if scratch.exists() else []


def objects(context):
    return [stat.key for stat in context.store.list()]


def raw_of(context, manifest, tmp_path):
    packed = b"".join(context.store.read(manifest.key.staging.disk))
    (tmp_path / "disk.qcow2").write_bytes(lzma.decompress(packed))
    argv = ["qemu-img", "convert", "-O", "raw", tmp_path / "disk.qcow2", tmp_path / "disk.raw"]
    subprocess.run(argv, check=True)
    return (tmp_path / "disk.raw").read_bytes()


def test_an_image_is_built_and_its_manifest_matches_the_disk(context, tmp_path):
    given = disk_file(context.root, "one.img")
    [result] = build_chain([ask(spec("one", "simple:one.img"))], context)
    assert result.ok, result.error
    manifest = result.manifest
    key = manifest.key.staging
    assert objects(context) == sorted([key.disk, key.hash, key.metadata, key.log, key.manifest])
    assert Manifest.parse(context.store.get(key.manifest).data, manifest.key) == manifest
    packed = b"".join(context.store.read(key.disk))
    assert manifest.disk.sha512 == hashlib.sha512(packed).hexdigest()
    assert manifest.disk.compressed_size == len(packed)
    assert manifest.disk.sha1 == hashlib.sha1(lzma.decompress(packed)).hexdigest()
    assert manifest.disk.virtual_size == MIB
    assert context.store.get(key.hash).data.decode().strip() == manifest.disk.sha1
    assert json.loads(context.store.get(key.metadata).data)["distro"] == "debian"
    assert "qemu-img convert" in context.store.get(key.log).data.decode()
    assert manifest.tools["qemu-img"][0].isdigit()
    assert manifest.build_id.endswith(key.key.build_id[-8:])
    assert "01234567" in manifest.build_id
    assert raw_of(context, manifest, tmp_path) == given
    assert left(context) == []


def test_whoever_builds_an_image_is_warned_of_the_private_keys_in_it(context, monkeypatch):
    """What customising or a bootstrap found; no guest's text gets to the terminal as it is."""
    disk_file(context.root, "one.img")
    real, found = simple.prepare, ("/root/\x1b[31mred", "/etc/a.key")
    monkeypatch.setattr(simple, "prepare", lambda *given: replace(real(*given), secrets=found))
    [result] = build_chain([ask(spec("one", "simple:one.img"))], context)
    assert result.ok, result.error
    assert (
        "warning: one: whoever has the image has these private keys or identities, and every "
        "machine made of it the same: /root/red, /etc/a.key\n"
    ) in context.console.stream.getvalue()


@pytest.mark.parametrize(
    ("name", "convert", "asked"),
    [
        # What is written anew is another disk.
        ("one.img", [], ["raw base.disk", "qcow2 finished.qcow2"]),
        # What is only renamed is asked before, and not again.
        ("one.qcow2", ["-f", "raw", "-O", "qcow2"], ["qcow2 base.disk", "qcow2 base.disk"]),
    ],
)
def test_qemu_img_info_runs_once_per_disk_and_never_probes_the_format(
    context, name, convert, asked
):
    """Once as a base, with the size that the spec has it grow to, and once as what is published."""
    (context.root / "raw").write_bytes(os.urandom(4 * MIB))
    argv = ["qemu-img", "convert", *(convert or ["-f", "raw", "-O", "raw"]), "raw", name]
    subprocess.run(argv, check=True, cwd=context.root)
    [result] = build_chain([ask(spec("one", f"simple:{name}", size="8M"))], context)
    assert result.ok, result.error
    assert result.manifest.disk.virtual_size == 8 * MIB
    log = context.store.get(result.manifest.key.staging.log).data.decode()
    used = [shlex.split(line[2:]) for line in log.splitlines() if line.startswith("+ qemu-img")]
    assert [
        f"{argv[argv.index('-f') + 1]} {Path(argv[-1]).name}" for argv in used if argv[1] == "info"
    ] == asked
    assert all("-f" in argv for argv in used if argv[1] != "--version")


def test_the_manifest_is_written_last(context):
    disk_file(context.root, "one.img")
    written = []

    class Watched(DirectoryStore):
        def put(self, key, data, **options):
            written.append(key)
            return super().put(key, data, **options)

        def upload(self, key, chunks, **options):
            written.append(key)
            return super().upload(key, chunks, **options)

    watched = replace(context, store=Watched(path=context.store.path))
    [result] = build_chain([ask(spec("one", "simple:one.img"))], watched)
    key = result.manifest.key.staging
    assert written[:3] == [key.disk, key.hash, key.metadata]
    assert written[-1] == key.manifest


def test_a_layer_gets_the_disk_of_this_run_or_of_the_store(context, tmp_path):
    given = disk_file(context.root, "one.img")
    chain = [
        ask(spec("one", "simple:one.img")),
        ask(spec("two", "layer:one")),
        ask(spec("three", "layer:two")),
        ask(spec("four", "layer:one")),
    ]
    results = build_chain(chain, context)
    assert [r.name for r in results] == ["one", "two", "three", "four"]
    assert all(r.ok for r in results), results
    for result in results[1:]:
        assert raw_of(context, result.manifest, tmp_path) == given
    assert left(context) == []
    alone = ask(spec("five", "layer:one"), base=staged(results[0].manifest))
    [five] = build_chain([alone], context)
    assert five.ok, five.error
    assert raw_of(context, five.manifest, tmp_path) == given


def test_a_cached_base_is_kept_when_the_target_disk_cannot_be_written(context, monkeypatch):
    disk_file(context.root, "one.img")
    [one] = build_chain([ask(spec("one", "simple:one.img"))], context)
    layer = ask(spec("two", "layer:one"), base=staged(one.manifest))
    [two] = build_chain([layer], context)
    assert two.ok, two.error
    kept = context.cache / "layers" / f"sha256-{one.manifest.disk.sha256}"
    packed = kept.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lago_images.disks.sparse.os.pwrite", full)
    [again] = build_chain([layer], context)
    assert "No space left on device" in again.error
    assert kept.read_bytes() == packed
    assert "was damaged" not in context.console.stream.getvalue()


def test_a_failed_image_fails_its_layers_and_no_others(context):
    disk_file(context.root, "good.img")
    chains = [
        [
            ask(spec("bad", "simple:gone.img")),
            ask(spec("on-bad", "layer:bad")),
            ask(spec("on-on-bad", "layer:on-bad")),
            ask(spec("apart", "simple:good.img")),
        ],
        [ask(spec("good", "simple:good.img"))],
    ]
    results = {r.name: r for r in build_chains(chains, context, accel=EMULATED, jobs=2)}
    assert not results["bad"].ok
    assert "gone.img" in results["bad"].error
    assert "preparing" in results["bad"].step
    assert results["bad"].error in results["bad"].log.read_text()
    assert results["on-bad"].skipped == "bad"
    assert results["on-on-bad"].skipped == "on-bad"
    assert results["apart"].ok
    assert results["good"].ok
    assert not any("bad" in key for key in objects(context))
    assert left(context) == []


def test_an_internal_error_fails_one_image_only(context, monkeypatch):
    disk_file(context.root, "one.img")

    def broken(*_args):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("lago_images.building.image.build_id", broken)
    [result] = build_chain([ask(spec("one", "simple:one.img"))], context)
    assert "ZeroDivisionError: ours" in result.error
    assert "Traceback" in result.log.read_text()


def test_the_last_lines_of_a_failing_program_are_reported(context, tmp_path):
    disk_file(context.root, "one.img")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/qemu-img"
    fake.write_text("#!/bin/sh\necho the disk is on fire\nexit 3\n")
    fake.chmod(0o755)
    hot = {**context.environ, "PATH": f"{fake.parent}:{context.environ['PATH']}"}
    [result] = build_chain([ask(spec("one", "simple:one.img"))], replace(context, environ=hot))
    assert not result.ok
    assert "the disk is on fire" in "\n".join(result.tail)
    assert "on fire" in result.log.read_text()


def test_an_unwritable_repository_fails_the_build(context):
    disk_file(context.root, "one.img")
    context.store.path.write_text("a file is in the way")
    [result] = build_chain([ask(spec("one", "simple:one.img"))], context)
    assert not result.ok
    assert "uploading" in result.step
    assert str(context.store.path) in result.error
    assert left(context) == []
    assert context.store.path.read_text() == "a file is in the way"


def test_a_failing_upload_leaves_no_build(context):
    disk_file(context.root, "one.img")

    class Full(DirectoryStore):
        def put(self, key, data, **options):
            if key.endswith(".metadata"):
                raise StorageError(f"writing {key}: no space left")
            return super().put(key, data, **options)

    full = replace(context, store=Full(path=context.store.path))
    [result] = build_chain([ask(spec("one", "simple:one.img"))], full)
    assert "no space left" in result.error
    assert objects(context) == []


@pytest.mark.parametrize("failure", [StorageError("the store answered 503"), KeyboardInterrupt()])
def test_a_build_whose_manifest_may_have_been_written_is_not_removed(context, failure):
    disk_file(context.root, "one.img")

    class Silent(DirectoryStore):
        def put(self, key, data, **options):
            etag = super().put(key, data, **options)
            if key.endswith("manifest.json"):
                raise failure
            return etag

    silent = replace(context, store=Silent(path=context.store.path))
    with contextlib.suppress(KeyboardInterrupt):
        [result] = build_chain([ask(spec("one", "simple:one.img"))], silent)
        assert "503" in result.error
    [manifest] = [key for key in objects(context) if key.endswith("manifest.json")]
    made = Manifest.parse(context.store.get(manifest).data, staged_build(manifest))
    assert made.key.staging.disk in objects(context)
    assert {made.key.staging.hash, made.key.staging.metadata} <= set(objects(context))
    assert left(context) == []


WITH_QCOW2 = ("qcow2",)


def asking(context, **changes):
    """The same, with a setting that asks for a qcow2."""
    settings = replace(context.settings, publish_also=WITH_QCOW2)
    return replace(context, settings=settings, **changes)


def test_a_disk_is_stored_as_a_qcow2_too(context, tmp_path):
    given = disk_file(context.root, "one.img")
    [result] = build_chain([ask(spec("one", "simple:one.img"))], asking(context))
    assert result.ok, result.error
    manifest = result.manifest
    stored = tmp_path / "repo" / manifest.key.staging.also("qcow2")
    assert manifest.also["qcow2"].size == stored.stat().st_size
    assert manifest.also["qcow2"].sha256 == hashlib.sha256(stored.read_bytes()).hexdigest()
    subprocess.run(["qemu-img", "convert", "-O", "raw", stored, tmp_path / "raw"], check=True)
    assert (tmp_path / "raw").read_bytes() == given == raw_of(context, manifest, tmp_path)
    assert left(context) == []


def qemu_img_that(context, compressing):
    """An environment whose qemu-img does something else when it is to compress."""
    program = context.root.parent / "bin/qemu-img"
    program.parent.mkdir()
    real = shutil.which("qemu-img")
    program.write_text(
        f'#!/bin/sh\ncase " $* " in *" -c "*) {compressing};; esac\nexec {real} "$@"\n'
    )
    program.chmod(0o755)
    return {**context.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}


def test_a_qcow2_that_cannot_be_made_fails_the_image_and_leaves_nothing(context):
    disk_file(context.root, "one.img")
    environ = qemu_img_that(context, "echo no room >&2; exit 1")
    [result] = build_chain([ask(spec("one", "simple:one.img"))], asking(context, environ=environ))
    assert result.step == "compressing and uploading the qcow2"
    assert "no room" in result.error + "".join(result.tail)
    assert objects(context) == []
    assert left(context) == []


def test_a_failing_upload_of_the_xz_ends_the_qcow2(context, tmp_path):
    """It would go on for an hour, and its image cannot be published any more."""

    class Broken(DirectoryStore):
        def upload(self, key, chunks, **options):
            limit = time.monotonic() + ENOUGH
            while not (tmp_path / "started").exists() and time.monotonic() < limit:
                time.sleep(0.05)
            raise OSError(5, "the disk is broken")

    disk_file(context.root, "one.img")
    environ = qemu_img_that(context, f"touch {tmp_path}/started; exec sleep 3600")
    broken = asking(context, environ=environ, store=Broken(path=context.store.path))
    [result] = build_chain([ask(spec("one", "simple:one.img"))], broken)
    assert "the disk is broken" in result.error
    assert result.step == "compressing and uploading"
    assert left(context) == []


# More than the policy of a store that was opened without one.
_FAILURES = 3 * RetryPolicy().attempts
_MOMENTS = {
    "a part": ("PUT", "partNumber=2"),
    "the completion": ("POST", "uploadId="),
    "the hash": ("PUT", ".hash"),
    "the manifest": ("PUT", "manifest.json"),
}


@pytest.mark.parametrize("moment", _MOMENTS)
def test_a_build_survives_a_temporarily_unreachable_store(context, ceph20, monkeypatch, moment):
    """The store is away for more tries than its own policy has, and fewer than the build's."""
    (context.root / "one.img").write_bytes(os.urandom(6 * MIB))
    context = replace(context, settings=replace(context.settings, compression_level=0))
    method, part = _MOMENTS[moment]
    bucket, failed = ceph20.new_bucket(), []

    def away(request):
        begins = request.method == method and part in request.target
        if len(failed) == _FAILURES or not (failed or begins):
            return None
        failed.append(request)
        return Fault(answer=503) if failed[1:] else Fault(drop=True)

    monkeypatch.setattr(
        "lago_images.building.image.retry_policy",
        lambda *given: replace(retry_policy(*given), delay=0.01, longest=0.1),
    )
    with FaultProxy(ceph20.endpoint, away) as proxy:
        environ = ceph20.through(proxy.endpoint).environ
        brief = RetryPolicy(delay=0.001, longest=0.002)
        store = S3Store.open(bucket, environ=environ, retry=brief)
        store.uploader = Uploader(bucket=store.bucket, part_size=5 * MIB)
        [result] = build_chain([ask(spec("one", "simple:one.img"))], replace(context, store=store))
    assert result.ok, result.error
    assert "trying again" in context.console.stream.getvalue()
    there = S3Store.open(bucket, environ=ceph20.environ)
    assert list(there.unfinished()) == []
    body = b"".join(there.read(result.manifest.key.staging.disk))
    assert hashlib.sha512(body).hexdigest() == result.manifest.disk.sha512
    assert there.get(result.manifest.key.staging.manifest).data == result.manifest.to_json()


def test_stored_bytes_other_than_those_sent_fail_the_build(context):
    disk_file(context.root, "one.img")

    class Lossy(DirectoryStore):
        def upload(self, key, chunks, **options):
            return replace(super().upload(key, chunks, **options), sha256="0" * 64)

    lossy = replace(context, store=Lossy(path=context.store.path))
    [result] = build_chain([ask(spec("one", "simple:one.img"))], lossy)
    assert "not in the store as it was sent" in result.error
    assert objects(context) == []


def test_too_little_disk_space_is_reported_before_the_build(context, monkeypatch):
    disk_file(context.root, "one.img")
    monkeypatch.setattr("lago_images.host.space.free", lambda folder: 1000)
    [result] = build_chain([ask(spec("one", "simple:one.img"))], context)
    assert "needs" in result.error
    assert "1000 bytes" in result.error
    assert context.environ["TMPDIR"] in result.error
    assert result.step == ""


def test_a_full_disk_leaves_no_files(context):
    """Files of this user may not grow over 100 kB: writing fails as on a full disk."""
    noise = os.urandom(MIB)
    (context.root / "one.img").write_bytes(noise)
    limited = """
import resource, signal, sys
from tests.functional.test_building import ask, run_alone, spec
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
run_alone(sys.argv[1], [ask(spec("one", "simple:one.img"))])
"""
    ran = alone(limited, context)
    said = json.loads(ran.stdout)
    assert not said["ok"]
    assert "File too large" in said["error"] + said["tail"]
    assert left(context) == []
    assert objects(context) == []


def alone(code, context, **options):
    return subprocess.run(
        [sys.executable, "-c", code, context.root.parent],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        **options,
    )


def run_alone(folder, requests):
    """Build in a process of its own; what it says of the last image goes to stdout."""
    top = Path(folder)
    context = Context(
        root=top / "specs",
        store=DirectoryStore(path=top / "repo"),
        settings=Settings(folder=top / "specs"),
        console=Console(),
        environ={**os.environ, "TMPDIR": str(top / "scratch")},
        cache=top / "cache",
        logs=top / "logs",
        clock=time.time,
    )
    result = build_chain(requests, context)[-1]
    print(json.dumps({"ok": result.ok, "error": result.error, "tail": str(result.tail)}))


_SLOW = """
import os, signal, sys
from lago_images.cli.main import _end_on_signals
from lago_images.console import Console
from tests.functional.test_building import ask, run_alone, spec
_end_on_signals(Console())
# A program of the build that would run for ever, and tells that it runs.
bin = sys.argv[1] + "/bin"
os.makedirs(bin, exist_ok=True)
with open(bin + "/qemu-img", "w") as file:
    file.write("#!/bin/sh\\necho $$ > " + sys.argv[1] + "/pid\\nexec sleep infinity\\n")
os.chmod(bin + "/qemu-img", 0o755)
os.environ["PATH"] = bin + ":" + os.environ["PATH"]
run_alone(sys.argv[1], [ask(spec("one", "simple:one.img"))])
"""


def interrupted(context, number):
    """Send a signal to a build while one of its programs runs; returns the exit code."""
    pid_file = context.root.parent / "pid"
    with subprocess.Popen(
        [sys.executable, "-c", _SLOW, context.root.parent],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    ) as run:
        wait_for(lambda: pid_file.exists() and pid_file.read_text().strip())
        child = int(pid_file.read_text())
        assert left(context)
        run.send_signal(number)
        code = run.wait(ENOUGH)
    wait_for(lambda: not running(child))
    return code


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition):
    for _ in range(20 * ENOUGH):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"it did not come about within {ENOUGH} s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_no_files(context, number):
    disk_file(context.root, "one.img")
    assert interrupted(context, number) != 0
    assert left(context) == []
    assert objects(context) == []
    assert "== preparing" in (context.logs / "one.log").read_text()


_DOWNLOAD = """
import signal, sys
from lago_images.cli.main import _end_on_signals
from lago_images.console import Console
from tests.functional.test_building import ask, run_alone, spec
_end_on_signals(Console())
run_alone(sys.argv[1], [ask(spec("one", "simple:" + sys.argv[2], **{
    "base-checksum": "sha256:" + "0" * 64}))])
"""


def test_an_interrupted_download_ends_at_once(context):
    """The server sends a little now and then, for ever."""
    sending, over = threading.Event(), threading.Event()

    class Slow(QuietHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(MIB))
            self.end_headers()
            with contextlib.suppress(OSError):
                while not over.wait(0.05):
                    self.wfile.write(b"x")
                    sending.set()

    with LoopbackServer(Slow) as server, in_thread(server):
        argv = [sys.executable, "-c", _DOWNLOAD, context.root.parent, f"{server.url}/disk.img"]
        with subprocess.Popen(
            argv, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL
        ) as run:
            assert sending.wait(ENOUGH)
            run.send_signal(signal.SIGTERM)
            assert run.wait(ENOUGH) != 0
        over.set()
    assert left(context) == []


def test_after_sigkill_the_next_run_cleans_up_and_builds(context):
    disk_file(context.root, "one.img")
    assert interrupted(context, signal.SIGKILL) == -signal.SIGKILL
    assert left(context)
    [result] = build_chain([ask(spec("one", "simple:one.img"))], context)
    assert result.ok, result.error
    assert left(context) == []
    assert "killed run" in context.console.stream.getvalue()


_SENDING = """
import sys, time
from lago_images.building import upload
from tests.functional.test_building import ask, run_alone, spec

def begun(chunks, children):
    yield b"a part"
    print("sending", flush=True)
    time.sleep(600)

upload._until_over = begun
run_alone(sys.argv[1], [ask(spec("one", "simple:one.img"))])
"""


def test_after_sigkill_while_a_disk_is_stored_the_next_run_removes_it(context):
    disk_file(context.root, "one.img")
    with subprocess.Popen(
        [sys.executable, "-c", _SENDING, context.root.parent],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as run:
        assert run.stdout.readline()
        run.kill()
    assert len(list(context.store.unfinished())) == 1
    context.store.ensure_safe_writes(single_writer=False, console=context.console)
    [result] = build_chain([ask(spec("one", "simple:one.img"))], context)
    assert result.ok, result.error
    assert list(context.store.unfinished()) == []
    assert left(context) == []


def test_a_build_that_requires_kvm_fails_without_it(context):
    strict = replace(context, settings=replace(context.settings, require_kvm=True))
    with pytest.raises(HostError, match="KVM does not work here"):
        build_chain([ask(spec("one", "simple:one.img"))], strict)


def test_emulation_is_warned_of_once_per_run(context):
    for name in ("one", "two"):
        disk_file(context.root, f"{name}.img")
    chains = [[ask(spec(name, f"simple:{name}.img"))] for name in ("one", "two")]
    build_chains(chains, context, accel=EMULATED, jobs=2)
    told = context.console.stream.getvalue()
    assert told.count("KVM DOES NOT WORK HERE") == 1
    assert told.count("Guests run by emulation without KVM (TCG), which") == 1


def test_no_thread_outlives_the_run(context):
    disk_file(context.root, "one.img")
    build_chains([[ask(spec("one", "simple:one.img"))]], context, accel=EMULATED, jobs=3)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("chain", "xz"))]


@pytest.mark.parametrize("options", ["", "data_file={folder}/data.raw,data_file_raw=on"])
def test_disks_that_depend_on_other_files_are_refused(tmp_path, options):
    raw, disk = tmp_path / "base.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(bytes(MIB))
    backing = ["-o", options.format(folder=tmp_path)] if options else ["-F", "raw", "-b", raw]
    size = ["1M"] if options else []
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, disk, *size], check=True)
    with pytest.raises(BuildError, match=r"stands on another file, .*raw"):
        virtual_size(disk, Runner())


def test_an_overlay_is_flattened_into_one_disk(tmp_path):
    raw, disk = tmp_path / "base.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(b"data" * (MIB // 4))
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, disk]
    subprocess.run(argv, check=True)
    standalone(disk, "qcow2", tmp_path / "done.qcow2", Runner())
    assert virtual_size(tmp_path / "done.qcow2", Runner()) == MIB
    assert not disk.exists()


def test_a_compact_disk_is_renamed_instead_of_converted(tmp_path):
    raw, disk = tmp_path / "base.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(os.urandom(4 * MIB))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, disk], check=True)
    inode = disk.stat().st_ino
    standalone(disk, "qcow2", tmp_path / "done.qcow2", Runner())
    assert (tmp_path / "done.qcow2").stat().st_ino == inode


def with_features(disk, *steps):
    for step in steps:
        argv = [part.format(disk=disk, raw=disk.with_name("raw")) for part in step.split()]
        subprocess.run(argv, check=True, timeout=60)


CONTAINERS = {
    "snapshot": ["qemu-img convert -O qcow2 {raw} {disk}", "qemu-img snapshot -c old {disk}"],
    "bitmap": ["qemu-img convert -O qcow2 {raw} {disk}", "qemu-img bitmap --add {disk} old"],
    "zstd": ["qemu-img convert -c -O qcow2 -o compression_type=zstd {raw} {disk}"],
    "extended L2": ["qemu-img convert -O qcow2 -o extended_l2=on,cluster_size=128k {raw} {disk}"],
    "lazy refcounts": ["qemu-img convert -O qcow2 -o lazy_refcounts=on {raw} {disk}"],
    "small clusters": ["qemu-img convert -O qcow2 -o cluster_size=4k {raw} {disk}"],
    "version 2": ["qemu-img convert -O qcow2 -o compat=0.10 {raw} {disk}"],
}


@pytest.mark.parametrize("feature", CONTAINERS)
def test_no_metadata_of_a_downloaded_qcow2_is_published(context, tmp_path, feature):
    (context.root / "raw").write_bytes(os.urandom(4 * MIB))
    disk = context.root / "one.qcow2"
    with_features(disk, *CONTAINERS[feature])
    assert not read_header(disk, "it").is_plain
    [result] = build_chain([ask(spec("one", "simple:one.qcow2", size="8M"))], context)
    assert result.ok, result.error
    published = tmp_path / "published.qcow2"
    published.write_bytes(lzma.decompress(context.store.get(result.manifest.key.staging.disk).data))
    header = read_header(published, "it")
    assert header.is_plain
    assert (header.version, header.cluster_bits, header.snapshots) == (3, 16, 0)
    with_features(published, "qemu-img convert -O raw {disk} {raw}")
    assert published.with_name("raw").read_bytes() == (context.root / "raw").read_bytes().ljust(
        8 * MIB, b"\0"
    )


def test_no_metadata_of_a_layers_qcow2_is_published(tmp_path):
    """The base may have been built before containers were looked at."""
    (tmp_path / "raw").write_bytes(os.urandom(4 * MIB))
    disk = tmp_path / "disk.qcow2"
    with_features(disk, *CONTAINERS["snapshot"])
    standalone(disk, "qcow2", tmp_path / "done.qcow2", Runner())
    assert read_header(tmp_path / "done.qcow2", "it").is_plain


def test_qemu_img_on_an_untrusted_header_has_limits(tmp_path):
    program = tmp_path / "qemu-img"
    program.write_text('#!/bin/sh\necho "{\\"virtual-size\\": $(ulimit -v)000$(ulimit -t)}"\n')
    program.chmod(0o755)
    runner = Runner(environ={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert virtual_size(tmp_path / "disk", runner) == 209715200060


def test_a_broken_luks_header_fails_the_image_only(context):
    """qemu-img 7.2 reads behind the header's end, and dies of it."""
    disk = context.root / "one.qcow2"
    options = "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10"
    command = "qemu-img create -q -f qcow2 --object secret,id=k,data=x -o " + options + " {disk} 1M"
    for attempt in range(20):
        # On a busy machine it cannot measure how fast it derives keys ("Unable to get accurate CPU
        # usage"), and gives up.
        try:
            with_features(disk, command)
            break
        except subprocess.CalledProcessError:
            if attempt == 19:
                raise
    with disk.open("r+b") as file:
        file.seek(0x10000)
        file.write(b"\xff" * 4096)
    [result] = build_chain([ask(spec("one", "simple:one.qcow2"))], context)
    assert "one.qcow2 is an encrypted qcow2" in result.error


def test_concurrent_runs_write_separate_logs(context):
    """Neither ends before both are under way: a log they shared would have both runs' lines."""
    both = threading.Barrier(2)
    ended = {}

    class Meeting(DirectoryStore):
        def upload(self, key, chunks, **options):
            both.wait(ENOUGH)
            return super().upload(key, chunks, **options)

    def run(side):
        disk_file(context.root, f"{side}.img")
        mine = replace(context, store=Meeting(path=context.root.parent / side))
        [ended[side]] = build_chain([ask(spec("one", f"simple:{side}.img"))], mine)

    threads = [threading.Thread(target=run, args=(side,)) for side in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for side, other in (("left", "right"), ("right", "left")):
        assert ended[side].ok, ended[side].error
        store = DirectoryStore(path=context.root.parent / side)
        log = store.get(ended[side].manifest.key.staging.log).data.decode()
        assert f"preparing simple:{side}.img" in log
        assert f"{other}.img" not in log
    assert [path.name for path in context.logs.iterdir()] == ["one.log"]


@pytest.fixture
def large(monkeypatch, context):
    """Images of which one has room, and not two at once."""
    # What is free changes beside other tests; here it is always the same.
    bytes_free = free(context.root)
    size = bytes_free // 3
    monkeypatch.setattr("lago_images.host.space.free", lambda _folder: bytes_free)
    monkeypatch.setattr("lago_images.building.reservations.disk_size", lambda *_args: size)
    for name in ("one", "two", "three"):
        disk_file(context.root, f"{name}.img")
    return [[ask(spec(name, f"simple:{name}.img"))] for name in ("one", "two", "three")]


def test_chains_that_do_not_fit_together_are_built_one_after_the_other(context, large):
    at_work, most = [], []

    class Counting(DirectoryStore):
        def upload(self, key, chunks, **options):
            at_work.append(key)
            most.append(len(at_work))
            time.sleep(0.2)
            at_work.remove(key)
            return super().upload(key, chunks, **options)

    counting = replace(context, store=Counting(path=context.store.path))
    results = build_chains(large, counting, accel=EMULATED, jobs=3)
    assert all(result.ok for result in results), results
    assert most == [1, 1, 1]
    assert "waits for disk space" in context.console.stream.getvalue()


def test_an_image_waiting_for_disk_space_ends_with_the_run(context, large, monkeypatch):
    def over(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("lago_images.building.image.send_disk", over)
    with pytest.raises(KeyboardInterrupt):
        build_chains(large, context, accel=EMULATED, jobs=3)
    assert left(context) == []


def test_a_missing_git_lfs_file_is_planned_and_not_built(tmp_path):
    """Git's own filters stand in for git-lfs: the content in one clone, pointers in another."""
    repo = SpecsRepo.create(tmp_path / "specs")
    content = repo.disk("disk.raw").read_bytes()
    oid = hashlib.sha256(content).hexdigest()
    pointer = "version https://git-lfs.github.com/spec/v1\n"
    pointer += f"oid sha256:{oid}\nsize {len(content)}\n"
    clean = repo.write(".git/pointer", pointer)
    git(repo.root, "config", "filter.lfs.clean", f"cat > /dev/null; cat '{clean}'")
    repo.write(".gitattributes", "*.raw filter=lfs\n")
    repo.spec("one", "simple:disk.raw")
    repo.commit()
    git(tmp_path, "clone", "-q", repo.root.as_uri(), "clone")
    clone = SpecsRepo(root=tmp_path / "clone")
    assert (clone.root / "disk.raw").read_text() == pointer
    plans = [one.run("ci", "plan", "--format", "json").json() for one in (repo, clone)]
    assert [made["dirty"] for made in plans] == [False, False]
    assert plans[0]["images"] == plans[1]["images"]
    refused = clone.run("build")
    assert refused.code == 1
    assert (
        "image-specs/one:2: host path 'disk.raw' is only a Git LFS pointer here, not the file "
        "(git lfs pull; in CI, check out with lfs)"
    ) in refused.err
    assert not list(clone.root.glob("image-repo/builds/one/**/*.xz"))
    assert repo.run("build").code == 0


def test_copied_in_files_belong_to_root_whoever_builds(tmp_path):
    """libguestfs has the host's tar pack it, which keeps owners."""
    path = tmp_path / "file"
    path.write_text("x")
    if os.geteuid() == 0:
        os.chown(path, 1234, 1234)
    environ = {**os.environ, **appliance_environment(Acceleration(name="tcg"))}
    argv = ["tar", "-cf", "-", "-C", str(tmp_path), "file"]
    packed = subprocess.run(argv, env=environ, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        [member] = archive.getmembers()
    assert (member.uid, member.gid) == (0, 0)
