"""What a host cannot do fails no build: the appliance takes over, and it is told why."""

import errno
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from lago_images.building.bases.prepared import Prepared
from lago_images.building.customise import engine, sysprep
from lago_images.building.customise.namespace import rules
from lago_images.errors import BuildError, CommandError, HostError, ToolMissingError
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.repository.records.manifest import BaseRecord, EngineRecord
from lago_images.settings import Settings
from tests.support.images import a_context, a_spec
from tests.support.namespaces import need_namespaces

pytestmark = pytest.mark.real
need_namespaces()

SPEC = a_spec("#name=e\n#base=layer:debian-12\n#arch=x86_64\n#distro=debian\nmkdir /srv/a\n")
TCG = Acceleration(name="tcg")
DENIED = "Operation not permitted"


class Host:
    """A host with programs of its own, and an appliance that only tells that it was taken."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        self.prepared = Prepared(
            disk=folder / "base.raw", format="raw", record=BaseRecord(ref="layer:x", digest="x")
        )
        self.prepared.disk.write_bytes(bytes(2**20))
        self.environ = {"PATH": f"{self.programs}:{os.environ['PATH']}"}
        self.done = replace(self.prepared, format="the appliance's")

    def fails(self, name: str, text: str) -> None:
        program = self.programs / name
        program.write_text(f"#!/bin/sh\necho '{name}: {text}' >&2\nexit 1\n")
        program.chmod(0o755)

    def lacks(self, name: str) -> None:
        for program in Path("/usr/bin").iterdir():
            if program.name != name:
                (self.programs / program.name).symlink_to(program)
        self.environ = {"PATH": str(self.programs)}

    def customise(self, chosen: str = rules.AUTO, **environ: str) -> engine.Customised:
        settings = Settings(folder=self.folder, engine=chosen)
        context = a_context(self.folder, settings=settings, environ={**self.environ, **environ})
        runner = Runner(environ=self.environ, log=self.folder / "log")
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return engine.customise(SPEC, self.prepared, work, context, runner, accel=TCG)


@pytest.fixture
def host(tmp_path, monkeypatch):
    # Programs that are started as the namespace's root must be in its reach.
    with tempfile.TemporaryDirectory() as programs:
        Path(programs).chmod(0o755)
        made = Host(tmp_path, Path(programs))
        monkeypatch.setattr(sysprep, "customise", lambda *_args, **_named: made.done)
        yield made


def refuse(host, why):
    """Where only namespaces are allowed, a build fails and says why."""
    with pytest.raises(BuildError, match=why) as caught:
        host.customise(rules.NAMESPACE)
    assert "auto" in caught.value.hint


@pytest.mark.parametrize(
    ("program", "text", "why"),
    [
        ("unshare", DENIED, "this host gives users no namespaces"),
        ("newuidmap", DENIED, "sub-ids cannot be used here"),
        (
            "bwrap",
            "Cannot mount proc on /newroot/proc",
            "this host gives no sandbox: bwrap: Cannot",
        ),
        ("slirp4netns", "open(/dev/net/tun)", "slirp4netns cannot connect a namespace"),
        ("ip", "RTNETLINK answers: " + DENIED, "a namespace's network cannot be set up"),
    ],
)
def test_a_host_that_refuses_namespaces_builds_in_the_appliance(host, program, text, why):
    if program == "newuidmap" and os.geteuid() == 0:
        pytest.skip("root writes its maps itself")
    host.fails(program, text)
    done = host.customise()
    assert done.prepared == host.done
    assert done.engine.name == rules.APPLIANCE
    assert done.engine.why.startswith(why)
    assert f"its commands run in the appliance ({why}" in (host.folder / "log").read_text()
    refuse(host, why)


@pytest.mark.parametrize("program", ["bwrap", "slirp4netns", "unshare", "prlimit"])
def test_a_host_without_a_program_builds_in_the_appliance(host, program):
    host.lacks(program)
    done = host.customise()
    assert done.engine.name == rules.APPLIANCE
    assert program in done.engine.why
    assert "not installed" in done.engine.why
    refuse(host, program)


def test_a_disk_that_cannot_be_read_is_for_the_appliance(host):
    done = host.customise()
    assert done.engine == EngineRecord(name=rules.APPLIANCE, why="its disk has no partition table")
    assert list((host.folder / "work").iterdir()) == []
    refuse(host, "no partition table")


@pytest.mark.parametrize(
    "error",
    [
        HostError("no room in /scratch"),
        OSError(errno.ENOSPC, "No space left on device"),
        CommandError("mke2fs failed", argv=["mke2fs"], returncode=1),
        BuildError("image-specs/e:5: mkdir failed"),
    ],
)
def test_what_does_not_succeed_is_done_again_in_the_appliance(host, monkeypatch, error):
    def fail(*_args: object) -> Prepared:
        raise error

    monkeypatch.setattr(engine, "in_namespaces", fail)
    done = host.customise()
    assert done.prepared == host.done
    assert done.engine.why == f"it did not succeed in namespaces: {error}"
    with pytest.raises(type(error)):
        host.customise(rules.NAMESPACE)


FAILED = BuildError("image-specs/e:5: mkdir /srv/a failed: no such folder")
AGAIN = "; it was tried again in the appliance"


@pytest.mark.parametrize(
    ("first", "second", "message", "hint"),
    [
        (FAILED, FAILED, f"{FAILED}{AGAIN}, with the same result", None),
        (
            FAILED,
            BuildError("image-specs/e:5: mkdir /srv/a failed: no space"),
            f"{FAILED}{AGAIN}: no space",
            None,
        ),
        (
            FAILED,
            ToolMissingError("virt-sysprep is not installed", hint="install it"),
            f"{FAILED}{AGAIN}: virt-sysprep is not installed",
            "install it",
        ),
        (
            HostError("no room in /scratch", hint="set TMPDIR"),
            OSError(errno.ENOSPC, "No space left on device"),
            f"no room in /scratch (set TMPDIR){AGAIN}: [Errno 28] No space left on device",
            None,
        ),
    ],
)
def test_what_fails_in_both_engines_is_told_by_what_failed_first(
    host, monkeypatch, first, second, message, hint
):
    def fail(error):
        def failing(*_args: object, **_named: object) -> Prepared:
            raise error

        return failing

    monkeypatch.setattr(engine, "in_namespaces", fail(first))
    monkeypatch.setattr(sysprep, "customise", fail(second))
    with pytest.raises(BuildError) as caught:
        host.customise()
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        (rules.AUTO, "base, commands, disk and host allow it"),
        (rules.NAMESPACE, "engine = namespace"),
    ],
)
def test_namespaces_are_told_of_with_the_reason(host, monkeypatch, chosen, why):
    monkeypatch.setattr(engine, "in_namespaces", lambda *_args: host.done)
    assert host.customise(chosen).engine == EngineRecord(name=rules.NAMESPACE, why=why)
    assert f"its commands ran in namespaces ({why})" in (host.folder / "log").read_text()


def test_a_strangers_pull_request_is_for_the_appliance(host):
    assert host.customise(CHANGE_FORK="them").engine.why == "the pull request may be from a fork"


def test_who_chooses_the_appliance_gets_it(host):
    assert Settings().engine == rules.AUTO
    assert host.customise(rules.APPLIANCE).engine.why == "engine = appliance"
