"""A boot test beside compressing and uploading: real QEMU, a disk too small to boot."""

import os
import re
import shutil
import threading
from dataclasses import replace
from datetime import date

import pytest

from lago_images.building.chain import build_chains
from lago_images.host.kvm import Acceleration
from lago_images.specs.quarantine import Quarantine, QuarantineEntry
from lago_images.storage.directory.store import DirectoryStore
from tests.functional.test_building import ask, build_chain, context, disk_file, left, objects, spec
from tests.tools import need

need("qemu-img", "qemu-system-x86_64")
__all__ = ["context"]
HANGS = 300


def bootable(name, base):
    made = spec(name, base)
    properties = {key: text for key, text in made.properties.items() if key != "boot-test"}
    return replace(made, properties=properties)


def test_a_disk_that_fails_its_boot_test_leaves_no_build(context):
    disk_file(context.root, "one.img")
    disk_file(context.root, "good.img")
    requests = [
        ask(bootable("one", "simple:one.img")),
        ask(spec("on-one", "layer:one")),
        ask(spec("good", "simple:good.img")),
    ]
    one, layer, good = build_chain(requests, context)
    assert (one.ok, one.step, layer.skipped, good.ok) == (False, "boot test", "one", True)
    assert re.search("boot test: the guest gave up|No bootable device", one.error)
    assert not [key for key in objects(context) if "one" in key]
    assert left(context) == []


def test_an_image_whose_emulator_is_missing_is_refused_before_its_build(context, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/qemu-img").symlink_to(shutil.which("qemu-img"))
    disk_file(context.root, "one.img")
    other = replace(bootable("one", "simple:one.img"), arch="aarch64")
    bare = replace(context, environ={**context.environ, "PATH": str(tmp_path / "bin")})
    [result] = build_chain([ask(other)], bare)
    assert result.error == (
        "qemu-system-aarch64 is not installed (apt-get install qemu-system-arm qemu-efi-aarch64)"
    )
    assert (result.step, result.times) == ("", ())


def test_a_boot_that_is_held_back_is_recorded_with_what_it_ran_on(context, tmp_path):
    """KVM runs no machine of another architecture, however well it works here."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/qemu-system-ppc64"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    disk_file(context.root, "one.img")
    entry = QuarantineEntry(issue="https://example.org/1", until=date.max)
    request = replace(
        ask(replace(bootable("one", "simple:one.img"), arch="ppc64le")),
        quarantine=Quarantine(entries=(entry,)),
    )
    environ = {**context.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    has_kvm = Acceleration(name="kvm")
    [result] = build_chains([[request]], replace(context, environ=environ), accel=has_kvm, jobs=1)
    assert result.ok, result.error
    assert (result.manifest.boot.has_passed, result.manifest.boot.accel) == (False, "tcg")


def test_the_boot_test_starts_while_the_disk_is_uploaded(context, tmp_path):
    """Each waits for the other to have begun: one after the other, both would wait for ever."""
    started, sending = tmp_path / "started", threading.Event()
    program = tmp_path / "bin/qemu-system-x86_64"
    program.parent.mkdir()
    real = shutil.which("qemu-system-x86_64")
    wait = f"while [ ! -e {tmp_path}/sending ]; do sleep 0.1; done"
    program.write_text(f'#!/bin/sh\ntouch {started}\n{wait}\nexec {real} "$@"\n')
    program.chmod(0o755)

    class Waiting(DirectoryStore):
        def upload(self, key, chunks, **options):
            (tmp_path / "sending").touch()
            sending.set()
            for _ in range(10 * HANGS):
                if started.exists():
                    return super().upload(key, chunks, **options)
                sending.wait()
                threading.Event().wait(0.1)
            pytest.fail("no guest was started while the disk was sent")

    disk_file(context.root, "one.img")
    environ = {**context.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    waiting = replace(context, store=Waiting(path=context.store.path), environ=environ)
    [result] = build_chain([ask(bootable("one", "simple:one.img"))], waiting)
    # The disk boots no better than before.
    assert result.step == "boot test"
    assert started.exists()
    assert sending.is_set()
    assert objects(context) == []


def test_a_failing_upload_ends_the_boot_test(context, tmp_path):
    """QEMU would go on for minutes, and its image cannot be published any more."""
    program = tmp_path / "bin/qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 3600\n")
    program.chmod(0o755)

    class Broken(DirectoryStore):
        def upload(self, key, chunks, **options):
            for _ in range(10 * HANGS):
                if (tmp_path / "started").exists():
                    raise OSError(5, "the disk is broken")
                threading.Event().wait(0.1)
            pytest.fail("no guest was started while the disk was sent")

    disk_file(context.root, "one.img")
    environ = {**context.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    broken = replace(context, store=Broken(path=context.store.path), environ=environ)
    [result] = build_chain([ask(bootable("one", "simple:one.img"))], broken)
    assert "the disk is broken" in result.error
    assert result.step == "compressing and uploading"
    assert left(context) == []
