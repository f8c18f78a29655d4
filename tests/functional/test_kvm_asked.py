"""Whether KVM works is asked where a guest may be started, or KVM is required, and nowhere else."""

import os
import re

import pytest

from tests.support.specs import SpecsRepo
from tests.tools import need

need("qemu-img", "git")
WARNING = "KVM DOES NOT WORK HERE"


@pytest.fixture
def repo(tmp_path):
    """A specs repository on a host whose QEMU writes down each of its starts, and fails."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for machine in ("x86_64", "aarch64"):
        qemu = programs / f"qemu-system-{machine}"
        qemu.write_text(f"#!/bin/sh\necho start >> {tmp_path}/starts\nexit 1\n")
        qemu.chmod(0o755)
    # No appliance is tried, which fails later.
    environ = {"PATH": f"{programs}:{os.environ['PATH']}", "LAGO_IMAGES_ENGINE": "namespace"}
    repo = SpecsRepo.create(tmp_path / "specs", environ)
    repo.disk("one.img")
    return repo


def test_what_starts_no_guest_is_built_again_without_asking(repo, tmp_path):
    repo.spec("one", "simple:one.img")
    repo.spec("layer", "layer:one")
    repo.commit()
    for call in (("build",), ("repo", "reproduce", "one")):
        ran = repo.run(*call)
        assert ran.code == 0, ran.err
        assert WARNING not in ran.err
    assert not (tmp_path / "starts").exists()


def test_kvm_that_is_required_is_asked_for_without_a_guest(repo):
    repo.spec("one", "simple:one.img")
    repo.commit()
    ran = repo.run("build", "--require-kvm")
    assert ran.code == 1
    # With the reason, which whoever asked has.
    assert re.search(r"KVM does not work here: [a-z/]", ran.err)


@pytest.mark.parametrize(
    "lines", [["#boot-test=yes"], ["run-command true"]], ids=["a boot", "a command"]
)
def test_whoever_may_start_a_guest_is_told_of_emulation(repo, lines):
    repo.spec("plain", "simple:one.img")
    text = repo.spec("one", "simple:one.img").read_text()
    if "boot" in lines[0]:
        text = text.replace("#boot-test=no: it is made of nothing", "")
    repo.write("image-specs/one", "\n".join([text.rstrip(), *lines]) + "\n")
    repo.commit()
    ran = repo.run("build")
    assert ran.code == 1
    assert WARNING in ran.err
