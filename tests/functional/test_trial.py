"""An image tried out before it is published, and one looked into afterwards."""

import io
import lzma
import os
import re
import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner

from lago_images.building.model import Result
from lago_images.cli.invocation import Invocation
from lago_images.cli.trial import try_
from lago_images.console import Console, human_size
from lago_images.jobs import trial
from lago_images.repository.browsing import queries
from lago_images.repository.records.guest_tests import (
    GuestTestRecord,
    QuarantinedFailure,
    tally,
)
from lago_images.repository.records.manifest import BootTest
from lago_images.repository.records.state import StoredBuild
from lago_images.storage.directory.store import DirectoryStore
from tests.support.builders import manifest, put, put_build, spec
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git", "qemu-img")

QEMU = """\
#!/bin/sh
case "$*" in *-nographic*) ;; *) exit 1;; esac
printf '%s\\n' "$@" >"$OUT/argv"
echo "guest console"
read line && echo "typed $line"
"""


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("one.img")
    repo.spec("one", "simple:one.img")
    repo.spec("two", "layer:one")
    repo.commit()
    return repo


@pytest.fixture
def qemu(tmp_path):
    """A stand-in for QEMU; the environment with it on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "qemu-system-x86_64").write_text(QEMU.replace("$OUT", str(folder)))
    (folder / "qemu-system-x86_64").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def raw(path):
    argv = ["qemu-img", "convert", "-O", "raw", str(path), f"{path}.raw"]
    subprocess.run(argv, check=True)
    return path.with_name(f"{path.name}.raw").read_bytes()


def test_try_builds_an_image_and_its_base_without_publishing(repo):
    ran = repo.run("try", "two")
    assert ran.code == 0, ran.err
    assert raw(repo.root / "two.qcow2") == (repo.root / "one.img").read_bytes()
    assert ran.out.splitlines()[-1] == str(repo.root / "two.qcow2")
    assert "next: lago-images run two.qcow2" in ran.err
    assert not (repo.root / "image-repo").exists()
    assert not (repo.root / "one.qcow2").exists()


def test_what_is_kept_of_a_trial_is_compared_with_what_is_published(repo):
    assert repo.run("build").code == 0
    repo.spec("one", "simple:one.img", "#notes=tried")
    ran = repo.run("try", "one", "--keep", "kept/of one", "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.json()["kept"] == str(repo.root / "kept/of one")
    assert {path.name for path in (repo.root / "kept/of one").iterdir()} >= {
        "manifest.json",
        "spec.txt",
    }
    [words] = re.findall(
        r"^what changed since revision 1: lago-images (.*)$", ran.err, re.MULTILINE
    )
    compared = repo.run(*shlex.split(words), "--format", "json").json()
    assert (compared["old"]["revision"], compared["new"]["revision"]) == (1, None)
    assert [each["name"] for each in compared["properties"]] == ["notes"]
    assert compared["commands"] == []
    (repo.root / "kept/of one/packages.txt").write_text("of an older trial")
    assert repo.run("try", "one", "--force", "--keep", "kept/of one").code == 0
    assert not (repo.root / "kept/of one/packages.txt").exists()


def test_the_lists_of_a_build_are_kept_as_they_were_made(tmp_path):
    store, made = DirectoryStore(path=tmp_path / "store"), manifest(packages=1)
    staging = put_build(store, made)
    put(store, staging.boot_files, b"- - /boot/efi\n")
    kept = tmp_path / "kept"
    trial.keep(store, StoredBuild(manifest=made, folder=staging), spec(made.name, notes="x"), kept)
    build = queries.local_build(kept)
    assert (build.manifest, [each.name for each in build.packages]) == (made, ["bash"])
    assert build.boot_files is not None
    assert build.spec == "#notes=x\n"


def test_nothing_is_kept_of_a_failed_trial(repo):
    repo.spec("bad", "simple:missing.img")
    repo.write("missing.img", "")
    ran = repo.run("try", "bad", "--keep", "kept")
    assert (ran.code, (repo.root / "kept").exists()) == (1, False), ran.err


def test_the_disk_is_suggested_where_it_is(repo):
    (repo.root / "my disks").mkdir()
    ran = repo.run("try", "one", "--output", "my disks/o.qcow2")
    assert (ran.code, "next: lago-images run 'my disks/o.qcow2'" in ran.err) == (0, True), ran.err


def test_an_existing_disk_is_not_replaced_without_force(repo):
    (repo.root / "one.qcow2").write_text("mine")
    ran = repo.run("try", "one")
    assert ran.code == 2
    assert "one.qcow2 exists" in ran.err
    assert (repo.root / "one.qcow2").read_text() == "mine"
    assert repo.run("try", "one", "--force").code == 0
    assert (repo.root / "one.qcow2").read_bytes()[:3] == b"QFI"


def test_a_failed_trial_leaves_no_disk(repo):
    repo.spec("bad", "simple:missing.img")
    ran = repo.run("try", "bad")
    assert ran.code != 0
    assert not (repo.root / "bad.qcow2").exists()


PASSED = GuestTestRecord(name="one.test", exit_code=0)
FAILED = GuestTestRecord(name="one.tests/dns", exit_code=1)
HELD = QuarantinedFailure(what=FAILED.name, problem="exit 1", issue="URL", until="2999-12-31")


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ({"manifest": None, "tests": (PASSED, FAILED)}, "tests: 1 passed, 1 failed"),
        ({"boot": (PASSED, FAILED), "held": (HELD,)}, "tests: 1 passed, 1 quarantined"),
        ({"boot": ()}, None),
    ],
)
def test_try_ends_with_how_the_tests_ended(repo, monkeypatch, ending, told):
    boot = BootTest(
        seconds=1, accel="tcg", tests=ending.get("boot", ()), quarantined=ending.get("held", ())
    )
    built = ending.get("manifest", manifest("one", "b1", boot=boot))
    result = Result(
        name="one", arch="x86_64", manifest=built, seconds=1, tests=ending.get("tests", ())
    )
    disk = trial.FinishedDisk(path=repo.root / "one.qcow2", format="qcow2", arch="x86_64")
    monkeypatch.setattr(trial, "build_only", lambda *_: (None, [result]))
    monkeypatch.setattr(trial, "unpack", lambda *_: disk)
    monkeypatch.chdir(repo.root)
    stream = io.StringIO()
    CliRunner().invoke(try_, ["one"], obj=Invocation(console=Console(stream=stream)))
    last = stream.getvalue().splitlines()[-1]
    assert last == told if told else not last.startswith("tests:")


def test_tests_are_counted_by_how_they_ended():
    other = GuestTestRecord(name="one.tests/ntp", problem="not run")
    assert tally([PASSED, FAILED, other], [HELD]) == "tests: 1 passed, 1 failed, 1 quarantined"
    assert tally([PASSED, PASSED]) == "tests: 2 passed"
    assert tally([]) == ""


def test_an_unknown_name_is_a_usage_error(repo):
    ran = repo.run("try", "nosuch")
    assert ran.code == 2
    assert "there is no spec 'nosuch'" in ran.err


@pytest.mark.parametrize("published", [True, False])
def test_run_starts_an_image_on_the_terminal_and_leaves_its_disk_unchanged(
    repo, qemu, published, tmp_path
):
    if published:
        assert repo.run("build", "one").code == 0
        name = "one"
    else:
        assert repo.run("try", "one").code == 0
        name = "one.qcow2"
    done = subprocess.run(
        [sys.executable, "-m", "lago_images", "run", name],
        cwd=repo.root,
        env=repo.env(qemu),
        input="hello\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "guest console\ntyped hello\n"
    argv = (tmp_path / "bin/argv").read_text().splitlines()
    assert any("snapshot=on" in word and "format=qcow2" in word for word in argv)


@pytest.mark.parametrize(("option", "machine"), [((), "pc"), (("--firmware", "uefi"), "q35")])
def test_run_starts_a_machine_with_the_firmware_that_is_asked_for(repo, option, machine):
    ran = repo.run("run", "one.img", "--arch", "x86_64", *option, "--dry-run")
    assert ran.code == 0, ran.err
    assert f"-machine {machine}," in ran.out


def test_a_dry_run_of_a_published_image_tells_of_its_disk_and_writes_nothing(repo, tmp_path):
    assert repo.run("build", "one").code == 0
    disk = repo.run("repo", "show", "one", "--format", "json").json()["revisions"][0]["disk"]
    scratch = tmp_path / "scratch"
    ran = repo.run("run", "one", "--dry-run", environ={"TMPDIR": str(scratch)})
    assert ran.code == 0, ran.err
    target = scratch / "RUN/disk"
    assert f"file={target},format=qcow2" in ran.out
    build = next((repo.root / "image-repo/images").glob("*/*/*/*.qcow2.xz"))
    sizes = [human_size(disk[each]) for each in ("compressed_size", "size", "virtual_size")]
    told = (
        f"a run unpacks {build.relative_to(repo.root / 'image-repo')} ({sizes[0]}) into {target} "
        f"({sizes[1]}, a disk of {sizes[2]} to its guest)"
    )
    assert told in ran.err
    assert not scratch.exists()


def test_run_refuses_a_name_that_is_neither_published_nor_a_file(repo):
    ran = repo.run("run", "one")
    assert ran.code == 2
    assert "here is no file one, and no image of that name was ever published in " in ran.err
    assert "lago-images try one, then lago-images run one.qcow2" in ran.err


def test_run_of_an_image_that_is_withdrawn_fails_and_says_where_the_reason_is(repo):
    assert repo.run("build", "one").code == 0
    assert repo.run("repo", "yank", "one", "--reason", "it leaks").code == 0
    ran = repo.run("run", "one")
    assert (ran.code, ran.out) == (1, "")
    assert "get no revision of one now" in ran.err
    assert "lago-images repo show one says why" in ran.err


def test_run_tells_how_to_make_the_disk_that_is_not_there(repo):
    ran = repo.run("run", "one.qcow2")
    assert ran.code == 2
    assert "here is no file one.qcow2" in ran.err
    assert "lago-images try one, then lago-images run one.qcow2" in ran.err


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a b.qcow2.xz", lzma.compress(b"disk"), "xz --decompress --keep 'a b.qcow2.xz'"),
        ("disk.qcow2", b"a text\n", "disk.qcow2 is no qcow2"),
        ("disk", b"", "a raw disk is told by its name, which ends in .img or .raw"),
    ],
)
def test_run_refuses_a_file_that_no_machine_starts_from(repo, name, data, told):
    (repo.root / name).write_bytes(data)
    ran = repo.run("run", name, "--dry-run")
    assert ran.code == 2
    assert told in ran.err


def test_run_starts_a_raw_disk_whatever_is_in_it(repo):
    (repo.root / "disk.raw").write_bytes(b"")
    ran = repo.run("run", "disk.raw", "--dry-run")
    assert (ran.code, "format=raw" in ran.out) == (0, True), ran.err
