"""A layer begins when its base's disk is finished. What is first is told by events, not by time."""

import io
import os
import re
import shutil
import signal
import threading
from dataclasses import replace

import pytest

from lago_images.console import Console
from lago_images.storage.directory.store import DirectoryStore
from tests.functional.test_boot_beside import bootable
from tests.functional.test_building import (
    ask,
    build_chain,
    context,
    disk_file,
    left,
    objects,
    raw_of,
    running,
    spec,
    wait_for,
)
from tests.functional.test_interrupt import building, is_left_as_told, read_until
from tests.support.running import left_running
from tests.support.specs import SpecsRepo
from tests.tools import need

need("qemu-img", "git")
__all__ = ["context"]
HANGS = 300
MIB = 2**20
CHAIN = (("one", "simple:one.img"), ("two", "layer:one"), ("three", "layer:two"))


class Told(io.StringIO):
    """A log that lets others wait for a line of it."""

    def __init__(self):
        super().__init__()
        self._changed = threading.Condition()

    def write(self, text):
        with self._changed:
            super().write(text)
            self._changed.notify_all()

    def wait_for(self, text):
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.getvalue(), HANGS), self.getvalue()


def storing(context, before):
    """Return the context with a store that calls ``before`` with each disk that is to be sent.

    And the list of the keys that are written, in order.
    """
    written = []

    class Recording(DirectoryStore):
        def upload(self, key, chunks, **options):
            before(key)
            written.append(key)
            return super().upload(key, chunks, **options)

        def put(self, key, data, **options):
            written.append(key)
            return super().put(key, data, **options)

    store = Recording(path=context.store.path)
    return replace(context, store=store, console=Console(stream=Told())), written


def program(folder, name, text):
    """Put a program in front of the one of that name; return the PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def starting_from(tmp_path, base, what):
    """Let the start of a layer from a base's disk be something else; return the PATH."""
    layer = f"create\\ *-b\\ */{base}/disk.qcow2\\ */base.qcow2"
    text = f'case "$*" in {layer}) {what};; esac\nexec {shutil.which("qemu-img")} "$@"'
    return program(tmp_path / "bin", "qemu-img", text)


def starting_for_ever(tmp_path, base):
    """Let no layer on a base begin or end; return the PATH, and a file that is there when it is."""
    started = tmp_path / "started"
    return starting_from(tmp_path, base, f"echo $$ > {started}; exec sleep 3600"), started


def chain(context, kind=spec):
    disk_file(context.root, "one.img")
    return [ask((kind if name == "one" else spec)(name, base)) for name, base in CHAIN]


def test_a_layer_is_built_while_its_base_is_uploaded_and_stored_after_it(context, tmp_path):
    def wait_for_the_layer(key):
        if "/one/" in key:
            # Finished, and not only begun; and so the next one.
            waiting.console.stream.wait_for("two: writing the finished disk")
            waiting.console.stream.wait_for("three: preparing layer:two")

    waiting, written = storing(context, wait_for_the_layer)
    given = chain(context)
    results = build_chain(given, waiting)
    assert all(result.ok for result in results), results
    owners = [key.split("/")[1] for key in written]
    assert owners == sorted(owners, key=["one", "two", "three"].index)
    one, two, three = [result.manifest for result in results]
    assert two.base.digest == f"sha256:{one.disk.sha256}"
    assert (two.base.build, three.base.build) == (one.build_id, two.build_id)
    assert raw_of(context, three, tmp_path) == (context.root / "one.img").read_bytes()
    assert left(context) == []


def fails_and_stops(context, results, started, tmp_path):
    """Check that the base failed, that its layers were stopped with it, and nothing is left."""
    one, two, three = results
    assert (one.ok, two.skipped, three.skipped) == (False, "one", "two")
    assert objects(context) == []
    assert left(context) == []
    wait_for(lambda: not running(int(started.read_text())))
    assert "two: stopped, because one failed" in context.console.stream.getvalue()


@pytest.mark.parametrize("goal", ["two", "one"])
def test_what_is_built_for_an_image_that_has_failed_is_stopped(context, tmp_path, goal):
    """Its base is at work until then; but not where that is wanted for itself."""
    need("qemu-system-x86_64")
    started, failed = tmp_path / "started", tmp_path / "failed"
    path = program(
        tmp_path / "bin",
        "qemu-system-x86_64",
        f"echo $$ > {started}\nwhile [ ! -s {failed} ]; do sleep 0.1; done\necho late >&2\n"
        + ("exec sleep 3600" if goal == "two" else "exit 1"),
    )
    wait = f"while [ ! -s {started} ]; do sleep 0.1; done; echo no room >&2; exit 1"
    starting_from(tmp_path, "one", wait)
    hot, _ = storing(context, lambda _key: None)
    hot = replace(hot, environ={**context.environ, "PATH": path})
    one, two = chain(context, bootable)[:2]
    told = threading.Thread(
        target=lambda: (hot.console.stream.wait_for("two: log: "), failed.write_text("two")),
        daemon=True,
    )
    told.start()
    results = build_chain([one, two], hot, goal=goal)
    told.join(HANGS)
    assert (results[1].ok, results[1].skipped) == (False, "")
    assert results[0].skipped == ("two" if goal == "two" else "")
    said = hot.console.stream.getvalue()
    assert re.search(r"two: failed while preparing layer:one: \S", said)
    assert ("one: stopped, because two failed" in said) == (goal == "two")
    assert objects(hot) == []
    assert left(hot) == []
    wait_for(lambda: not running(int(started.read_text())))


def test_a_base_that_does_not_boot_stops_the_layer_under_way(context, tmp_path):
    need("qemu-system-x86_64")
    path, started = starting_for_ever(tmp_path, "one")
    program(
        tmp_path / "bin",
        "qemu-system-x86_64",
        f"while [ ! -s {started} ]; do sleep 0.1; done\necho it gave up >&2\nexit 1",
    )
    hot, _ = storing(context, lambda _key: None)
    hot = replace(hot, environ={**context.environ, "PATH": path})
    results = build_chain(chain(context, bootable), hot)
    fails_and_stops(hot, results, started, tmp_path)
    assert results[0].step == "boot test"


@pytest.mark.parametrize("base", ["one", "two"])
def test_a_failed_upload_of_a_base_stops_layers_under_way_and_finished(context, tmp_path, base):
    """Of two layers one is made; or it is finished, and the next one is made on it."""
    path, started = starting_for_ever(tmp_path, base)

    def fail(_key):
        wait_for(lambda: started.exists() and started.read_text().strip())
        raise OSError(5, "the store is on fire")

    hot, _ = storing(context, fail)
    hot = replace(hot, environ={**context.environ, "PATH": path})
    results = build_chain(chain(context), hot)
    fails_and_stops(hot, results, started, tmp_path)
    assert "on fire" in results[0].error


def test_a_failed_layer_leaves_its_base(context, tmp_path):
    path = starting_from(tmp_path, "one", "exit 3")
    hot = replace(context, environ={**context.environ, "PATH": path})
    one, two, three = build_chain(chain(context), hot)
    assert (one.ok, two.ok, three.skipped) == (True, False, "two")
    assert "starting from the disk of one: qemu-img failed with exit code 3" in two.error
    assert {key.split("/")[1] for key in objects(context)} == {"one"}
    assert left(context) == []


def test_ctrl_c_ends_an_upload_and_the_layer_under_way(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    path, started = starting_for_ever(tmp_path, "one")
    repo.write("one.img", os.urandom(64 * MIB))
    for name, base in CHAIN:
        repo.spec(name, base)
    repo.commit()
    with building(repo, LAGO_IMAGES_COMPRESSION_LEVEL="9", PATH=path) as run:
        read_until(run, "two: preparing layer:one")
        wait_for(lambda: started.exists() and started.read_text().strip())
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
        assert run.wait() == 130, rest
    assert is_left_as_told(tmp_path / "scratch", rest)
    assert left_running(str(tmp_path)) == []
    assert not list((repo.root / "image-repo").rglob("two*/**/manifest.json"))
