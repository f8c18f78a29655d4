"""Whether KVM works is asked where a guest may be started, or KVM is required, and nowhere else."""

import re

import pytest

from tests.support.emulators import failing_qemu
from tests.support.specs import SpecsRepo
from tests.tools import need

need("qemu-img", "git")
WARNING = "KVM DOES NOT WORK HERE"


@pytest.fixture
def repo(tmp_path):
    # No appliance is tried, which fails later.
    environ = {**failing_qemu(tmp_path / "qemu"), "LAGO_IMAGES_ENGINE": "namespace"}
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
    assert not (tmp_path / "qemu/starts").exists()


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
