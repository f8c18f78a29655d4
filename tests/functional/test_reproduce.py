"""``repo reproduce``: a published revision is built again from its commit, and compared."""

import shutil
import subprocess
from dataclasses import replace

import pytest

from lago_images.building.chain import build_chains
from lago_images.building.ext4 import Place, settle_times, write_ext4
from lago_images.building.model import Request
from lago_images.host.kvm import Acceleration
from lago_images.host.process import Runner
from lago_images.specs.read import read
from lago_images.storage.directory.store import DirectoryStore
from tests.support.images import a_context
from tests.support.specs import SpecsRepo, git
from tests.tools import need

need("qemu-img", "git", "mke2fs", "debugfs", "dumpe2fs", "sfdisk")
MIB = 2**20
PLACE = Place(
    start=MIB,
    size=16 * MIB,
    uuid="0a1b2c3d-1111-2222-3333-444455556666",
    label="root",
    hash_seed="1a1b2c3d-1111-2222-3333-444455556666",
)


@pytest.fixture
def repo(tmp_path):
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.disk("image-specs/files/one.img", seed=1)
    repo.spec("one", "simple:image-specs/files/one.img")
    repo.spec("one-layer", "layer:one", "#size=2M")
    repo.commit("Add the specs")
    return repo


def published(repo):
    ran = repo.run("ci", "rebuild", "--changed")
    assert ran.code == 0, ran.err
    return repo


def objects(repo):
    folder = repo.root / "image-repo"
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def ext4_disk(folder, files):
    """A disk as ``bootstrap:`` lays it out, with these files in it."""
    tree, disk = folder / "tree", folder / "disk.raw"
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tree / "etc/program").chmod(0o755 if "more" in files else 0o700)
    with disk.open("wb") as file:
        file.truncate(PLACE.start + PLACE.size)
    table = "label: dos\nlabel-id: 0x1234abcd\nstart=2048, type=83, bootable\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, text=True, check=True, timeout=60)
    settle_times(tree, 0, 10**9, Runner())
    write_ext4(str(tree), str(disk), PLACE, folder, 10**9, Runner())
    shutil.rmtree(tree)
    return disk


@pytest.mark.parametrize("name", ["one", "one-layer"])
def test_the_same_commit_gives_the_same_bytes(repo, name):
    published(repo)
    before, commit = objects(repo), repo.head
    # Whatever is checked out, and changed here, by now.
    repo.disk("image-specs/files/one.img", seed=2)
    repo.spec("one", "simple:image-specs/files/one.img", "#notes=new")
    repo.commit("Change one")
    repo.write("image-specs/files/one.img", "not a disk")
    ran = repo.run("repo", "reproduce", name)
    assert ran.code == 0, ran.out + ran.err
    title, verdict = ran.out.splitlines()
    assert title.startswith(f"{name} (x86_64), revision 1: build ")
    assert title.endswith(f"of commit {commit}")
    assert verdict == "same bytes"
    assert objects(repo) == before
    assert git(repo.root, "worktree", "list").count("\n") == 0


def test_an_older_revision_is_built_from_its_own_commit_and_base(repo):
    published(repo)
    repo.disk("image-specs/files/one.img", seed=2)
    repo.commit("Another disk")
    published(repo)
    for revision in ("1", "2"):
        ran = repo.run("repo", "reproduce", "one-layer", "--revision", revision)
        assert (ran.code, ran.out.splitlines()[-1]) == (0, "same bytes"), ran.err


def test_it_works_in_a_shallow_clone(repo, tmp_path):
    published(repo)
    repo.write("README.md", "more\n")
    repo.commit("Say more")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repo.root}", "clone")
    ran = repo.run(
        *("-C", str(tmp_path / "clone"), "repo", "reproduce", "one"),
        *("--repository", str(repo.root / "image-repo")),
    )
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "same bytes"), ran.err


def test_what_a_builder_made_otherwise_is_named_file_by_file(tmp_path):
    """Its disk is not what its manifest says it was made of."""
    repo = SpecsRepo.create(tmp_path / "specs")
    same = {"etc/same": "x", "etc/program": "x"}
    honest = ext4_disk(tmp_path, {**same, "etc/changed": "newer", "more": "x"})
    shutil.move(honest, repo.write("one.img", ""))
    repo.spec("one", "simple:one.img")
    commit = repo.commit("Add an image")
    [image] = repo.run("ci", "plan", "--format", "json").json()["images"]
    root = tmp_path / "other"
    root.mkdir()
    other = ext4_disk(tmp_path, {**same, "etc/changed": "old", "gone": "x"})
    shutil.move(other, root / "one.img")
    with (root / "one.img").open("r+b") as file:
        file.write(b"boot code")
    store = DirectoryStore(path=repo.root / "image-repo")
    request = Request(
        spec=read(repo.root, "image-specs")["one"],
        fingerprint=image["fingerprint"],
        commit=commit,
        dirty=False,
    )
    context = replace(a_context(tmp_path, store=store), root=root)
    [built] = build_chains([[request]], context, accel=Acceleration(name="tcg"), jobs=1)
    assert built.ok, built.error
    published(repo)
    ran = repo.run("repo", "reproduce", "one")
    assert ran.code == 1, ran.err
    _, verdict, base, *lines, code, partition = ran.out.splitlines()
    assert verdict == "different"
    assert base.startswith("  base simple:one.img: sha")
    assert lines == [
        "  /etc/changed: size 3 → 5, content",
        "  /etc/program: mode 0700 → 0755",
        "  /gone: missing",
        "  /more: new",
    ]
    assert code == "  boot code: 1 block of 4 KiB, from byte 0"
    assert partition.startswith("  partition 1 (a Linux file system): ")


def test_what_stands_in_the_way_is_said_before_anything_is_built(repo, tmp_path):
    published(repo)
    repo.spec("one", "simple:image-specs/files/one.img", "#notes=never committed")
    ran = repo.run("build", "one", "--repo-dir", "image-repo")
    assert ran.code == 0, ran.err
    ran = repo.run("repo", "reproduce", "one", "--format", "json")
    assert ran.code == 1
    report = ran.json()
    assert report["verdict"] is None
    [obstacle] = report["obstacles"]
    assert "some files were not committed" in obstacle
    assert obstacle in ran.err
    other = SpecsRepo.create(tmp_path / "other")
    other.spec("else", "simple:x.img")
    other.commit("Something else")
    ran = other.run("--repository", str(repo.root / "image-repo"), "repo", "reproduce", "one-layer")
    assert ran.code == 1
    assert "is not in this clone" in ran.err
    assert ran.out.splitlines()[-1] == "it cannot be built again"


def test_a_revision_that_there_is_not_is_refused(repo):
    published(repo)
    ran = repo.run("repo", "reproduce", "one", "--revision", "7")
    assert ran.code == 2
    assert "revision 7 of one (x86_64) does not exist" in ran.err
